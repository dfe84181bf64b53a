"""`POST /v1/models/{id}/cut`: surgery by hand, or a report replayed on a sibling model."""

from __future__ import annotations

from typing import Annotated, Any

import anyio.to_thread
from fastapi import APIRouter, Request, Response
from pydantic import ConfigDict, Field

from graph_ops.options import parse_options
from service.access import CallerDep
from service.api.answers import MODEL_ANSWERS, model_answer
from service.api.models import ModelId, get_upload
from service.api.schemas import SchemaBase, Sha256
from service.api.waiting import KeyHeader, PreferHeader
from service.bodies import json_body, read_body
from service.idempotency import check_key
from service.jobs import NewJob
from service.metadata import check_metadata
from service.preferences import parse_prefer
from service.problems import Problem
from service.records import JobKind
from service.services import ServicesDep
from service.storage import Kind

router = APIRouter(tags=["models"])

_REPLAYED = ("name", "op_type", "depthwise", "filters_before", "kept")
"""What a replay needs of each convolution in a report."""


class CutRequest(SchemaBase):
    """Which channels go: exactly one of `drop`, `keep` and `report`."""

    model_config = ConfigDict(use_attribute_docstrings=True, extra="forbid")

    drop: dict[str, list[int]] | None = None
    """By name of a convolution, filters to drop; what is coupled to them goes too."""
    keep: dict[str, list[int]] | None = None
    """By name of a convolution, all its filters that stay."""
    report: dict[str, Any] | None = None
    """A report of a run on a model of the same graph: what it kept is kept."""
    bundle_id: Sha256 | None = None
    """sha256 of a bundle: for the proof, recovery and the metric. Without one the proof is made
    on random inputs, and the weights stay as they are."""
    sample_shapes: dict[str, list[Annotated[int, Field(ge=1)]]] | None = None
    """Shape of one sample by input, where the model leaves axes open and there is no bundle."""
    options: dict[str, Any] | None = None
    """`recovery`, `metric` and what concerns the bundle: see `/v1/options/schema`."""
    metadata: dict[str, Any] = Field(default_factory=dict)
    """Your own words about the job."""


@router.post(
    "/v1/models/{model_id}/cut",
    response_class=Response,
    responses=MODEL_ANSWERS,
    openapi_extra=json_body("CutRequest"),
)
async def cut_model(
    services: ServicesDep,
    caller: CallerDep,
    request: Request,
    model_id: ModelId,
    prefer: PreferHeader = None,
    idempotency_key: KeyHeader = None,
) -> Response:
    """Drop channels that you name, checked and proven like everything else."""
    preferences = parse_prefer(prefer or [])
    key = check_key(idempotency_key)
    asked = await read_body(request, CutRequest, services.settings, services.settings.max_cut_bytes)
    given = [name for name in ("drop", "keep", "report") if getattr(asked, name) is not None]
    if len(given) != 1:
        raise Problem(
            "request_invalid",
            f"Give exactly one of drop, keep and report; found {', '.join(given) or 'none'}.",
            errors=[{"field": "body", "problem": "exactly one of drop, keep, report"}],
        )
    options = parse_options(asked.options)
    metadata = check_metadata(asked.metadata)
    model = await get_upload(services, caller, Kind.MODEL, model_id)
    services.storage.touch(model)
    if asked.bundle_id is not None:
        use = services.holdings.use
        bundle = await anyio.to_thread.run_sync(use, caller, Kind.BUNDLE, asked.bundle_id)
        await services.catalog.require_settings(model, bundle, options)
    services.storage.require_space()
    task: dict[str, Any] = {"channels": {given[0]: _channels(asked, given[0])}}
    if asked.sample_shapes is not None:
        task["sample_shapes"] = asked.sample_shapes
    new = NewJob(
        model_id=model.id,
        bundle_id=asked.bundle_id or "",
        filename=model.filename,
        options=options.model_dump(mode="json"),
        sent_options=options.model_dump(mode="json", exclude_unset=True),
        metadata=metadata,
        kind=JobKind.CUT,
        task=task,
    )
    job = await services.jobs.submit(caller, new, key)
    return await model_answer(services, request, job, preferences)


def _channels(asked: CutRequest, field: str) -> Any:
    """What is kept with the job; of a report only what a replay needs."""
    value = getattr(asked, field)
    if field != "report" or not isinstance(value.get("convolutions"), list):
        return value
    entries = [
        {name: entry.get(name) for name in _REPLAYED} if isinstance(entry, dict) else entry
        for entry in value["convolutions"]
    ]
    return {"convolutions": entries}
