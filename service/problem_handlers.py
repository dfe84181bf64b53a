"""Every exception of the API becomes a problem document.

Apart from `problems`, so that the roles that answer no requests start without FastAPI.
"""

from __future__ import annotations

import logging
from http import HTTPStatus

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from sqlalchemy.exc import OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from graph_ops.errors import PrunerError
from service.objects import StorageUnavailable
from service.problems import Problem

_CODE_OF_STATUS = {404: "not_found", 405: "method_not_allowed", 415: "unsupported_media_type"}

log = logging.getLogger("service")


def install(app: FastAPI) -> None:
    """Turn every exception of the app into a problem document."""

    async def on_problem(request: Request, error: Exception) -> Response:
        assert isinstance(error, Problem)
        return error.response(request.url.path)

    async def on_library_error(request: Request, error: Exception) -> Response:
        assert isinstance(error, PrunerError)
        return Problem.from_error(error).response(request.url.path)

    async def on_http_exception(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        return _from_http_exception(request, error).response(request.url.path)

    async def on_validation_error(request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        errors = [
            {"field": ".".join(str(part) for part in e["loc"]), "problem": e["msg"]}
            for e in error.errors()
        ]
        first = errors[0] if errors else {"field": "request", "problem": "is invalid"}
        detail = f"{first['field']}: {first['problem']}."
        return Problem("request_invalid", detail, errors=errors).response(request.url.path)

    async def on_disconnect(request: Request, error: Exception) -> Response:
        return Problem(
            "client_disconnected", "The client closed the connection during the upload."
        ).response(request.url.path)

    async def on_database_error(request: Request, error: Exception) -> Response:
        log.error("the database does not answer: %s", error)
        return Problem(
            "database_unavailable",
            "The database of jobs does not answer.",
            headers={"Retry-After": "5"},
        ).response(request.url.path)

    async def on_storage_error(request: Request, error: Exception) -> Response:
        log.error("the object storage does not answer: %s", error)
        return Problem(
            "storage_unavailable",
            "The object storage does not answer.",
            headers={"Retry-After": "5"},
        ).response(request.url.path)

    async def on_unexpected(request: Request, error: Exception) -> Response:
        request_id = request.scope.get("request_id", "")
        log.error("request %s failed: %s", request_id, type(error).__name__)
        return Problem(
            "internal_error",
            f"The service failed; its log has the details under request id {request_id}.",
            request_id=request_id,
        ).response(request.url.path)

    app.add_exception_handler(Problem, on_problem)
    app.add_exception_handler(PrunerError, on_library_error)
    app.add_exception_handler(HTTPException, on_http_exception)
    app.add_exception_handler(RequestValidationError, on_validation_error)
    app.add_exception_handler(ClientDisconnect, on_disconnect)
    app.add_exception_handler(OperationalError, on_database_error)
    app.add_exception_handler(PoolTimeout, on_database_error)
    app.add_exception_handler(StorageUnavailable, on_storage_error)
    app.add_exception_handler(Exception, on_unexpected)


def _from_http_exception(request: Request, error: HTTPException) -> Problem:
    path = request.url.path
    code = _CODE_OF_STATUS.get(error.status_code)
    if code == "not_found":
        return Problem(code, f"There is nothing at {path}.")
    if code == "method_not_allowed":
        return Problem(
            code, f"{path} does not know the method {request.method}.", headers=error.headers
        )
    if code is None:
        code = "request_malformed" if error.status_code < 500 else "internal_error"
    detail = str(error.detail or HTTPStatus(error.status_code).phrase)
    return Problem(code, detail, headers=error.headers)
