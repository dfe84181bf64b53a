"""`/v1/jobs`: jobs on stored models and bundles; lists, cancel, retry, delete."""

from __future__ import annotations

from typing import Annotated, Any

import anyio.to_thread
from fastapi import APIRouter, Query, Request, Response

from graph_ops.options import parse_options
from service.access import Caller, CallerDep
from service.api.models import get_upload
from service.api.schemas import CallersJobId, Forecast, JobPage, JobRequest, JobView
from service.api.visible import VisibleJob
from service.api.waiting import KeyHeader, PreferHeader, job_response, wait_for
from service.bodies import json_body, read_body
from service.idempotency import check_key
from service.jobs import NewJob
from service.metadata import check_metadata, parse_labels
from service.preferences import parse_prefer
from service.records import JobState
from service.services import Services, ServicesDep
from service.storage import Kind

router = APIRouter(tags=["jobs"])

_BODY = json_body("JobRequest")
_ACCEPTED: dict[int | str, dict[str, Any]] = {
    200: {"description": "The job, which is over or was there before.", "model": JobView},
    202: {"description": "The job is accepted; `Location` names it.", "model": JobView},
}


@router.post(
    "/v1/jobs",
    status_code=202,
    response_class=Response,
    responses={
        **_ACCEPTED,
        200: {
            "description": "The job, which is over; or with `dry_run` what it would come to.",
            "content": {
                "application/json": {
                    "schema": {
                        "anyOf": [
                            {"$ref": "#/components/schemas/JobView"},
                            {"$ref": "#/components/schemas/Forecast"},
                        ]
                    }
                }
            },
        },
    },
    openapi_extra=_BODY,
)
async def create_job(
    services: ServicesDep,
    caller: CallerDep,
    request: Request,
    prefer: PreferHeader = None,
    idempotency_key: KeyHeader = None,
    dry_run: Annotated[
        bool, Query(description="Only check the parts and estimate the result; makes no job.")
    ] = False,
) -> Response:
    """Prune a stored model on a stored bundle. Answers at once; `Prefer: wait=N` waits."""
    preferences = parse_prefer(prefer or [])
    key = check_key(idempotency_key)
    new = await _read_request(services, caller, request)
    if dry_run:
        return await _forecast(services, caller, new)
    services.storage.require_space()
    job = await services.jobs.submit(caller, new, key)
    if preferences.wait_s:
        job = await wait_for(services, request, job, preferences.wait_s)
    return job_response(job, preferences)


@router.put(
    "/v1/jobs/{job_id}",
    status_code=202,
    response_class=Response,
    responses=_ACCEPTED,
    openapi_extra=_BODY,
)
async def put_job(
    services: ServicesDep,
    caller: CallerDep,
    request: Request,
    job_id: CallersJobId,
    prefer: PreferHeader = None,
) -> Response:
    """The same under an id that you choose: sent again, it is the same job and 200."""
    preferences = parse_prefer(prefer or [])
    new = await _read_request(services, caller, request)
    services.storage.require_space()
    is_new = await services.jobs.find(job_id) is None
    job = await services.jobs.submit(caller, new, job_id=job_id)
    if preferences.wait_s:
        job = await wait_for(services, request, job, preferences.wait_s)
    return job_response(job, preferences, is_new)


@router.get("/v1/jobs")
async def list_jobs(
    services: ServicesDep,
    caller: CallerDep,
    request: Request,
    response: Response,
    limit: Annotated[int, Query(ge=1, le=200, description="Jobs on a page.")] = 50,
    cursor: Annotated[
        str | None,
        Query(
            pattern=r"^[0-9a-f]{1,15}-[A-Za-z0-9][\w.\-]{0,63}$",
            description="`next_cursor` of the last page.",
        ),
    ] = None,
    state: Annotated[JobState | None, Query(description="Only jobs in this state.")] = None,
    label: Annotated[
        list[str] | None,
        Query(
            max_length=16,
            description="Only jobs with this pair in their metadata, as `key=value`, or with this "
            "`key` at any value. Several have to be there together.",
        ),
    ] = None,
) -> JobPage:
    """Jobs, newest first."""
    before = None
    if cursor is not None:
        created, _, job_id = cursor.partition("-")
        before = (int(created, 16), job_id)
    jobs = await services.jobs.page(caller, limit + 1, before, state, parse_labels(label or []))
    page, has_more = jobs[:limit], len(jobs) > limit
    next_cursor = page[-1].cursor if has_more else None
    if next_cursor:
        url = request.url.include_query_params(cursor=next_cursor)
        response.headers["Link"] = f'<{url.path}?{url.query}>; rel="next"'
    return JobPage(items=[JobView.of(job) for job in page], next_cursor=next_cursor)


@router.get("/v1/jobs/{job_id}")
async def get_job(
    services: ServicesDep,
    request: Request,
    response: Response,
    job: VisibleJob,
    prefer: PreferHeader = None,
) -> JobView:
    """State, progress, and links to the results. `Prefer: wait=N` waits for the end."""
    preferences = parse_prefer(prefer or [])
    if preferences.wait_s and not job.state.is_final:
        job = await wait_for(services, request, job, preferences.wait_s)
        response.headers["Preference-Applied"] = f"wait={preferences.wait_s}"
    return JobView.of(job)


@router.post("/v1/jobs/{job_id}/cancel")
async def cancel_job(services: ServicesDep, job: VisibleJob) -> JobView:
    """Stop a job; answers when its processes are gone, or as `cancelling` after some seconds."""
    return JobView.of(await services.jobs.cancel(job.id))


@router.post("/v1/jobs/{job_id}/retry", status_code=202)
async def retry_job(services: ServicesDep, response: Response, job: VisibleJob) -> JobView:
    """Put a job that failed or was cancelled into the queue again; it goes on where it was."""
    job = await services.jobs.retry(job.id)
    response.headers["Location"] = job.instance
    return JobView.of(job)


@router.delete("/v1/jobs/{job_id}", status_code=204)
async def delete_job(services: ServicesDep, job: VisibleJob) -> None:
    """Stop a job if it is not over, and remove it with its results."""
    await services.jobs.delete(job.id)


async def _forecast(services: Services, caller: Caller, new: NewJob) -> Response:
    model = await get_upload(services, caller, Kind.MODEL, new.model_id)
    bundle = await get_upload(services, caller, Kind.BUNDLE, new.bundle_id)
    found = await services.catalog.forecast(model, bundle, new.options)
    forecast = Forecast(model_id=model.id, bundle_id=bundle.id, options=new.options, **found)
    return Response(forecast.model_dump_json(), media_type="application/json")


async def _read_request(services: Services, caller: Caller, request: Request) -> NewJob:
    """What a JSON body asks for.

    Raises:
        Problem: too long, not what is expected, or a model or bundle that is not there.
        OptionsError: the options are wrong.
        PreprocessingError: images that neither bundle nor options have settings for.
    """
    asked = await read_body(request, JobRequest, services.settings)
    options = parse_options(asked.options)
    metadata = check_metadata(asked.metadata)
    if asked.webhook_url is not None:
        services.check_webhook(asked.webhook_url)
    use = services.holdings.use
    model = await anyio.to_thread.run_sync(use, caller, Kind.MODEL, asked.model_id)
    bundle = await anyio.to_thread.run_sync(use, caller, Kind.BUNDLE, asked.bundle_id)
    await services.catalog.require_settings(model, bundle, options)
    return NewJob(
        model_id=model.id,
        bundle_id=bundle.id,
        filename=model.filename,
        options=options.model_dump(mode="json"),
        sent_options=options.model_dump(mode="json", exclude_unset=True),
        metadata=metadata,
        webhook_url=asked.webhook_url,
    )
