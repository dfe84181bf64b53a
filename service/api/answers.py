"""The answer to a request that wants a model: the model when it is there, or the way to it."""

from __future__ import annotations

from typing import Any

from fastapi import Request, Response

from service.api.job_results import result_response
from service.api.schemas import JobView
from service.api.waiting import job_response, wait_for
from service.preferences import Preferences
from service.problems import Problem
from service.records import Job
from service.services import Services

MODEL_ANSWERS: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The smaller model. `Link` names the job and its report.",
        "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
    },
    202: {"description": "The job goes on; `Location` names it.", "model": JobView},
}
"""What `model_answer` gives, for the OpenAPI document."""


async def model_answer(
    services: Services, request: Request, job: Job, preferences: Preferences
) -> Response:
    """The model of a job that is waited for; 202 where the client's patience ends first.

    Raises:
        Problem: the job failed.
    """
    if preferences.patience_s != 0:
        job = await wait_for(services, request, job, preferences.patience_s)
    headers = {"Link": _links(job)}
    if job.state.is_final:
        if preferences.applied:
            headers["Preference-Applied"] = preferences.applied
        headers["Content-Location"] = f"{job.instance}/model"
        try:
            return await result_response(request, services, job, "model", headers)
        except Problem as problem:
            problem.headers.update({**headers, "Content-Location": job.instance})
            raise
    response = job_response(job, preferences)
    response.headers.update(headers)
    return response


def _links(job: Job) -> str:
    links = [f'<{job.instance}>; rel="related"; title="job"']
    if "report" in job.results:
        links.append(f'<{job.instance}/report>; rel="describedby"; type="application/json"')
    return ", ".join(links)
