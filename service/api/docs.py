"""Pages for people: the start page and Swagger UI, both served from this machine alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fastapi import APIRouter, FastAPI
from fastapi.openapi.utils import get_openapi
from fastapi.responses import FileResponse, Response

from service.api.prune import OPTIONS_SCHEMA
from service.api.schemas import Forecast, JobRequest
from service.problems import ProblemDocument

router = APIRouter(include_in_schema=False)

WEB_FOLDER = Path(__file__).resolve().parent.parent / "web"

# Nothing on the pages may come from, or go to, another host.
_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'self'; img-src 'self' data:; style-src 'self' 'unsafe-inline'; "
        "frame-ancestors 'none'"
    )
}


@router.get("/", response_class=Response)
async def start_page() -> FileResponse:
    """What this is, and where to go."""
    return FileResponse(WEB_FOLDER / "index.html", media_type="text/html", headers=_HEADERS)


@router.get("/docs", response_class=Response)
async def swagger_page() -> FileResponse:
    """The OpenAPI document as a page to try things out."""
    return FileResponse(WEB_FOLDER / "docs.html", media_type="text/html", headers=_HEADERS)


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
            schemas = document.setdefault("components", {}).setdefault("schemas", {})
            options = dict(OPTIONS_SCHEMA)
            schemas.update(options.pop("$defs", {}))
            schemas["PruneOptions"] = options
            for body in (JobRequest, Forecast):
                schema = body.model_json_schema(ref_template="#/components/schemas/{model}")
                schemas.update(schema.pop("$defs", {}))
                schemas[body.__name__] = schema
            schemas["ProblemDocument"] = ProblemDocument.model_json_schema()
            app.openapi_schema = document
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]
