"""How many bytes may be kept, for one owner and for all.

What counts are models, bundles and results. Equal files of several owners count for each of them,
and once in the total. The sums come from the database, so every machine says the same.
"""

from __future__ import annotations

import sqlalchemy as sa

from service.database import HOLDERS, JOBS
from service.problems import Problem
from service.settings import Settings


class Quotas:
    """Checks sums against the settings.

    Args:
        settings: The limits; without any nothing is summed.
    """

    def __init__(self, settings: Settings) -> None:
        self._of_all = settings.max_stored_bytes
        self._of_owner = settings.max_stored_bytes_per_owner

    def check(self, connection: sa.Connection, owner: str, more_bytes: int) -> None:
        """Refuse what would not fit any more.

        Raises:
            Problem: `quota_exceeded`.
        """
        if self._of_owner is not None:
            used = stored_bytes_of(connection, owner)
            _check("yours", used, more_bytes, self._of_owner)
        if self._of_all is not None:
            _check("all", stored_bytes(connection), more_bytes, self._of_all)


def stored_bytes_of(connection: sa.Connection, owner: str) -> int:
    """Bytes of an owner's models, bundles and results."""
    held = sa.select(sa.func.sum(HOLDERS.c.size_bytes)).where(HOLDERS.c.owner == owner)
    made = sa.select(sa.func.sum(JOBS.c.result_bytes)).where(JOBS.c.owner == owner)
    return sum(int(connection.execute(query).scalar() or 0) for query in (held, made))


def stored_bytes(connection: sa.Connection) -> int:
    """Bytes of all models, bundles and results."""
    files = sa.select(HOLDERS.c.kind, HOLDERS.c.upload_id, HOLDERS.c.size_bytes).distinct()
    held = sa.select(sa.func.sum(files.subquery().c.size_bytes))
    made = sa.select(sa.func.sum(JOBS.c.result_bytes))
    return sum(int(connection.execute(query).scalar() or 0) for query in (held, made))


def _check(whose: str, used: int, more_bytes: int, limit: int) -> None:
    if used + more_bytes > limit:
        raise Problem(
            "quota_exceeded",
            f"{used} bytes are kept ({whose}); {more_bytes} more are over the limit of {limit}.",
            used_bytes=used,
            needed_bytes=more_bytes,
            limit_bytes=limit,
        )
