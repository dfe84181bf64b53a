"""Swagger UI at `/docs`, served from this machine alone, and the OpenAPI document it shows."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, FastAPI
from fastapi.openapi.utils import get_openapi
from fastapi.responses import HTMLResponse, Response
from pydantic import BaseModel

from service.access import PUBLIC, SECURITY_SCHEME
from service.api.cuts import CutRequest
from service.api.prune import OPTIONS_SCHEMA
from service.api.schemas import Forecast, JobRequest
from service.api.sessions import PieceRequest, SessionCutRequest, SessionRequest
from service.api.web import page
from service.problems import ProblemDocument

router = APIRouter(include_in_schema=False)

# Nothing on the page may come from, or go to, another host; Swagger UI styles its own elements.
_CONTENT_SECURITY_POLICY = (
    "default-src 'self'; img-src 'self' data:; style-src 'self' 'unsafe-inline'; "
    "frame-ancestors 'none'"
)


@router.get("/docs", response_class=Response, openapi_extra=PUBLIC)
async def swagger_page() -> HTMLResponse:
    """The OpenAPI document as a page to try things out."""
    return page("docs.html", _CONTENT_SECURITY_POLICY)


_BODIES: tuple[type[BaseModel], ...] = (
    JobRequest,
    Forecast,
    CutRequest,
    SessionRequest,
    PieceRequest,
    SessionCutRequest,
)
"""What bodies are that are read as streams, or answered in one of several forms."""


def install_openapi(app: FastAPI) -> None:
    """Add to the OpenAPI document the schemas that only streamed bodies and problems use."""

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            document = get_openapi(
                title=app.title,
                version=app.version,
                description=app.description,
                routes=app.routes,
            )
            components = document.setdefault("components", {})
            components["securitySchemes"] = {"key": SECURITY_SCHEME}
            document["security"] = [{"key": []}, {}]
            schemas = components.setdefault("schemas", {})
            options = dict(OPTIONS_SCHEMA)
            schemas.update(options.pop("$defs", {}))
            schemas["PruneOptions"] = options
            for body in _BODIES:
                schema = body.model_json_schema(ref_template="#/components/schemas/{model}")
                schemas.update(schema.pop("$defs", {}))
                schemas[body.__name__] = schema
            schemas["ProblemDocument"] = ProblemDocument.model_json_schema()
            app.openapi_schema = document
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]
