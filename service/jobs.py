"""Jobs: a queue, a bounded number of child processes, and a record on disk of each.

A job is `queued`, then `running`, and ends as `succeeded`, `failed` or `cancelled`. Its record
`job.json` is written at each step before anyone is told; results are moved into its folder
before it counts as succeeded. Jobs that a stopped server leaves unfinished end as failed with
`job_interrupted` when the next server starts.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import anyio.to_thread

from service.children import Children
from service.files import remove
from service.metrics import Metrics
from service.problems import Problem
from service.protocol import ProgressReport
from service.records import Failure, Job, JobRecords, JobState, ResultFile
from service.runner import ChildFailure
from service.storage import Kind, Storage, now

_RETRY_AFTER_S = 15

log = logging.getLogger("service.jobs")


@dataclass
class _Active:
    """A job that is not over, and who works on it."""

    job: Job
    over: asyncio.Event = field(default_factory=asyncio.Event)
    is_taken: bool = False
    """Whether a worker has it; the worker then records its end."""
    child: asyncio.Task[None] | None = None
    """The part of the work that can be cancelled at any point."""
    is_cancelled: bool = False


class Jobs:
    """All jobs, past and present. Used on one event loop."""

    def __init__(
        self, storage: Storage, children: Children, metrics: Metrics, places: int, max_queued: int
    ) -> None:
        self._storage = storage
        self._records = JobRecords(storage)
        self._children = children
        self._metrics = metrics
        self._places = places
        self._max_queued = max_queued
        self._active: dict[str, _Active] = {}
        self._queue: deque[str] = deque()
        self._arrived = asyncio.Condition()
        self._workers: list[asyncio.Task[None]] = []
        self._is_stopping = False
        metrics.watch_jobs(
            {state: partial(self._count, state) for state in (JobState.QUEUED, JobState.RUNNING)}
        )

    async def start(self) -> None:
        """End what an earlier server left unfinished, and start to work."""
        await anyio.to_thread.run_sync(self._end_interrupted)
        self._workers = [asyncio.create_task(self._work()) for _ in range(self._places)]

    async def stop(self) -> None:
        """Kill what runs; jobs that are not over end as interrupted. May be called twice."""
        self._is_stopping = True
        for active in list(self._active.values()):
            if active.child is not None:
                active.child.cancel()
        async with self._arrived:
            self._arrived.notify_all()
        await asyncio.gather(*self._workers)
        for active in list(self._active.values()):
            if not active.job.state.is_final:
                await self._end(active, JobState.FAILED, _interruption())

    def require_room(self) -> None:
        """Refuse a job that would not find a place in the queue.

        Raises:
            Problem: `queue_full`.
        """
        waiting = self._count(JobState.QUEUED)
        idle = self._places - self._count(JobState.RUNNING)
        if self._is_stopping or waiting - idle >= self._max_queued:
            raise Problem(
                "queue_full",
                f"{waiting} jobs are waiting already; try again in {_RETRY_AFTER_S} seconds.",
                headers={"Retry-After": str(_RETRY_AFTER_S)},
                limit=self._max_queued,
            )

    async def submit(
        self,
        job_id: str,
        *,
        model_id: str,
        bundle_id: str,
        filename: str,
        options: dict[str, Any],
    ) -> Job:
        """Put a job into the queue, on disk before this returns.

        Raises:
            Problem: `queue_full`.
        """
        self.require_room()
        job = Job(
            id=job_id,
            state=JobState.QUEUED,
            model_id=model_id,
            bundle_id=bundle_id,
            filename=filename,
            options=options,
            times={JobState.QUEUED: now()},
        )
        # Counted as waiting from here on, so that two requests do not take the last place.
        self._active[job_id] = _Active(job)
        try:
            await anyio.to_thread.run_sync(self._records.create, job)
        except BaseException:
            del self._active[job_id]
            raise
        async with self._arrived:
            self._queue.append(job_id)
            self._arrived.notify()
        return job

    def find(self, job_id: str) -> Job | None:
        """The job of this id, or None."""
        active = self._active.get(job_id)
        if active is not None:
            return active.job
        return self._records.load(job_id)

    def get(self, job_id: str) -> Job:
        """The job of this id.

        Raises:
            Problem: `job_not_found`.
        """
        job = self.find(job_id)
        if job is None:
            raise Problem("job_not_found", f"There is no job with the id {job_id[:80]!r}.")
        return job

    def page(self, limit: int, before: str | None, state: JobState | None) -> list[Job]:
        """Up to `limit` jobs, newest first, created before the job with the id `before`."""
        found: list[Job] = []
        for job_id in self._records.ids_newest_first(before):
            job = self.find(job_id)
            if job is not None and (state is None or job.state == state):
                found.append(job)
                if len(found) == limit:
                    break
        return found

    async def wait(self, job_id: str, timeout_s: float | None = None) -> Job:
        """The job once it is over, or as it stands after `timeout_s` seconds."""
        active = self._active.get(job_id)
        if active is None:
            return self.get(job_id)
        try:
            async with asyncio.timeout(timeout_s):
                await active.over.wait()
        except TimeoutError:
            pass
        return active.job

    async def cancel(self, job_id: str) -> Job:
        """Stop a job, and return it when its process is gone (or it was over just before).

        Raises:
            Problem: `job_not_found`; `job_not_active` when it is over.
        """
        active = self._active.get(job_id)
        if active is None or active.job.state.is_final:
            state = self.get(job_id).state
            raise Problem(
                "job_not_active", f"The job {job_id} is over ({state}).", job_id=job_id, state=state
            )
        active.is_cancelled = True
        if active.child is not None:
            active.child.cancel()
        if active.is_taken:
            await active.over.wait()
        else:
            await self._end(active, JobState.CANCELLED, _cancellation())
        return active.job

    async def delete(self, job_id: str) -> None:
        """Stop a job if it is not over, and remove it with its results.

        Raises:
            Problem: `job_not_found`.
        """
        if not self.get(job_id).state.is_final:
            await self.cancel(job_id)
        self._active.pop(job_id, None)
        await anyio.to_thread.run_sync(self._records.delete, job_id)

    def result(self, job: Job, name: str) -> tuple[Path, ResultFile]:
        """A result's file and its description.

        Raises:
            Problem: the job is not over, gave no result, or has no such result.
        """
        if not job.state.is_final:
            raise Problem(
                "job_not_finished",
                f"The job is {job.state}; its results are there when it has succeeded.",
                headers={"Retry-After": "1"},
                instance=job.instance,
                state=job.state,
            )
        problem = job.problem()
        if problem is not None:
            raise problem
        result = job.results.get(name)
        if result is None:
            raise Problem(
                "result_not_found",
                f"The job has no result {name!r}.",
                instance=job.instance,
                results=sorted(job.results),
            )
        return self._records.path(job, result), result

    def user_of(self, upload_id: str) -> str | None:
        """Id of a job that is not over and needs this model or bundle, or None."""
        return next(
            (
                active.job.id
                for active in self._active.values()
                if upload_id in (active.job.model_id, active.job.bundle_id)
                and not active.job.state.is_final
            ),
            None,
        )

    def _count(self, state: str) -> int:
        return sum(active.job.state == state for active in self._active.values())

    async def _work(self) -> None:
        """Take jobs from the queue, one after the other, until the server stops."""
        while True:
            async with self._arrived:
                await self._arrived.wait_for(lambda: bool(self._queue) or self._is_stopping)
                if self._is_stopping:
                    return
                active = self._active.get(self._queue.popleft())
            if active is not None and not active.is_cancelled:
                active.is_taken = True
                await self._run(active)

    async def _run(self, active: _Active) -> None:
        """Run one job to its end, whatever that is."""
        started = time.monotonic()
        try:
            await self._enter(active.job, JobState.RUNNING)
            workdir = await anyio.to_thread.run_sync(self._storage.new_temporary)
            try:
                active.child = asyncio.create_task(self._prune(active.job, workdir))
                if active.is_cancelled or self._is_stopping:
                    active.child.cancel()
                await asyncio.wait({active.child})
                active.child.result()
                active.job.results = await anyio.to_thread.run_sync(
                    self._records.keep_results, active.job, workdir
                )
            finally:
                await anyio.to_thread.run_sync(remove, workdir)
        except asyncio.CancelledError:
            if active.is_cancelled:
                await self._end(active, JobState.CANCELLED, _cancellation(), started)
            else:
                await self._end(active, JobState.FAILED, _interruption(), started)
        except (ChildFailure, Problem) as error:
            reason = Failure(code=error.code, detail=error.detail, members=error.members)
            await self._end(active, JobState.FAILED, reason, started)
        except Exception:
            log.exception("job %s failed unexpectedly", active.job.id)
            reason = Failure(code="job_failed", detail="The service failed; its log says why.")
            await self._end(active, JobState.FAILED, reason, started)
        else:
            await self._end(active, JobState.SUCCEEDED, None, started)

    async def _prune(self, job: Job, workdir: Path) -> None:
        def keep(progress: ProgressReport) -> None:
            job.progress = progress

        self._storage.require_space()
        model = self._storage.get_upload(Kind.MODEL, job.model_id)
        bundle = self._storage.get_upload(Kind.BUNDLE, job.bundle_id)
        await self._children.prune(workdir, model.path, bundle.path, job.options, keep)

    async def _enter(self, job: Job, state: JobState) -> None:
        job.state = state
        job.times[state] = now()
        await anyio.to_thread.run_sync(self._records.save, job)

    async def _end(
        self,
        active: _Active,
        state: JobState,
        failure: Failure | None,
        started: float | None = None,
    ) -> None:
        """Record how a job ended, then tell who waits. It is kept in memory if the disk refuses."""
        job = active.job.model_copy(deep=True)
        job.failure = failure
        job.state = state
        job.times[state] = now()
        try:
            await anyio.to_thread.run_sync(self._records.save, job)
        except OSError:
            log.exception("the end of job %s (%s) could not be recorded", job.id, state)
        else:
            self._active.pop(job.id, None)
        active.job = job
        seconds = None if started is None else time.monotonic() - started
        self._metrics.count_job(state, failure.code if failure else "", seconds)
        log.info("job %s %s %s", job.id, state, failure.code if failure else "")
        active.over.set()

    def _end_interrupted(self) -> None:
        for job_id in self._records.ids_newest_first(None):
            job = self._records.load(job_id)
            if job is None:
                if not self._records.is_accepted(job_id):
                    self._records.delete(job_id)
            elif not job.state.is_final:
                job.failure = _interruption()
                job.state = JobState.FAILED
                job.times[JobState.FAILED] = now()
                self._records.save(job)


def _interruption() -> Failure:
    return Failure(
        code="job_interrupted", detail="The server stopped before the job was over; send it again."
    )


def _cancellation() -> Failure:
    return Failure(code="job_cancelled", detail="The job was cancelled before it was over.")
