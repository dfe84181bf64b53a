"""`/v1/models`: models that are uploaded once and used by id."""

from __future__ import annotations

from typing import Annotated, Any

import anyio.to_thread
from fastapi import APIRouter, Path, Request, Response

from service.access import Caller, CallerDep
from service.api.schemas import ModelView, UploadView
from service.api.upload_docs import upload_body, upload_responses
from service.multipart import FilePart
from service.services import Services, ServicesDep
from service.storage import Kind, StoredUpload

router = APIRouter(tags=["models"])

ModelId = Annotated[str, Path(description="sha256 of a model, in hex.")]


@router.post(
    "/v1/models",
    status_code=201,
    responses=upload_responses(ModelView),
    openapi_extra={"requestBody": upload_body("The ONNX model, or a zip of it and its data.")},
)
async def add_model(
    services: ServicesDep, caller: CallerDep, request: Request, response: Response
) -> ModelView:
    """Upload a model: multipart with the part `file`, or the raw bytes.

    It is checked first; a model that cannot be used is not stored.
    """
    services.storage.require_space()
    settings = services.settings
    part = FilePart(min(settings.max_model_bytes, settings.max_upload_bytes), "model_too_large")
    async with services.uploads.single_file(request, part) as received:
        model, is_new = await services.catalog.add(caller, Kind.MODEL, received)
    response.status_code = 201 if is_new else 200
    response.headers["Location"] = f"/v1/models/{model.id}"
    return await _view(services, model)


@router.get("/v1/models/{model_id}")
async def get_model(services: ServicesDep, caller: CallerDep, model_id: ModelId) -> ModelView:
    """Inputs, outputs, opset, MACs, parameters, number of prunable filters."""
    return await _view(services, await get_upload(services, caller, Kind.MODEL, model_id))


@router.get("/v1/models/{model_id}/channels")
async def get_model_channels(
    services: ServicesDep, caller: CallerDep, model_id: ModelId
) -> dict[str, Any]:
    """The channel classes: what each would save, and why the others cannot be pruned."""
    model = await get_upload(services, caller, Kind.MODEL, model_id)
    facts: dict[str, Any] = await services.catalog.facts(model, "channels")
    return facts


@router.delete("/v1/models/{model_id}", status_code=204)
async def delete_model(services: ServicesDep, caller: CallerDep, model_id: ModelId) -> None:
    """Remove a model that no unfinished job needs."""
    await anyio.to_thread.run_sync(services.holdings.delete, caller, Kind.MODEL, model_id)


async def get_upload(
    services: Services, caller: Caller, kind: Kind, upload_id: str
) -> StoredUpload:
    """A model or bundle that the caller sees.

    Raises:
        Problem: `model_not_found` or `bundle_not_found`.
    """
    return await anyio.to_thread.run_sync(services.holdings.get, caller, kind, upload_id)


async def _view(services: Services, model: StoredUpload) -> ModelView:
    facts = await services.catalog.facts(model, "inspect")
    return ModelView(
        **UploadView.fields_of(model, services.settings.upload_retention_s), model=facts
    )
