"""What happened to each job, in order: the rows of `job_events`.

Events are written in the transaction of the change that they tell of, so that whoever reads them
sees every state.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import sqlalchemy as sa

from service.database import EVENTS, JOBS, Database
from service.records import Job, JobEvent


class EventLog:
    """Methods that open a transaction of their own block on the database.

    Args:
        database: Where events are.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    def heads(self, job_ids: Iterable[str]) -> dict[str, int]:
        """Number of the newest event of each of these jobs that exists."""
        wanted = list(job_ids)
        query = sa.select(JOBS.c.id, JOBS.c.last_event)
        with self._database.read() as connection:
            found: dict[str, int] = {}
            for start in range(0, len(wanted), 500):
                part = query.where(JOBS.c.id.in_(wanted[start : start + 500]))
                found.update({row.id: row.last_event for row in connection.execute(part)})
            return found

    def after(self, job_id: str, number: int) -> list[JobEvent]:
        """Events of a job with higher numbers than this, in order."""
        query = (
            sa.select(EVENTS.c.number, EVENTS.c.kind, EVENTS.c.data)
            .where(EVENTS.c.job_id == job_id, EVENTS.c.number > number)
            .order_by(EVENTS.c.number)
        )
        with self._database.read() as connection:
            rows = connection.execute(query).mappings()
            return [JobEvent.model_validate(dict(row)) for row in rows]

    def append_state(self, connection: sa.Connection, job: Job) -> None:
        """Tell that a job has entered its state."""
        data: dict[str, Any] = {"state": str(job.state), "at": job.times[job.state]}
        if job.failure is not None:
            data["code"] = job.failure.code
        self._append(connection, job, "state", data)

    def append_progress(
        self, connection: sa.Connection, job: Job, progress: Mapping[str, Any]
    ) -> None:
        """Tell how far a job is."""
        self._append(connection, job, "progress", progress)

    def drop_progress(self, connection: sa.Connection, job_id: str) -> None:
        """Forget how far a job was: that is for those who watch; its states are kept."""
        connection.execute(
            EVENTS.delete().where(EVENTS.c.job_id == job_id, EVENTS.c.kind == "progress")
        )

    def _append(
        self, connection: sa.Connection, job: Job, kind: str, data: Mapping[str, Any]
    ) -> None:
        job.last_event += 1
        connection.execute(
            JOBS.update().where(JOBS.c.id == job.id).values(last_event=job.last_event)
        )
        connection.execute(
            EVENTS.insert().values(job_id=job.id, number=job.last_event, kind=kind, data=dict(data))
        )
