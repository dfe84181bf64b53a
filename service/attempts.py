"""A worker's way with one job: attempts in children until it ends, one way or another.

Work is done at least once and counts once. The engine may hand out a job again after a crash;
`JobStore.begin` then gives a new ticket, and the checkpoint in the job's folder lets the child go
on from the last round. Results are moved to their place before the job is said to have succeeded.

A child that dies of a signal costs one attempt. A child that says what is wrong ends the job: the
same input would end the same way.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import sqlalchemy as sa

from service.children import Children, PhaseTrace, WorkFiles
from service.files import remove
from service.logs import JOB_ID
from service.objects import StorageUnavailable
from service.problems import Problem
from service.protocol import ProgressReport
from service.records import (
    Failure,
    Job,
    JobKind,
    JobProgress,
    JobState,
    ResultFile,
    cancellation,
)
from service.results import JobFiles
from service.runner import ChildFailure
from service.sessions import SessionStore
from service.shards.desk import ShardDesk
from service.storage import Kind, Storage, StoredUpload
from service.store import Fenced, JobStore, Ticket
from service.tracing import Span, Tracing, Value

LOOK_S = 0.2
"""Time between looks at whether a job is to be cancelled."""

_REPORT_S = 0.5
_DATABASE_RETRY_S = 0.5
_TRY_AGAIN_S = 2.0
_SPACE_S = 1.0

_AWAY = (sa.exc.SQLAlchemyError, StorageUnavailable)
"""What passes: the job waits for it."""

log = logging.getLogger("service.worker")

Result = TypeVar("Result")


class Attempts:
    """Runs jobs; used on the engine's event loop."""

    def __init__(
        self,
        store: JobStore,
        storage: Storage,
        files: JobFiles,
        children: Children,
        sessions: SessionStore,
        desk: ShardDesk,
        tracing: Tracing,
        max_attempts: int,
    ) -> None:
        self._tracing = tracing
        self._sessions = sessions
        self._desk = desk
        self._store = store
        self._storage = storage
        self._files = files
        self._children = children
        self._max_attempts = max_attempts
        self._running: set[asyncio.Task[None]] = set()
        self._is_stopping = False
        self.loop: asyncio.AbstractEventLoop | None = None
        """The engine's loop, once it has run something."""

    async def run(self, job_id: str, workflow_id: str) -> None:
        """Work on a job until it is over, for whatever reason.

        Does not return when the worker is stopping: the engine then has no end to record, and
        the job's next worker goes on.
        """
        self.loop = asyncio.get_running_loop()
        JOB_ID.set(job_id)
        while not self._is_stopping:
            try:
                if await self._try(job_id, workflow_id):
                    return
            except Exception:
                # The engine would take an exception for the job's end.
                log.exception("job %s could not be worked on", job_id)
                await asyncio.sleep(_TRY_AGAIN_S)
        await asyncio.Event().wait()

    async def _try(self, job_id: str, workflow_id: str) -> bool:
        """One attempt; whether there is nothing left to do here."""
        await self._desk.until_alone(job_id)
        rounds = await self._persist(self._files.rounds, job_id)
        begun = await self._persist(
            self._store.begin, job_id, workflow_id, rounds, self._max_attempts
        )
        if not isinstance(begun, Ticket):
            if begun is not None:
                await self._persist(self._desk.close, begun.id)
                await self._persist(self._files.tidy, begun)
            return True
        log.info("job %s attempt %d after %d rounds", job_id, begun.attempt, rounds)
        attempt = asyncio.create_task(self._traced_attempt(begun))
        self._running.add(attempt)
        if self._is_stopping:
            attempt.cancel()
        try:
            await asyncio.wait({attempt})
            attempt.result()
        except Fenced:
            log.warning("job %s attempt %d is fenced off", job_id, begun.attempt)
            return True
        except asyncio.CancelledError:
            await self._persist(self._store.give_up, begun)
        finally:
            self._running.discard(attempt)
        return False

    async def stop(self) -> None:
        """Kill the children; returns when they are gone."""
        self._is_stopping = True
        attempts = list(self._running)
        for attempt in attempts:
            attempt.cancel()
        await asyncio.gather(*attempts, return_exceptions=True)

    async def _traced_attempt(self, ticket: Ticket) -> None:
        job = ticket.job
        if job.traceparent is None:
            await self._attempt(ticket, Span())
            return
        if ticket.attempt == 1:
            sent_s = job.created_us / 1e6
            self._tracing.record("queue", job.traceparent, sent_s, time.time())
        attributes: dict[str, Value] = {
            "job.id": job.id,
            "job.attempt": ticket.attempt,
            "job.rounds": job.rounds,
        }
        with self._tracing.span("attempt", job.traceparent, **attributes) as span:
            await self._attempt(ticket, span)

    async def _attempt(self, ticket: Ticket, span: Span) -> None:
        """One child, and what its end means for the job.

        Raises:
            Fenced: another attempt has the job.
            CancelledError: the worker is stopping.
        """
        job = ticket.job
        watch = _Watch()
        workdir = await asyncio.to_thread(self._storage.new_temporary)
        try:
            child = asyncio.create_task(self._work(ticket, workdir, watch, span))
            try:
                is_cancelled = await self._follow(ticket, child, watch)
            finally:
                child.cancel()
                await asyncio.wait({child})
            if is_cancelled and (child.cancelled() or child.exception() is not None):
                await self._desk.until_alone(job.id)
                await self._end(ticket, JobState.CANCELLED, cancellation(), watch)
                return
            child.result()
            results = await asyncio.to_thread(self._files.keep, job.id, ticket.attempt, workdir)
            await self._persist(self._files.publish, job.id, results)
            await self._persist(self._add_to_session, job, results)
            done = await self._persist(
                self._store.finish,
                ticket,
                JobState.SUCCEEDED,
                None,
                results,
                watch.progress,
                watch.phase_seconds(),
            )
            await self._persist(self._desk.close, job.id)
            await self._persist(self._files.tidy, done)
            log.info("job %s succeeded", job.id)
        except (ChildFailure, Problem) as error:
            failure = Failure(code=error.code, detail=error.detail, members=error.members)
            if _is_repeatable(failure):
                await self._persist(self._store.note_failure, ticket, failure)
            else:
                await self._end(ticket, JobState.FAILED, failure, watch)
        except (Fenced, asyncio.CancelledError):
            raise
        except Exception:
            log.exception("job %s failed unexpectedly", job.id)
            failure = Failure(code="job_failed", detail="The service failed; its log says why.")
            await self._end(ticket, JobState.FAILED, failure, watch)
        finally:
            await asyncio.shield(asyncio.to_thread(remove, workdir))

    async def _end(self, ticket: Ticket, state: JobState, failure: Failure, watch: _Watch) -> None:
        await self._persist(self._store.finish, ticket, state, failure, None, watch.progress)
        await self._persist(self._desk.close, ticket.job.id)
        log.info("job %s %s %s", ticket.job.id, state, failure.code)

    async def _work(self, ticket: Ticket, workdir: Path, watch: _Watch, span: Span) -> None:
        job = ticket.job
        await asyncio.to_thread(self._files.open, job.id)
        await self._wait_for_space()
        model = await self._persist(self._upload, Kind.MODEL, job.model_id)
        bundle = None
        if job.bundle_id:
            bundle = await self._persist(self._upload, Kind.BUNDLE, job.bundle_id)
        files = WorkFiles(
            model.path,
            None if bundle is None else bundle.path,
            self._files.checkpoint(job.id),
            await self._persist(self._unpack, job, workdir),
        )
        work = self._children.work(workdir, job, files, watch, PhaseTrace(self._tracing, span))
        if self._children.shards_of(job) == 1:
            await work
            return
        child = asyncio.create_task(work)
        sharing = asyncio.create_task(self._desk.serve(ticket, workdir))
        try:
            await asyncio.wait({child, sharing}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (child, sharing):
                if not task.done():
                    task.cancel()
            await asyncio.wait({child, sharing})
        if not sharing.cancelled():
            sharing.result()
        child.result()

    def _unpack(self, job: Job, workdir: Path) -> list[Path]:
        """Score states that a job goes by, as files."""
        task = job.task or {}
        if "session" not in task:
            return []
        return self._sessions.unpack(task["session"], task["pieces"], workdir)

    def _add_to_session(self, job: Job, results: dict[str, ResultFile]) -> None:
        """Give a session the scores that were taken for it; may be repeated."""
        if job.kind is JobKind.SCORE and job.task is not None:
            state = self._files.path(job, results["scores"]).read_bytes()
            self._sessions.add_piece(job.task["session"], job.id, "job", state)

    async def _wait_for_space(self) -> None:
        """Begin only where there is room: an accepted job waits for it."""
        is_told = False
        while True:
            try:
                self._storage.require_space()
                return
            except Problem:
                if not is_told:
                    log.warning("the job waits: the disk is almost full")
                is_told = True
                await asyncio.sleep(_SPACE_S)

    def _upload(self, kind: Kind, upload_id: str) -> StoredUpload:
        return self._storage.localise(self._storage.get_upload(kind, upload_id))

    async def _follow(self, ticket: Ticket, child: asyncio.Task[None], watch: _Watch) -> bool:
        """Wait for a child's end, or for the wish to end it; whether that was the wish.

        Raises:
            Fenced: another attempt has the job.
        """
        job_id, saved = ticket.job.id, ticket.job.rounds
        while True:
            done, _ = await asyncio.wait({child}, timeout=LOOK_S)
            if done:
                return False
            try:
                saved = await asyncio.to_thread(self._files.save_checkpoint, job_id, saved)
                state = await asyncio.to_thread(self._store.look, ticket)
                if state is JobState.CANCELLING:
                    return True
                if watch.is_due():
                    await asyncio.to_thread(self._store.report, ticket, watch.take())
            except _AWAY as error:
                log.warning("waiting for database or storage: %s", type(error).__name__)
                await asyncio.sleep(_DATABASE_RETRY_S)

    async def _persist(self, write: Callable[..., Result], *arguments: Any) -> Result:
        """Write to the database or the storage, as often as it takes."""
        while True:
            try:
                return await asyncio.to_thread(write, *arguments)
            except _AWAY as error:
                log.warning(
                    "%s waits for database or storage: %s", write.__name__, type(error).__name__
                )
                await asyncio.sleep(_DATABASE_RETRY_S)


def _is_repeatable(failure: Failure) -> bool:
    """Whether the process died, for whatever reason, without a word about its input."""
    if failure.code == "job_out_of_memory":
        return "signal" in failure.members
    return failure.code == "job_crashed"


class _Watch:
    """The newest progress of a child, and when it was last written down."""

    def __init__(self) -> None:
        self.progress: JobProgress | None = None
        self._phase_seconds: dict[str, float] = {}
        self._phase_at = time.monotonic()
        self._began_at = self._written_at = 0.0
        self._is_new = False

    def phase_seconds(self) -> dict[str, float]:
        """Seconds in each phase that was reported, up to now; a new phase ends the last one."""
        self._count_phase(time.monotonic())
        return dict(self._phase_seconds)

    def _count_phase(self, at: float) -> None:
        if self.progress is not None:
            phase = self.progress.phase
            seconds = self._phase_seconds.get(phase, 0.0) + at - self._phase_at
            self._phase_seconds[phase] = seconds
        self._phase_at = at

    def __call__(self, report: ProgressReport) -> None:
        """Take a child's report."""
        at = time.monotonic()
        last = self.progress
        if last is None or last.phase != report.phase:
            self._count_phase(at)
        # Scoring starts again in each round: the message names it.
        part = (report.phase, report.message)
        if last is None or (last.phase, last.message) != part or report.done < last.done:
            self._began_at = at
        eta_s = None
        left = report.total - report.done
        if left <= 0:
            eta_s = 0.0
        elif report.done > 0 and at > self._began_at:
            eta_s = round((at - self._began_at) * left / report.done, 1)
        self.progress = JobProgress(
            phase=report.phase,
            done=report.done,
            total=report.total,
            message=report.message,
            eta_s=eta_s,
        )
        self._is_new = True

    def is_due(self) -> bool:
        """Whether there is something to write, and the last time is long enough ago."""
        return self._is_new and time.monotonic() - self._written_at >= _REPORT_S

    def take(self) -> JobProgress:
        """What to write now."""
        assert self.progress is not None
        self._written_at, self._is_new = time.monotonic(), False
        return self.progress
