"""`POST /v1/prune`: a model and a bundle in, a smaller model out, in one request."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

import anyio.to_thread
from fastapi import APIRouter, Header, Request, Response

from graph_ops.options import PruneOptions, parse_options
from service.api.jobs import result_response
from service.api.schemas import JobView
from service.idempotency import check_key, fingerprint_of
from service.multipart import FilePart, Form, TextPart
from service.preferences import parse_prefer
from service.problems import Problem
from service.records import Job, new_job_id
from service.services import Services, ServicesDep
from service.storage import Kind, StoredUpload

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
                        "description": "The calibration bundle: .npz or .safetensors.",
                    },
                    "options": {"$ref": "#/components/schemas/PruneOptions"},
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
            "encoding": {"options": {"contentType": "application/json"}},
        }
    },
}
_BINARY = {"schema": {"type": "string", "format": "binary"}}


@router.post(
    "/v1/prune",
    response_class=Response,
    responses={
        200: {
            "description": "The pruned model.",
            "content": {"application/octet-stream": _BINARY},
        },
        202: {
            "description": "The job is accepted and goes on; `Location` names it.",
            "model": JobView,
        },
    },
    openapi_extra={"requestBody": _REQUEST_BODY},
)
async def prune(
    services: ServicesDep,
    request: Request,
    prefer: Annotated[
        list[str] | None,
        Header(description="`respond-async` for 202 at once, `wait=N` to wait N seconds first."),
    ] = None,
    idempotency_key: Annotated[
        str | None,
        Header(description="The same key with the same content is the same job, never a second."),
    ] = None,
) -> Response:
    """Prune a model and answer with the result.

    The parts may come in any order. A client that goes away leaves a job that can be found again.
    """
    preferences = parse_prefer(prefer or [])
    key = check_key(idempotency_key)
    if key is None:
        services.jobs.require_room()
    job = await _accept(services, request, key)
    if preferences.patience_s != 0:
        job = await _wait(services, request, job, preferences.patience_s)
    headers = {"Link": _links(job)}
    if preferences.applied:
        headers["Preference-Applied"] = preferences.applied
    if job.state.is_final:
        headers["Content-Location"] = f"{job.instance}/model"
        try:
            return result_response(request, services, job, "model", headers)
        except Problem as problem:
            problem.headers.update({**headers, "Content-Location": job.instance})
            raise
    headers["Location"] = headers["Content-Location"] = job.instance
    headers["Retry-After"] = "1"
    return Response(
        JobView.of(job).model_dump_json(),
        status_code=202,
        headers=headers,
        media_type="application/json",
    )


async def _accept(services: Services, request: Request, key: str | None) -> Job:
    """Receive the parts and put the job into the queue, or find the one the key stands for."""
    settings = services.settings
    text = TextPart(settings.max_options_bytes)
    model_bytes = min(settings.max_model_bytes, settings.max_upload_bytes)
    expected: dict[str, FilePart | TextPart] = {
        "model": FilePart(model_bytes, "model_too_large"),
        "bundle": FilePart(settings.max_upload_bytes),
        "options": text,
        "model_id": text,
        "bundle_id": text,
    }
    async with services.uploads.form(request, expected) as form:
        asked = parse_options(form.texts.get("options"))
        options = asked.model_dump(mode="json")
        for kind in Kind:
            _check_given_once(form, kind)
        model = await _stored(services, form, Kind.MODEL)
        bundle = await _stored(services, form, Kind.BUNDLE)
        filename = form.files["model"].filename if "model" in form.files else model.filename
    if key is None:
        return await _submit(services, new_job_id(), model, bundle, filename, options)
    # Options as they were sent: defaults may change with the version of the service.
    sent = asked.model_dump(mode="json", exclude_unset=True)
    fingerprint = fingerprint_of(model.id, bundle.id, sent)
    async with services.keys.hold(key):
        known = services.keys.job_of(key, fingerprint)
        job = services.jobs.find(known) if known else None
        # A server that stopped is no answer to the client's request: run it again.
        if job is not None and not (job.failure and job.failure.code == "job_interrupted"):
            return job
        job_id = new_job_id()
        services.jobs.require_room()
        await anyio.to_thread.run_sync(services.keys.remember, key, fingerprint, job_id)
        try:
            return await _submit(services, job_id, model, bundle, filename, options)
        except BaseException:
            services.keys.forget(key)
            raise


async def _submit(
    services: Services,
    job_id: str,
    model: StoredUpload,
    bundle: StoredUpload,
    filename: str,
    options: dict[str, Any],
) -> Job:
    return await services.jobs.submit(
        job_id,
        model_id=model.id,
        bundle_id=bundle.id,
        filename=filename or model.filename,
        options=options,
    )


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


async def _stored(services: Services, form: Form, kind: Kind) -> StoredUpload:
    received = form.files.get(str(kind))
    if received is None:
        return services.storage.get_upload(kind, form.texts[f"{kind}_id"].strip())
    return await anyio.to_thread.run_sync(services.catalog.store, kind, received)


async def _wait(services: Services, request: Request, job: Job, patience_s: float | None) -> Job:
    """The job when it is over, the client's patience is, or the client has gone."""
    waiting = asyncio.create_task(services.jobs.wait(job.id, patience_s))
    gone = asyncio.create_task(_disconnected(request))
    try:
        await asyncio.wait({waiting, gone}, return_when=asyncio.FIRST_COMPLETED)
        return waiting.result() if waiting.done() else job
    finally:
        for task in (waiting, gone):
            task.cancel()
        await asyncio.gather(waiting, gone, return_exceptions=True)


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _links(job: Job) -> str:
    links = [f'<{job.instance}>; rel="related"; title="job"']
    if "report" in job.results:
        links.append(f'<{job.instance}/report>; rel="describedby"; type="application/json"')
    return ", ".join(links)


OPTIONS_SCHEMA = PruneOptions.model_json_schema(ref_template="#/components/schemas/{model}")
