"""Counts of jobs, as the metrics tell them.

Ends and phases are counted in the transaction that ends a job, so every API tells the same
numbers, also after a restart and after the jobs themselves are gone.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa

from service import quotas
from service.database import ENDED, JOBS, PHASES, WEBHOOKS, Database
from service.records import UNFINISHED, JobState

DURATION_BUCKETS = (1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 180.0, 600.0, 1800.0, 3600.0)
"""Upper bounds, in seconds; one more bucket holds what took longer."""

_NEVER_RAN = -1
"""Bucket of jobs that ended before they began."""


class JobStatistics:
    """Methods that open a transaction of their own block on the database.

    Args:
        database: Where jobs are.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    def counts(self) -> dict[str, int]:
        """Number of jobs in each state that is not final."""
        with self._database.read() as connection:
            return unfinished_counts(connection)

    def ended(self) -> list[Mapping[str, Any]]:
        """Jobs that ended, by state, code and duration: rows of `ended_jobs`."""
        with self._database.read() as connection:
            return [dict(row) for row in connection.execute(sa.select(ENDED)).mappings()]

    def phases(self) -> list[Mapping[str, Any]]:
        """Seconds that jobs spent in each phase: rows of `phase_seconds`."""
        with self._database.read() as connection:
            return [dict(row) for row in connection.execute(sa.select(PHASES)).mappings()]

    def oldest_waiting_s(self) -> float:
        """Seconds that the oldest queued job has waited; 0 when none waits."""
        query = sa.select(sa.func.min(JOBS.c.created_us)).where(JOBS.c.state == JobState.QUEUED)
        with self._database.read() as connection:
            oldest = connection.execute(query).scalar()
            at = self._database.clock(connection)
        return 0.0 if oldest is None else max(0.0, at - oldest / 1e6)

    def stored_bytes(self) -> int:
        """Bytes of all models, bundles and results."""
        with self._database.read() as connection:
            return quotas.stored_bytes(connection)

    def waiting_webhooks(self) -> int:
        """Webhook messages that have not arrived yet."""
        query = sa.select(sa.func.count()).select_from(WEBHOOKS)
        with self._database.read() as connection:
            return int(connection.execute(query).scalar_one())

    def count_phases(self, connection: sa.Connection, phase_seconds: Mapping[str, float]) -> None:
        """Count the seconds that a job spent in each phase."""
        for phase, seconds in phase_seconds.items():
            row = {"phase": phase, "jobs": 1, "seconds": seconds}
            more = {"jobs": PHASES.c.jobs + 1, "seconds": PHASES.c.seconds + seconds}
            connection.execute(self._database.upsert(PHASES, row, more))

    def count_end(
        self, connection: sa.Connection, state: JobState, code: str, seconds: float | None
    ) -> None:
        """Count a job's end.

        Args:
            connection: The transaction that ends it.
            state: What it ended as.
            code: Of its failure; empty where it has none.
            seconds: From its first start; None where it never began.
        """
        row = {
            "state": state,
            "code": code,
            "bucket": _NEVER_RAN if seconds is None else bisect_left(DURATION_BUCKETS, seconds),
            "jobs": 1,
            "seconds": seconds or 0.0,
        }
        more = {"jobs": ENDED.c.jobs + 1, "seconds": ENDED.c.seconds + row["seconds"]}
        connection.execute(self._database.upsert(ENDED, row, more))


def unfinished_counts(connection: sa.Connection) -> dict[str, int]:
    """Number of jobs in each state that is not final, in a transaction."""
    query = (
        sa.select(JOBS.c.state, sa.func.count())
        .where(JOBS.c.state.in_(UNFINISHED))
        .group_by(JOBS.c.state)
    )
    found = {row[0]: row[1] for row in connection.execute(query)}
    return {str(state): found.get(state, 0) for state in UNFINISHED}
