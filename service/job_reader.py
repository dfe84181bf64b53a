"""Jobs in the database, as they are: what clients, workers and the sweeper ask about them."""

from __future__ import annotations

import time
from collections.abc import Iterable

import sqlalchemy as sa

from service.database import JOBS, Database
from service.job_queries import job_of, page_query
from service.records import UNFINISHED, Job, JobState


class JobReader:
    """Methods block on the database.

    Args:
        database: Where jobs are.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    def find(self, job_id: str) -> Job | None:
        """The job of this id, or None."""
        with self._database.read() as connection:
            return self._find(connection, job_id)

    def page(
        self,
        limit: int,
        before: tuple[int, str] | None,
        state: JobState | None,
        labels: Iterable[tuple[str, str | None]],
        owner: str | None = None,
    ) -> list[Job]:
        """Up to `limit` jobs, newest first.

        Args:
            limit: Most jobs to return.
            before: `created_us` and id of the last job of the page before.
            state: Only jobs in this state.
            labels: Only jobs with all these keys in their metadata, at these values where given.
            owner: Only jobs of this owner; None for those of all.
        """
        query = page_query(limit, before, state, labels, owner)
        with self._database.read() as connection:
            return [job_of(row) for row in connection.execute(query).mappings()]

    def user_of(self, upload_id: str, owner: str | None = None) -> str | None:
        """Id of a job that is not over and needs this model or bundle, or None.

        Args:
            upload_id: The model or bundle.
            owner: Look at jobs of this owner only; None for those of all.
        """
        query = sa.select(JOBS.c.id).where(
            JOBS.c.state.in_(UNFINISHED),
            sa.or_(JOBS.c.model_id == upload_id, JOBS.c.bundle_id == upload_id),
        )
        if owner is not None:
            query = query.where(JOBS.c.owner == owner)
        with self._database.read() as connection:
            return connection.execute(query.limit(1)).scalar()

    def unfinished_of(self, connection: sa.Connection, owner: str) -> int:
        """Jobs of an owner that are not over; nobody else adds one until the transaction ends."""
        self._database.lock(connection, f"jobs of {owner}")
        query = sa.select(sa.func.count()).where(
            JOBS.c.state.in_(UNFINISHED), JOBS.c.owner == owner
        )
        return int(connection.execute(query).scalar_one())

    def due(self, limit: int) -> list[Job]:
        """Jobs whose time is over: those with results, and those that expired long ago."""
        query = sa.select(JOBS).where(JOBS.c.expires_at < time.time()).limit(limit)
        with self._database.read() as connection:
            return [job_of(row) for row in connection.execute(query).mappings()]

    def known(self, job_ids: Iterable[str]) -> set[str]:
        """Which of these jobs have, or will have, files."""
        wanted = list(job_ids)
        query = sa.select(JOBS.c.id).where(JOBS.c.state != JobState.EXPIRED)
        with self._database.read() as connection:
            found: set[str] = set()
            for start in range(0, len(wanted), 500):
                part = query.where(JOBS.c.id.in_(wanted[start : start + 500]))
                found.update(connection.execute(part).scalars())
            return found

    def needed(self, names: Iterable[str]) -> set[str]:
        """Which of these are unfinished jobs, or models or bundles of such."""
        query = sa.select(JOBS.c.id, JOBS.c.model_id, JOBS.c.bundle_id).where(
            JOBS.c.state.in_(UNFINISHED)
        )
        with self._database.read() as connection:
            used = {str(name) for row in connection.execute(query) for name in row}
        return used & set(names)

    def _row(
        self, connection: sa.Connection, job_id: str, lock: bool = False
    ) -> sa.RowMapping | None:
        query = sa.select(JOBS).where(JOBS.c.id == job_id)
        if lock:
            query = query.with_for_update()
        return connection.execute(query).mappings().one_or_none()

    def _find(self, connection: sa.Connection, job_id: str, lock: bool = False) -> Job | None:
        row = self._row(connection, job_id, lock)
        return None if row is None else job_of(row)
