"""`/v1/bundles`: calibration bundles that are uploaded once and used by id."""

from __future__ import annotations

from typing import Annotated

import anyio.to_thread
from fastapi import APIRouter, Path, Request, Response

from service.access import CallerDep
from service.api.models import get_upload
from service.api.schemas import BundleView, UploadView
from service.api.upload_docs import upload_body, upload_responses
from service.multipart import FilePart
from service.services import Services, ServicesDep
from service.storage import Kind, StoredUpload

router = APIRouter(tags=["bundles"])

BundleId = Annotated[str, Path(description="sha256 of a bundle, in hex.")]


@router.post(
    "/v1/bundles",
    status_code=201,
    responses=upload_responses(BundleView),
    openapi_extra={"requestBody": upload_body("The bundle: .npz, .safetensors, or images.")},
)
async def add_bundle(
    services: ServicesDep, caller: CallerDep, request: Request, response: Response
) -> BundleView:
    """Upload a bundle: multipart with the part `file`, or the raw bytes.

    It is opened first; a file that is no bundle is not stored. Arrays that are not packed are not
    read for that: damage inside them, and whether the bundle fits a model, shows when it is used.
    """
    services.storage.require_space()
    part = FilePart(services.settings.max_upload_bytes)
    async with services.uploads.single_file(request, part) as received:
        bundle, is_new = await services.catalog.add(caller, Kind.BUNDLE, received)
    response.status_code = 201 if is_new else 200
    response.headers["Location"] = f"/v1/bundles/{bundle.id}"
    return await _view(services, bundle)


@router.get("/v1/bundles/{bundle_id}")
async def get_bundle(services: ServicesDep, caller: CallerDep, bundle_id: BundleId) -> BundleView:
    """Names, element types and shapes of the arrays."""
    return await _view(services, await get_upload(services, caller, Kind.BUNDLE, bundle_id))


@router.delete("/v1/bundles/{bundle_id}", status_code=204)
async def delete_bundle(services: ServicesDep, caller: CallerDep, bundle_id: BundleId) -> None:
    """Remove a bundle that no unfinished job needs."""
    await anyio.to_thread.run_sync(services.holdings.delete, caller, Kind.BUNDLE, bundle_id)


async def _view(services: Services, bundle: StoredUpload) -> BundleView:
    facts = await services.catalog.facts(bundle, "contents")
    return BundleView(
        **UploadView.fields_of(bundle, services.settings.upload_retention_s),
        arrays=facts["arrays"],
        images=facts.get("images"),
    )
