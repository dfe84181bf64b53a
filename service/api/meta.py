"""What is asked about the service itself: health, metrics, option schema, problem codes."""

from __future__ import annotations

import secrets
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from fastapi import APIRouter, Response

from graph_ops.options import PruneOptions
from service.access import PUBLIC
from service.api.schemas import EngineView, Health, ProblemTypeView, Readiness
from service.metrics import CONTENT_TYPE
from service.objects import StorageUnavailable
from service.problem_types import PROBLEM_TYPES
from service.problems import Problem
from service.services import Services, ServicesDep

router = APIRouter(tags=["service"])

try:
    TOOL_VERSION = version("onnx-filter-pruner")
except PackageNotFoundError:  # a source tree that is not installed
    TOOL_VERSION = "0"


@router.get("/v1/options/schema", openapi_extra=PUBLIC)
async def get_options_schema() -> dict[str, Any]:
    """JSON schema of the options."""
    return PruneOptions.model_json_schema()


@router.get("/healthz", openapi_extra=PUBLIC)
async def healthz() -> Health:
    """Whether the server answers."""
    return Health(status="ok")


@router.get("/readyz", openapi_extra=PUBLIC)
def readyz(services: ServicesDep) -> Readiness:
    """Whether the server can do its work: data folder, disk, database, workers, children."""
    checks = {
        "data_dir": _check_data_dir(services.storage.tmp),
        "disk": _check_disk(services),
        "database": _check_database(services),
        "storage": _check_storage(services),
        "workers": _check_workers(services),
        "children": _check_children(services),
    }
    failed = [f"{name}: {result}" for name, result in checks.items() if result != "ok"]
    if failed:
        raise Problem(
            "not_ready", "; ".join(failed) + ".", headers={"Retry-After": "1"}, checks=checks
        )
    return Readiness(
        status="ready",
        checks=checks,
        versions=services.versions or {},
        engines=_engines(services),
    )


@router.get("/v1/engines")
def list_engines(services: ServicesDep) -> list[EngineView]:
    """The gradient engines: which of them work here, on what, and why one does not."""
    if services.engines is None:
        detail = f"children: {_check_children(services)}."
        raise Problem("not_ready", detail, headers={"Retry-After": "1"})
    return _engines(services)


@router.get(
    "/metrics",
    response_class=Response,
    responses={200: {"description": "Metrics.", "content": {"text/plain": {}}}},
)
def metrics(services: ServicesDep) -> Response:
    """Counters in the text format of Prometheus."""
    return Response(services.metrics.render(), media_type=CONTENT_TYPE)


@router.get("/problems", openapi_extra=PUBLIC)
async def list_problems() -> list[ProblemTypeView]:
    """Every problem code there is."""
    return [_view(code) for code in PROBLEM_TYPES]


@router.get("/problems/{code}", openapi_extra=PUBLIC)
async def get_problem(code: str) -> ProblemTypeView:
    """What a problem code means and what to do: where a problem's `type` leads."""
    if code not in PROBLEM_TYPES:
        raise Problem("not_found", f"There is no problem code {code[:80]!r}; see /problems.")
    return _view(code)


def _engines(services: Services) -> list[EngineView]:
    return [EngineView(**engine) for engine in services.engines or ()]


def _view(code: str) -> ProblemTypeView:
    kind = PROBLEM_TYPES[code]
    return ProblemTypeView(code=code, status=kind.status, title=kind.title, advice=kind.advice)


def _check_data_dir(folder: Path) -> str:
    probe = folder / secrets.token_hex(8)
    try:
        probe.write_bytes(b"ready")
        probe.unlink()
    except OSError as error:
        return f"cannot be written ({error.strerror})"
    return "ok"


def _check_disk(services: Services) -> str:
    try:
        services.storage.require_space()
    except Problem as problem:
        return problem.detail.rstrip(".")
    except OSError as error:
        return f"cannot be read ({error.strerror})"
    return "ok"


def _check_database(services: Services) -> str:
    try:
        services.jobs.store.statistics.counts()
    except sa.exc.SQLAlchemyError as error:
        return f"does not answer ({type(error).__name__})"
    return "ok"


def _check_storage(services: Services) -> str:
    try:
        services.storage.objects.check()
    except StorageUnavailable as error:
        return str(error).rstrip(".")
    return "ok"


def _check_workers(services: Services) -> str:
    try:
        return "ok" if services.workers.slots() else "none is alive"
    except sa.exc.SQLAlchemyError:
        return "not known"


def _check_children(services: Services) -> str:
    if services.versions is not None:
        return "ok"
    if services.probe_problem is not None:
        return services.probe_problem.detail.rstrip(".")
    return "the first one is still starting"
