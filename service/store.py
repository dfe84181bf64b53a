"""Jobs in the database: every change of a job is one transaction here.

A change of state appends an event in the same transaction, so that whoever reads the events sees
every state in order. Changes made for an attempt name it (`Ticket`); when another attempt has
begun meanwhile, or the job has been deleted, nothing is changed and `Fenced` is raised.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from service import webhooks
from service.database import EVENTS, JOBS, KEYS, LABELS, Database
from service.event_log import EventLog
from service.fairness import next_turn
from service.job_queries import job_of, metadata_rows
from service.job_reader import JobReader
from service.job_statistics import JobStatistics, unfinished_counts
from service.records import (
    Failure,
    Job,
    JobProgress,
    JobState,
    ResultFile,
    cancellation,
    exhaustion,
    expiry,
)
from service.storage import now

Enqueue = Callable[[sa.Connection, Job], None]


class Fenced(Exception):  # noqa: N818 - an outcome, not a bug
    """The attempt is no longer the one that may write."""


@dataclass(frozen=True)
class Ticket:
    """The right to write a job's progress and end."""

    job: Job
    attempt: int


class JobStore(JobReader):
    """What changes jobs; methods block on the database.

    Args:
        database: Where jobs are.
        retention_s: Seconds that a job is kept after its end; 0 for ever.
    """

    def __init__(self, database: Database, retention_s: float) -> None:
        super().__init__(database)
        self._retention_s = retention_s
        self.events = EventLog(database)
        self.statistics = JobStatistics(database)

    # What clients do ---------------------------------------------------------------------------

    def add(
        self,
        job: Job,
        key: str | None,
        enqueue: Enqueue,
        check: Callable[[sa.Connection, Mapping[str, int]], None],
    ) -> Job:
        """Accept a job, with its place in the queue; or return the one there is already.

        Args:
            job: In the state `queued`.
            key: Digest of the `Idempotency-Key` that will stand for it.
            enqueue: Puts it into the engine's queue, in the transaction it is given.
            check: Called with the counts of unfinished jobs before a new one is added; raises
                to refuse it.

        Returns:
            `job`, or the job of the same id or key. Whether that one was asked for in the same
            words is for the caller to compare.
        """
        try:
            return self._add(job, key, enqueue, check)
        except sa.exc.IntegrityError:  # another one with this key or id was faster
            return self._add(job, key, enqueue, check)

    def _add(
        self,
        job: Job,
        key: str | None,
        enqueue: Enqueue,
        check: Callable[[sa.Connection, Mapping[str, int]], None],
    ) -> Job:
        with self._database.write() as connection:
            known = None
            if key is not None:
                query = sa.select(KEYS.c.job_id).where(KEYS.c.digest == key)
                known = connection.execute(query).scalar()
            existing = self._find(connection, known or job.id)
            if existing is not None:
                return existing
            check(connection, unfinished_counts(connection))
            job.turn = next_turn(connection, job.owner)
            values = job.model_dump(mode="json")
            values |= {"stalled": 0, "last_event": 0, "last_failure": None, "started_at": None}
            connection.execute(JOBS.insert().values(**values))
            if job.metadata:
                connection.execute(LABELS.insert(), metadata_rows(job))
            if key is not None:
                connection.execute(
                    KEYS.insert().values(digest=key, fingerprint=job.fingerprint, job_id=job.id)
                )
            self.events.append_state(connection, job)
            enqueue(connection, job)
            return job

    def request_cancel(self, job_id: str) -> Job | None:
        """Ask for a job's end: at once where it has not begun; the job, or None."""
        with self._database.write() as connection:
            job = self._find(connection, job_id, lock=True)
            if job is None or job.state.is_final:
                return job
            if job.state is JobState.QUEUED and job.attempts == 0:
                return self._end(connection, job, JobState.CANCELLED, cancellation())
            if job.state is not JobState.CANCELLING:
                self._enter(connection, job, JobState.CANCELLING)
            return job

    def retry(self, job_id: str, workflow_id: str, enqueue: Enqueue) -> Job | None:
        """Put a job that gave no result into the queue again; the job, or None.

        One that succeeded or is not over stays as it is.
        """
        with self._database.write() as connection:
            job = self._find(connection, job_id, lock=True)
            if job is None or job.state not in (JobState.FAILED, JobState.CANCELLED):
                return job
            job.workflow_id, job.failure, job.progress, job.times = workflow_id, None, None, {}
            job.turn = next_turn(connection, job.owner)
            self._enter(
                connection,
                job,
                JobState.QUEUED,
                workflow_id=workflow_id,
                turn=job.turn,
                failure=None,
                progress=None,
                last_failure=None,
                stalled=0,
                attempts=0,
                started_at=None,
                expires_at=None,
            )
            job.attempts, job.expires_at = 0, None
            enqueue(connection, job)
            return job

    def delete(self, job_id: str) -> bool:
        """Forget a job that is over, with its events, labels and keys; whether it is gone."""
        with self._database.write() as connection:
            job = self._find(connection, job_id, lock=True)
            if job is None or not job.state.is_final:
                return job is None
            connection.execute(JOBS.delete().where(JOBS.c.id == job_id))
            for table in (EVENTS, LABELS, KEYS):
                connection.execute(table.delete().where(table.c.job_id == job_id))
            return True

    # What workers do ---------------------------------------------------------------------------

    def begin(
        self, job_id: str, workflow_id: str, rounds: int, max_attempts: int
    ) -> Ticket | Job | None:
        """Begin an attempt.

        Args:
            job_id: The job.
            workflow_id: The place in the engine that it was taken from.
            rounds: Rounds that its checkpoint has.
            max_attempts: Attempts it gets without finishing a round.

        Returns:
            A ticket; or the job, which is over (perhaps only now: cancelled, or out of attempts);
            or None when it is gone or was retried under another workflow.
        """
        with self._database.write() as connection:
            row = self._row(connection, job_id, lock=True)
            job = None if row is None else job_of(row)
            if row is None or job is None or job.workflow_id != workflow_id:
                return None
            if job.state.is_final:
                return job
            if job.state is JobState.CANCELLING:
                return self._end(connection, job, JobState.CANCELLED, cancellation())
            stalled = row["stalled"] if rounds <= job.rounds else 0
            if stalled >= max_attempts:
                last = row["last_failure"]
                failure = exhaustion(stalled, None if last is None else Failure(**last))
                return self._end(connection, job, JobState.FAILED, failure)
            job.attempts, job.rounds = job.attempts + 1, max(rounds, job.rounds)
            changes = {
                "attempts": job.attempts,
                "stalled": stalled + 1,
                "rounds": job.rounds,
                "started_at": row["started_at"] or time.time(),
            }
            if job.state is JobState.QUEUED:
                self._enter(connection, job, JobState.RUNNING, **changes)
            else:
                self._update(connection, job_id, **changes)
            return Ticket(job, job.attempts)

    def look(self, ticket: Ticket) -> JobState:
        """The state of an attempt's job.

        Raises:
            Fenced: the attempt may not write any more.
        """
        query = sa.select(JOBS.c.state, JOBS.c.attempts, JOBS.c.workflow_id).where(
            JOBS.c.id == ticket.job.id
        )
        with self._database.read() as connection:
            row = connection.execute(query).one_or_none()
        if row is None or not _is_holder(ticket, row.workflow_id, row.attempts):
            raise Fenced
        return JobState(row.state)

    def report(self, ticket: Ticket, progress: JobProgress) -> None:
        """Write how far an attempt is.

        Raises:
            Fenced: the attempt may not write any more.
        """
        with self._database.write() as connection:
            job = self._held(connection, ticket)
            data = progress.model_dump(mode="json")
            self._update(connection, job.id, progress=data)
            self.events.append_progress(connection, job, data)

    def note_failure(self, ticket: Ticket, failure: Failure) -> None:
        """Remember why an attempt failed; another one follows.

        Raises:
            Fenced: the attempt may not write any more.
        """
        with self._database.write() as connection:
            job = self._held(connection, ticket)
            self._update(connection, job.id, last_failure=failure.model_dump(mode="json"))

    def give_up(self, ticket: Ticket) -> None:
        """Take back an attempt that a stopping worker leaves to the next one."""
        with self._database.write() as connection:
            try:
                job = self._held(connection, ticket)
            except Fenced:
                return
            stalled = JOBS.c.stalled - 1
            connection.execute(JOBS.update().where(JOBS.c.id == job.id).values(stalled=stalled))

    def finish(
        self,
        ticket: Ticket,
        state: JobState,
        failure: Failure | None = None,
        results: dict[str, ResultFile] | None = None,
        progress: JobProgress | None = None,
        phase_seconds: Mapping[str, float] | None = None,
    ) -> Job:
        """End a job; one that was cancelled meanwhile but has its results has succeeded.

        Raises:
            Fenced: the attempt may not write any more.
        """
        with self._database.write() as connection:
            job = self._held(connection, ticket)
            job.results = results or {}
            job.progress = progress or job.progress
            self.statistics.count_phases(connection, phase_seconds or {})
            return self._end(connection, job, state, failure)

    # What the sweeper does ---------------------------------------------------------------------

    def expire(self, job_id: str) -> None:
        """Let a job's results go; its record stays as long again."""
        with self._database.write() as connection:
            job = self._find(connection, job_id, lock=True)
            if job is None or job.expires_at is None or job.expires_at > time.time():
                return
            job.results, job.failure = {}, job.failure or expiry()
            job.expires_at = time.time() + self._retention_s
            fields = {"failure", "results", "expires_at"}
            dumped = job.model_dump(mode="json", include=fields) | {"result_bytes": 0}
            self._enter(connection, job, JobState.EXPIRED, **dumped)

    # Inside ------------------------------------------------------------------------------------

    def _held(self, connection: sa.Connection, ticket: Ticket) -> Job:
        job = self._find(connection, ticket.job.id, lock=True)
        if job is None or not _is_holder(ticket, job.workflow_id, job.attempts):
            raise Fenced
        if job.state.is_final:
            raise Fenced
        return job

    def _update(self, connection: sa.Connection, job_id: str, **values: Any) -> None:
        connection.execute(JOBS.update().where(JOBS.c.id == job_id).values(**values))

    def _enter(self, connection: sa.Connection, job: Job, state: JobState, **values: Any) -> None:
        job.state = state
        job.times[state] = now()
        times = {str(name): at for name, at in job.times.items()}
        self._update(connection, job.id, state=state, times=times, **values)
        self.events.append_state(connection, job)

    def _end(
        self, connection: sa.Connection, job: Job, state: JobState, failure: Failure | None
    ) -> Job:
        job.failure = failure
        self.events.drop_progress(connection, job.id)
        if self._retention_s:
            job.expires_at = time.time() + self._retention_s
        fields = {"failure", "results", "progress", "expires_at"}
        values = job.model_dump(mode="json", include=fields)
        values["result_bytes"] = sum(result.size_bytes for result in job.results.values())
        self._enter(connection, job, state, **values)
        webhooks.put(connection, job)
        started = sa.select(JOBS.c.started_at).where(JOBS.c.id == job.id)
        started_at = connection.execute(started).scalar()
        seconds = None if started_at is None else max(0.0, time.time() - started_at)
        self.statistics.count_end(connection, state, failure.code if failure else "", seconds)
        return job


def _is_holder(ticket: Ticket, workflow_id: str, attempts: int) -> bool:
    return ticket.job.workflow_id == workflow_id and ticket.attempt == attempts
