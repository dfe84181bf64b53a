"""Problem documents (RFC 9457): the one shape of every error the service answers with.

A handler raises `Problem(code, detail, **members)`; the code's row in `problem_types` gives the
status and title. Errors of `graph_ops` come through `Problem.from_error`.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, Self

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ConfigDict
from sqlalchemy.exc import OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from graph_ops.errors import PrunerError
from service.objects import StorageUnavailable
from service.problem_types import PROBLEM_TYPES

MEDIA_TYPE = "application/problem+json"

_RESERVED = frozenset({"type", "title", "status", "detail", "instance", "code"})
_CODE_OF_STATUS = {404: "not_found", 405: "method_not_allowed", 415: "unsupported_media_type"}

log = logging.getLogger("service")


class ProblemDocument(BaseModel):
    """Body of every error response. Members beyond these depend on the code."""

    model_config = ConfigDict(extra="allow", use_attribute_docstrings=True)

    type: str
    """URI reference of the kind of problem; it can be opened: `/problems/{code}`."""
    title: str
    """What kind of problem it is; the same for every problem of this code."""
    status: int
    """The HTTP status, or the one that a waiting request would have got."""
    detail: str
    """What is wrong this time, where, and what to do."""
    instance: str
    """The job or the request that the problem belongs to."""
    code: str
    """Stable name of the kind of problem, for programs."""


class Problem(Exception):  # noqa: N818 - the word of RFC 9457
    """An error that becomes a problem document.

    Attributes:
        code: A key of `PROBLEM_TYPES`.
        detail: Sentence for this occurrence.
        members: Further JSON-ready members of the document.
        headers: Further response headers.
        instance: URI reference of the job or request; the request's path when None.
    """

    def __init__(
        self,
        code: str,
        detail: str,
        *,
        headers: Mapping[str, str] | None = None,
        instance: str | None = None,
        **members: Any,
    ) -> None:
        super().__init__(f"{code}: {detail}")
        self.code = code
        self.detail = detail
        self.members = members
        self.headers = dict(headers or {})
        self.instance = instance

    @classmethod
    def from_error(cls, error: PrunerError) -> Self:
        """The problem that an error of the library is."""
        return cls.from_parts(error.code, error.message, error.details)

    @classmethod
    def from_parts(cls, code: str, detail: str, members: Mapping[str, Any]) -> Self:
        """A problem from data that came out of another process or off the disk.

        Members named like a field of the document get the prefix `error_`.
        """
        problem = cls(code if code in PROBLEM_TYPES else "job_failed", detail)
        for name, value in members.items():
            clean = f"error_{name}" if name in _RESERVED else name
            problem.members[clean] = value
        return problem

    @property
    def status(self) -> int:
        """The HTTP status of this problem."""
        return PROBLEM_TYPES[self.code].status

    def document(self, instance: str) -> dict[str, Any]:
        """The JSON body; `instance` is used where the problem has none of its own."""
        kind = PROBLEM_TYPES[self.code]
        return {
            "type": f"/problems/{self.code}",
            "title": kind.title,
            "status": kind.status,
            "detail": self.detail,
            "instance": self.instance or instance,
            "code": self.code,
            **self.members,
        }

    def response(self, instance: str) -> Response:
        """The HTTP response."""
        body = json.dumps(self.document(instance), ensure_ascii=False, default=str)
        return Response(
            body.encode("utf-8", "replace"),
            status_code=self.status,
            headers=self.headers,
            media_type=MEDIA_TYPE,
        )


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
