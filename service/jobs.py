"""Jobs as the API sees them: sent, found, waited for, cancelled, retried, deleted.

A job is a row in the database (`store.py`) and a place in the engine's queue (`engine.py`), both
written in one transaction before a client is told. Workers, in other processes, do the work
(`attempts.py`) and write its end; nothing of a job is kept in this process.
"""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio.to_thread
import sqlalchemy as sa

from service.access import Caller
from service.engine import JobQueue
from service.idempotency import digest_of, fingerprint_of
from service.problems import Problem
from service.quotas import Quotas
from service.records import Job, JobKind, JobState, ResultFile, new_job_id
from service.results import JobFiles
from service.storage import now
from service.store import JobStore
from service.tracing import TRACEPARENT, Tracing
from service.watcher import Watcher
from service.workers import Workers

_RETRY_AFTER_S = 15
_CANCEL_WAIT_S = 10.0


@dataclass(frozen=True)
class NewJob:
    """What a client asks for.

    Attributes:
        model_id: sha256 of a stored model.
        bundle_id: sha256 of a stored bundle.
        filename: File name of the model.
        options: All options of the run, defaults included.
        sent_options: Options as they were sent: defaults may change with the service's version.
        metadata: The user's own words.
        webhook_url: Who is to be told of its end.
        kind: What kind of work it is.
        task: What that needs besides.
    """

    model_id: str
    bundle_id: str
    filename: str
    options: dict[str, Any]
    sent_options: dict[str, Any]
    metadata: dict[str, str]
    webhook_url: str | None = None
    kind: JobKind = JobKind.PRUNE
    task: dict[str, Any] | None = None

    @property
    def fingerprint(self) -> str:
        """Digest of what is asked for."""
        more = [] if self.webhook_url is None else [self.webhook_url]
        if self.kind is not JobKind.PRUNE or self.task is not None:
            more.append(json.dumps([self.kind, self.task], sort_keys=True))
        return fingerprint_of(
            self.model_id, self.bundle_id, self.sent_options, self.metadata, *more
        )


class Jobs:
    """All jobs, past and present. Used on one event loop."""

    def __init__(
        self,
        store: JobStore,
        queue: JobQueue,
        workers: Workers,
        files: JobFiles,
        max_queued: int,
        quotas: Quotas,
        tracing: Tracing,
    ) -> None:
        self._tracing = tracing
        self._quotas = quotas
        self.store = store
        self.watcher = Watcher(store.events)
        self._queue = queue
        self._workers = workers
        self._files = files
        self._max_queued = max_queued

    def stop_waiting(self) -> None:
        """Answer all requests that wait for a job: the server is stopping."""
        self.watcher.stop()

    async def require_room(self) -> None:
        """Refuse a job that would not find a place in the queue.

        Raises:
            Problem: `queue_full`.
        """
        await anyio.to_thread.run_sync(self._check_room)

    async def submit(
        self, caller: Caller, new: NewJob, key: str | None = None, job_id: str | None = None
    ) -> Job:
        """Accept a job, in the database before this returns; or find the one it repeats.

        Args:
            caller: Who asks for it.
            new: What is asked for.
            key: The request's `Idempotency-Key`.
            job_id: The id that the client chose; None for a new one.

        Raises:
            Problem: `queue_full`, `too_many_jobs`, `quota_exceeded`, `idempotency_key_reused`,
                `job_exists`.
        """
        return await anyio.to_thread.run_sync(self._submit, caller, new, key, job_id)

    async def find(self, job_id: str) -> Job | None:
        """The job of this id, or None."""
        return await anyio.to_thread.run_sync(self.store.find, job_id)

    async def get(self, job_id: str) -> Job:
        """The job of this id.

        Raises:
            Problem: `job_not_found`.
        """
        return _require(await self.find(job_id), job_id)

    async def page(
        self,
        caller: Caller,
        limit: int,
        before: tuple[int, str] | None,
        state: JobState | None,
        labels: Sequence[tuple[str, str | None]],
    ) -> list[Job]:
        """Up to `limit` jobs that the caller sees, newest first: see `JobStore.page`."""
        owner = None if caller.is_admin else caller.owner
        return await anyio.to_thread.run_sync(self.store.page, limit, before, state, labels, owner)

    async def wait(self, job_id: str, timeout_s: float | None = None) -> Job:
        """The job once it is over, or as it stands after `timeout_s` seconds.

        Raises:
            Problem: `job_not_found`; `server_stopping`.
        """
        end = None if timeout_s is None else time.monotonic() + timeout_s
        with self.watcher.watch(job_id) as watch:
            while True:
                job = await self.get(job_id)
                left = None if end is None else end - time.monotonic()
                if job.state.is_final or (left is not None and left <= 0):
                    return job
                if watch.is_over:
                    raise Problem(
                        "server_stopping",
                        f"The server is stopping; the job {job_id} goes on when it is back.",
                        headers={"Retry-After": "5", "Location": job.instance},
                        instance=job.instance,
                        job_id=job_id,
                    )
                await watch.change(left)

    async def cancel(self, job_id: str) -> Job:
        """Stop a job, and return it when its processes are gone, or after some seconds.

        Raises:
            Problem: `job_not_found`; `job_not_active` when it is over.
        """
        job = await self.get(job_id)
        if job.state.is_final:
            raise Problem(
                "job_not_active",
                f"The job {job_id} is over ({job.state}).",
                instance=job.instance,
                job_id=job_id,
                state=job.state,
            )
        asked = await anyio.to_thread.run_sync(self.store.request_cancel, job_id)
        job = _require(asked, job_id)
        return job if job.state.is_final else await self.wait(job_id, _CANCEL_WAIT_S)

    async def retry(self, job_id: str) -> Job:
        """Put a job that failed or was cancelled into the queue again.

        Raises:
            Problem: `job_not_found`; `job_not_retryable`.
        """
        workflow_id = _new_workflow_id(job_id)
        found = await anyio.to_thread.run_sync(
            self.store.retry, job_id, workflow_id, self._queue.put
        )
        job = _require(found, job_id)
        if job.workflow_id != workflow_id:
            raise Problem(
                "job_not_retryable",
                f"The job {job_id} is {job.state}; only failed and cancelled ones are retried.",
                instance=job.instance,
                job_id=job_id,
                state=job.state,
            )
        return job

    async def delete(self, job_id: str) -> None:
        """Stop a job if it is not over, and remove it with its results.

        Raises:
            Problem: `job_not_found`; `job_not_stopped` when its worker does not answer.
        """
        job = await self.get(job_id)
        if not job.state.is_final:
            await anyio.to_thread.run_sync(self.store.request_cancel, job_id)
            job = await self.wait(job_id, _CANCEL_WAIT_S)
        if not await anyio.to_thread.run_sync(self.store.delete, job_id):
            raise Problem(
                "job_not_stopped",
                f"The job {job_id} is {job.state}: its worker has not answered yet.",
                headers={"Retry-After": "5"},
                instance=job.instance,
                job_id=job_id,
            )
        await anyio.to_thread.run_sync(self._files.delete, job_id)

    async def result(self, job: Job, name: str) -> tuple[Path, ResultFile]:
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
        return await anyio.to_thread.run_sync(self._files.path, job, result), result

    def _submit(self, caller: Caller, new: NewJob, key: str | None, job_id: str | None) -> Job:
        name = job_id or new_job_id()
        attributes = {"job.id": name, "job.kind": str(new.kind)}
        with self._tracing.span("submit", TRACEPARENT.get(), **attributes) as span:
            return self._accept(caller, new, key, name, job_id is not None, span.traceparent)

    def _accept(
        self,
        caller: Caller,
        new: NewJob,
        key: str | None,
        name: str,
        is_named: bool,
        traceparent: str | None,
    ) -> Job:
        job = Job(
            id=name,
            created_us=time.time_ns() // 1000,
            state=JobState.QUEUED,
            workflow_id=_new_workflow_id(name),
            model_id=new.model_id,
            bundle_id=new.bundle_id,
            owner=caller.owner,
            filename=new.filename,
            options=new.options,
            metadata=new.metadata,
            webhook_url=new.webhook_url,
            traceparent=traceparent,
            kind=new.kind,
            task=new.task,
            fingerprint=new.fingerprint,
            times={JobState.QUEUED: now()},
        )
        digest = None if key is None else digest_of(key, caller.owner)

        def check(connection: sa.Connection, counts: Mapping[str, int]) -> None:
            self._refuse(counts, self._workers.slots_seen(connection))
            self._quotas.check(connection, caller.owner, 0)
            if caller.max_jobs is not None:
                _refuse_more(self.store.unfinished_of(connection, caller.owner), caller.max_jobs)

        accepted = self.store.add(job, digest, self._queue.put, check)
        if accepted.owner != job.owner:
            raise Problem("job_exists", f"The id {name} is taken.")
        if accepted.fingerprint != job.fingerprint:
            raise _conflict(accepted, is_of_key=key is not None and not is_named)
        return accepted

    def _check_room(self) -> None:
        self._refuse(self.store.statistics.counts(), self._workers.slots())

    def _refuse(self, counts: Mapping[str, int], slots: int) -> None:
        waiting = counts[JobState.QUEUED]
        idle = slots - counts[JobState.RUNNING] - counts[JobState.CANCELLING]
        if waiting - idle >= self._max_queued:
            raise Problem(
                "queue_full",
                f"{waiting} jobs are waiting already; try again in {_RETRY_AFTER_S} seconds.",
                headers={"Retry-After": str(_RETRY_AFTER_S)},
                limit=self._max_queued,
            )


def _refuse_more(unfinished: int, limit: int) -> None:
    if unfinished >= limit:
        raise Problem(
            "too_many_jobs",
            f"{unfinished} jobs of this key's owner are not over yet; {limit} may be.",
            headers={"Retry-After": str(_RETRY_AFTER_S)},
            limit=limit,
        )


def _require(job: Job | None, job_id: str) -> Job:
    if job is None:
        raise Problem("job_not_found", f"There is no job with the id {job_id[:80]!r}.")
    return job


def _conflict(existing: Job, is_of_key: bool) -> Problem:
    if is_of_key:
        return Problem(
            "idempotency_key_reused",
            "This Idempotency-Key was used with another model, bundle, options or metadata.",
            job_id=existing.id,
        )
    return Problem(
        "job_exists",
        f"The job {existing.id} exists with another model, bundle, options or metadata.",
        instance=existing.instance,
        job_id=existing.id,
    )


def _new_workflow_id(job_id: str) -> str:
    return f"{job_id}~{secrets.token_hex(8)}"
