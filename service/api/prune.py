"""`POST /v1/prune`: a model and a bundle in, a smaller model out, in one request."""

from __future__ import annotations

from typing import Any

import anyio.to_thread
from fastapi import APIRouter, Request, Response

from graph_ops.options import PruneOptions, parse_options
from service.access import Caller, CallerDep
from service.api.answers import MODEL_ANSWERS, model_answer
from service.api.waiting import KeyHeader, PreferHeader
from service.idempotency import check_key
from service.jobs import NewJob
from service.metadata import parse_metadata
from service.multipart import FilePart, Form, TextPart
from service.preferences import parse_prefer
from service.problems import Problem
from service.records import Job
from service.services import Services, ServicesDep
from service.storage import Kind, StoredUpload, plain_filename

router = APIRouter(tags=["prune"])

_REQUEST_BODY: dict[str, Any] = {
    "required": True,
    "content": {
        "multipart/form-data": {
            "schema": {
                "type": "object",
                "properties": {
                    "model": {
                        "type": "string",
                        "format": "binary",
                        "description": "The ONNX model, or a zip of it and its data files.",
                    },
                    "bundle": {
                        "type": "string",
                        "format": "binary",
                        "description": "The calibration bundle: .npz, .safetensors, or images.",
                    },
                    "options": {"$ref": "#/components/schemas/PruneOptions"},
                    "metadata": {
                        "type": "object",
                        "additionalProperties": {"type": "string"},
                        "description": "Your own words about the job: up to 16 pairs.",
                    },
                    "model_id": {
                        "type": "string",
                        "pattern": "^[0-9a-f]{64}$",
                        "description": "Instead of `model`: id of an uploaded model.",
                    },
                    "bundle_id": {
                        "type": "string",
                        "pattern": "^[0-9a-f]{64}$",
                        "description": "Instead of `bundle`: id of an uploaded bundle.",
                    },
                },
            },
            "encoding": {
                "options": {"contentType": "application/json"},
                "metadata": {"contentType": "application/json"},
            },
        }
    },
}
_BINARY = {"schema": {"type": "string", "format": "binary"}}


@router.post(
    "/v1/prune",
    response_class=Response,
    responses=MODEL_ANSWERS,
    openapi_extra={"requestBody": _REQUEST_BODY},
)
async def prune(
    services: ServicesDep,
    caller: CallerDep,
    request: Request,
    prefer: PreferHeader = None,
    idempotency_key: KeyHeader = None,
) -> Response:
    """Prune a model and answer with the result.

    The parts may come in any order. A client that goes away leaves a job that can be found again.
    """
    preferences = parse_prefer(prefer or [])
    key = check_key(idempotency_key)
    if key is None:
        await services.jobs.require_room()
    job = await _accept(services, caller, request, key)
    return await model_answer(services, request, job, preferences)


async def _accept(services: Services, caller: Caller, request: Request, key: str | None) -> Job:
    """Receive the parts and put the job into the queue, or find the one the key stands for."""
    settings = services.settings
    text = TextPart(settings.max_options_bytes)
    model_bytes = min(settings.max_model_bytes, settings.max_upload_bytes)
    expected: dict[str, FilePart | TextPart] = {
        "model": FilePart(model_bytes, "model_too_large"),
        "bundle": FilePart(settings.max_upload_bytes),
        "options": text,
        "metadata": text,
        "model_id": text,
        "bundle_id": text,
    }
    async with services.uploads.form(request, expected) as form:
        asked = parse_options(form.texts.get("options"))
        metadata = parse_metadata(form.texts.get("metadata"))
        for kind in Kind:
            _check_given_once(form, kind)
        model = await _stored(services, caller, form, Kind.MODEL)
        bundle = await _stored(services, caller, form, Kind.BUNDLE)
        filename = form.files["model"].filename if "model" in form.files else model.filename
    new = NewJob(
        model_id=model.id,
        bundle_id=bundle.id,
        filename=plain_filename(filename, Kind.MODEL) if filename else model.filename,
        options=asked.model_dump(mode="json"),
        sent_options=asked.model_dump(mode="json", exclude_unset=True),
        metadata=metadata,
    )
    return await services.jobs.submit(caller, new, key)


def _check_given_once(form: Form, kind: Kind) -> None:
    """Either the file or the id of an earlier upload."""
    name, id_name = str(kind), f"{kind}_id"
    if name in form.files and id_name in form.texts:
        raise Problem(
            "parts_conflict", f"Send {name!r} or {id_name!r}, not both.", parts=[name, id_name]
        )
    if name not in form.files and id_name not in form.texts:
        raise Problem(
            "part_missing",
            f"The part {name!r} is missing (or {id_name!r} for one that was uploaded before).",
            part=name,
        )


async def _stored(services: Services, caller: Caller, form: Form, kind: Kind) -> StoredUpload:
    """A part as it is stored: unchecked, for the job that uses it will check it."""
    received = form.files.get(str(kind))
    if received is None:
        upload_id = form.texts[f"{kind}_id"].strip()
        return await anyio.to_thread.run_sync(services.holdings.use, caller, kind, upload_id)
    upload, _ = await anyio.to_thread.run_sync(services.holdings.add, caller, kind, received)
    return upload


OPTIONS_SCHEMA = PruneOptions.model_json_schema(ref_template="#/components/schemas/{model}")
