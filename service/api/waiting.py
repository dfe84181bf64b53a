"""Requests that wait for a job, and the answers that lead to one."""

from __future__ import annotations

import asyncio
from typing import Annotated

from fastapi import Header, Request, Response

from service.api.schemas import JobView
from service.preferences import Preferences
from service.records import Job
from service.services import Services

PreferHeader = Annotated[
    list[str] | None,
    Header(description="`respond-async` for 202 at once, `wait=N` to wait N seconds first."),
]
KeyHeader = Annotated[
    str | None,
    Header(description="The same key with the same content is the same job, never a second."),
]


async def wait_for(services: Services, request: Request, job: Job, patience_s: float | None) -> Job:
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


def job_response(job: Job, preferences: Preferences, is_new: bool = True) -> Response:
    """A job as an answer: 202 with its place while it is not over, else 200."""
    headers = {"Location": job.instance, "Content-Location": job.instance}
    if preferences.applied:
        headers["Preference-Applied"] = preferences.applied
    if not job.state.is_final:
        headers["Retry-After"] = "1"
    return Response(
        JobView.of(job).model_dump_json(),
        status_code=202 if is_new and not job.state.is_final else 200,
        headers=headers,
        media_type="application/json",
    )


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
