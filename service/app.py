"""The application: services, routes, problem documents, in one place."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import anyio.to_thread
from fastapi import Depends, FastAPI
from starlette.staticfiles import StaticFiles
from swagger_ui_bundle import swagger_ui_path

from service import problem_handlers, problems
from service.access import authorize
from service.api import (
    bundles,
    cuts,
    docs,
    job_events,
    job_results,
    jobs,
    meta,
    models,
    prune,
    sessions,
    web,
    webhooks,
)
from service.middleware import RequestMiddleware
from service.services import Services
from service.settings import Settings
from service.storage import Storage

_DESCRIPTION = """
Makes trained convolutional networks smaller. Send an ONNX model and a calibration bundle, get a
smaller model back, with a report that proves the surgery exact. Every error is a problem document
(RFC 9457) whose `type` can be opened.
"""

_PROBLEM_RESPONSE: dict[int | str, dict[str, Any]] = {
    "default": {
        "description": "A problem document; `code` says which.",
        "content": {
            problems.MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/ProblemDocument"}}
        },
    }
}


def create_app(settings: Settings | None = None, storage: Storage | None = None) -> FastAPI:
    """The ASGI application.

    Args:
        settings: Settings; from the environment when None.
        storage: The data folder, locked as it has to be; that of the settings when None.
    """
    services = Services.build(settings or Settings(), storage)

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        await anyio.to_thread.run_sync(services.open)
        try:
            probe = asyncio.create_task(services.probe())
            try:
                yield
            finally:
                services.jobs.stop_waiting()
                probe.cancel()
                await asyncio.gather(probe, return_exceptions=True)
                await services.catalog.stop()
        finally:
            services.close()

    app = FastAPI(
        title="ONNX filter pruner",
        description=_DESCRIPTION,
        version=meta.TOOL_VERSION,
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        responses=_PROBLEM_RESPONSE,
        dependencies=[Depends(authorize)],
    )
    app.state.services = services
    routes = (
        prune,
        jobs,
        job_results,
        job_events,
        models,
        cuts,
        sessions,
        bundles,
        webhooks,
        meta,
        docs,
        web,
    )
    for module in routes:
        app.include_router(module.router)
    app.mount("/docs/assets", StaticFiles(directory=str(swagger_ui_path)), name="docs-assets")
    app.mount("/web", web.ASSETS, name="web")
    app.add_middleware(RequestMiddleware, metrics=services.metrics)
    problem_handlers.install(app)
    docs.install_openapi(app)
    return app
