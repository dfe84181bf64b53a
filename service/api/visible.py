"""The job that a path names, where the caller may see it."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends

from service.access import CallerDep
from service.api.schemas import JobId
from service.problems import Problem
from service.records import Job
from service.services import ServicesDep


async def visible_job(services: ServicesDep, caller: CallerDep, job_id: JobId) -> Job:
    """The job of a path; one of another owner is not there.

    Raises:
        Problem: `job_not_found`.
    """
    job = await services.jobs.get(job_id)
    if not caller.may_see(job.owner):
        raise Problem("job_not_found", f"There is no job with the id {job_id[:80]!r}.")
    return job


VisibleJob = Annotated[Job, Depends(visible_job)]
