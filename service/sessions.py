"""Score sessions: scores of one model that grow piece by piece, and that cuts are made from.

A session is a row, and every piece that was added to it another: the scores that a job took on a
bundle, or a state that was uploaded. Pieces add up to the same bits in any order
(`graph_ops.exact_sums`), so that nothing needs to be merged when a piece comes: whoever wants the
sum adds up what there is. A piece is named by the job or the file that it came from, and is there
once, however often its insertion is repeated.

Pieces are read by children only; here they are bytes.
"""

from __future__ import annotations

import secrets
import time
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from pydantic import BaseModel

from service.access import Caller
from service.database import PIECES, SESSIONS, Database
from service.problems import Problem
from service.storage import now


class Piece(BaseModel):
    """Something that was added to a session."""

    name: str
    """The job that took it, or the sha256 of the uploaded file."""
    source: str
    """`job` or `upload`."""
    size_bytes: int
    """Size of its state."""
    added_at: str
    """When it was added, ISO 8601 in UTC."""


class Session(BaseModel):
    """The record of a session."""

    id: str
    owner: str
    model_id: str
    options: dict[str, Any]
    created_at: str
    used_at: float
    """When it was last used, seconds since the epoch."""
    pieces: list[Piece] = []

    @property
    def instance(self) -> str:
        """The session's path."""
        return f"/v1/sessions/{self.id}"


class SessionStore:
    """Methods block on the database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def create(self, caller: Caller, model_id: str, options: dict[str, Any]) -> Session:
        """A new session without pieces."""
        session = Session(
            id=f"{time.time_ns() // 1_000_000:012x}{secrets.token_hex(10)}",
            owner=caller.owner,
            model_id=model_id,
            options=options,
            created_at=now(),
            used_at=time.time(),
        )
        row = session.model_dump(mode="json", exclude={"pieces"})
        with self._database.write() as connection:
            connection.execute(SESSIONS.insert().values(**row))
        return session

    def get(self, caller: Caller, session_id: str) -> Session:
        """A session that the caller sees, with its pieces in the order of their names.

        Raises:
            Problem: `session_not_found`.
        """
        with self._database.read() as connection:
            session = self._find(connection, session_id)
        if session is None or not caller.may_see(session.owner):
            raise _not_found(session_id)
        return session

    def use(self, caller: Caller, session_id: str) -> Session:
        """The same, and remember that it is used now."""
        session = self.get(caller, session_id)
        with self._database.write() as connection:
            mine = SESSIONS.c.id == session.id
            connection.execute(SESSIONS.update().where(mine).values(used_at=time.time()))
        return session

    def delete(self, caller: Caller, session_id: str) -> None:
        """Forget a session and its pieces.

        Raises:
            Problem: `session_not_found`.
        """
        session = self.get(caller, session_id)
        with self._database.write() as connection:
            connection.execute(PIECES.delete().where(PIECES.c.session_id == session.id))
            connection.execute(SESSIONS.delete().where(SESSIONS.c.id == session.id))

    def add_piece(self, session_id: str, name: str, source: str, state: bytes) -> bool:
        """Add a piece, if it is not there; whether the session still is."""
        row = {
            "session_id": session_id,
            "name": name,
            "source": source,
            "size_bytes": len(state),
            "added_at": now(),
            "state": state,
        }
        with self._database.write() as connection:
            self._database.lock(connection, f"session {session_id}")
            if self._find(connection, session_id) is None:
                return False
            same = sa.and_(PIECES.c.session_id == session_id, PIECES.c.name == name)
            if connection.execute(sa.select(PIECES.c.name).where(same)).first() is None:
                connection.execute(PIECES.insert().values(**row))
            return True

    def unpack(self, session_id: str, names: list[str], folder: Path) -> list[Path]:
        """Write pieces as files, in the order of the names.

        Raises:
            Problem: `session_not_found` where one is gone.
        """
        paths = []
        for number, name in enumerate(names):
            query = sa.select(PIECES.c.state).where(
                PIECES.c.session_id == session_id, PIECES.c.name == name
            )
            with self._database.read() as connection:
                state = connection.execute(query).scalar()
            if state is None:
                raise _not_found(session_id)
            paths.append(folder / f"piece-{number}.npz")
            paths[-1].write_bytes(state)
        return paths

    def expire(self, used_before: float) -> list[str]:
        """Forget sessions that nobody has used since then; their ids."""
        with self._database.write() as connection:
            query = sa.select(SESSIONS.c.id).where(SESSIONS.c.used_at < used_before)
            gone = [str(i) for i in connection.execute(query).scalars()]
            connection.execute(PIECES.delete().where(PIECES.c.session_id.in_(gone)))
            connection.execute(SESSIONS.delete().where(SESSIONS.c.id.in_(gone)))
        return gone

    def user_of(self, model_id: str, owner: str | None = None) -> str | None:
        """A session that needs this model, of this owner where one is given; None without."""
        query = sa.select(SESSIONS.c.id).where(SESSIONS.c.model_id == model_id)
        if owner is not None:
            query = query.where(SESSIONS.c.owner == owner)
        with self._database.read() as connection:
            return connection.execute(query.limit(1)).scalar()

    def _find(self, connection: sa.Connection, session_id: str) -> Session | None:
        query = sa.select(SESSIONS).where(SESSIONS.c.id == session_id)
        row = connection.execute(query).mappings().one_or_none()
        if row is None:
            return None
        columns = [c for c in PIECES.c if c.name not in ("session_id", "state")]
        pieces = sa.select(*columns).where(PIECES.c.session_id == session_id)
        found = connection.execute(pieces.order_by(PIECES.c.name)).mappings()
        return Session.model_validate({**row, "pieces": [dict(piece) for piece in found]})


def _not_found(session_id: str) -> Problem:
    return Problem("session_not_found", f"There is no session with the id {session_id[:80]!r}.")
