"""`/v1/jobs/{id}/events`: what happens to a job, as it happens (server-sent events).

The numbers of events are those of the database, so a client may go on at any server: it sends the
number of the last event it has, and gets what came after. The stream ends with the job.
"""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncIterator
from typing import Annotated

import anyio.to_thread
import sqlalchemy as sa
from fastapi import APIRouter, Header, Response
from fastapi.responses import StreamingResponse

from service.api.visible import VisibleJob
from service.jobs import Jobs
from service.records import Job, JobEvent
from service.services import ServicesDep

router = APIRouter(tags=["jobs"])

MEDIA_TYPE = "text/event-stream"

_KEEP_ALIVE_S = 15.0
_RECONNECT_MS = 1000
_HEADERS = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}

log = logging.getLogger("service.jobs")


@router.get(
    "/v1/jobs/{job_id}/events",
    response_class=Response,
    responses={
        200: {
            "description": "Events of the types `state` and `progress`, until the job is over.",
            "content": {MEDIA_TYPE: {"schema": {"type": "string"}}},
        },
        204: {"description": "The job is over, and the client has all its events."},
    },
)
async def get_job_events(
    services: ServicesDep,
    job: VisibleJob,
    last_event_id: Annotated[
        str,
        Header(pattern=r"^\d{1,9}$", description="Number of the last event that the client has."),
    ] = "0",
) -> Response:
    """What happens to a job, as it happens: server-sent events, resumable."""
    after = int(last_event_id)
    if job.state.is_final and after >= job.last_event:
        return Response(status_code=204)
    return StreamingResponse(
        _stream(services.jobs, job, after), media_type=MEDIA_TYPE, headers=_HEADERS
    )


async def _stream(jobs: Jobs, job: Job, after: int) -> AsyncIterator[bytes]:
    yield b"retry: %d\n\n" % _RECONNECT_MS
    with jobs.watcher.watch(job.id) as watch:
        sent_at = time.monotonic()
        missing: list[JobEvent] | None = None
        while True:
            try:
                if missing is None:
                    missing = await anyio.to_thread.run_sync(jobs.store.events.after, job.id, after)
                    is_gone = not missing and await jobs.find(job.id) is None
                else:
                    is_gone = False
            except sa.exc.SQLAlchemyError as error:
                # The client connects again and goes on where it was.
                log.warning("the database does not answer: %s", type(error).__name__)
                return
            if missing:
                yield b"".join(event.frame for event in missing)
                after, sent_at = missing[-1].number, time.monotonic()
            if is_gone or watch.is_over or (missing and missing[-1].is_end):
                return
            if await watch.change(max(0.0, sent_at + _KEEP_ALIVE_S - time.monotonic())):
                missing = watch.take(after)
            else:
                yield b": still here\n\n"
                missing, sent_at = [], time.monotonic()
