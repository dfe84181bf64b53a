"""Which workers there are: each tells the database once a second that it is alive."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa

from service.database import BEATS, Database

BEAT_S = 1.0
DEAD_AFTER_S = 5.0
"""Silence after which a worker counts as dead. What it holds is then given to others, and should
it only have been asleep, it is fenced off: nothing that it still writes counts."""

_FORGET_AFTER_S = 3600.0


class Workers:
    """The table of workers. Methods block on the database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def beat(self, name: str, slots: int, gpu_memory: tuple[int, int] | None = None) -> set[str]:
        """Say that a worker is alive; the names of all that are.

        Args:
            name: The worker.
            slots: Jobs that it runs at the same time.
            gpu_memory: Used and total bytes of its GPU's memory; None without one.
        """
        with self._database.write() as connection:
            at = self._database.clock(connection)
            row: dict[str, Any] = {"name": name, "beat_at": at, "slots": slots}
            used, total = gpu_memory or (None, None)
            changes = {
                "beat_at": at,
                "slots": slots,
                "gpu_used_bytes": used,
                "gpu_total_bytes": total,
            }
            row |= changes
            connection.execute(self._database.upsert(BEATS, row, changes))
            connection.execute(BEATS.delete().where(BEATS.c.beat_at < at - _FORGET_AFTER_S))
            query = sa.select(BEATS.c.name).where(BEATS.c.beat_at > at - DEAD_AFTER_S)
            return set(connection.execute(query).scalars())

    def leave(self, name: str) -> None:
        """Say that a worker has gone."""
        with self._database.write() as connection:
            connection.execute(BEATS.delete().where(BEATS.c.name == name))

    def alive(self) -> list[Mapping[str, Any]]:
        """Rows of all workers that are alive."""
        with self._database.read() as connection:
            at = self._database.clock(connection)
            query = sa.select(BEATS).where(BEATS.c.beat_at > at - DEAD_AFTER_S)
            return [dict(row) for row in connection.execute(query).mappings()]

    def slots(self) -> int:
        """Slots of all workers that are alive."""
        with self._database.read() as connection:
            return self.slots_seen(connection)

    def slots_seen(self, connection: sa.Connection) -> int:
        """The same, in a transaction."""
        at = self._database.clock(connection)
        query = sa.select(sa.func.sum(BEATS.c.slots)).where(BEATS.c.beat_at > at - DEAD_AFTER_S)
        return int(connection.execute(query).scalar() or 0)
