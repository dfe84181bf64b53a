"""Which workers there are: each tells the database once a second that it is alive."""

from __future__ import annotations

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

    def beat(self, name: str, slots: int) -> set[str]:
        """Say that a worker is alive; the names of all that are."""
        with self._database.write() as connection:
            at = self._database.clock(connection)
            row = {"name": name, "beat_at": at, "slots": slots}
            changes = {"beat_at": at, "slots": slots}
            connection.execute(self._database.upsert(BEATS, row, changes))
            connection.execute(BEATS.delete().where(BEATS.c.beat_at < at - _FORGET_AFTER_S))
            query = sa.select(BEATS.c.name).where(BEATS.c.beat_at > at - DEAD_AFTER_S)
            return set(connection.execute(query).scalars())

    def leave(self, name: str) -> None:
        """Say that a worker has gone."""
        with self._database.write() as connection:
            connection.execute(BEATS.delete().where(BEATS.c.name == name))

    def slots(self) -> int:
        """Slots of all workers that are alive."""
        with self._database.read() as connection:
            return self.slots_seen(connection)

    def slots_seen(self, connection: sa.Connection) -> int:
        """The same, in a transaction."""
        at = self._database.clock(connection)
        query = sa.select(sa.func.sum(BEATS.c.slots)).where(BEATS.c.beat_at > at - DEAD_AFTER_S)
        return int(connection.execute(query).scalar() or 0)
