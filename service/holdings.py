"""Models and bundles as their holders see them.

Files are named by their content, so two owners who send the same bytes share one file; each
holds it on its own, under its own file name, and does not see that the other does. A file goes
when its last holder lets go of it. The operator, and keys with the scope `admin`, see all files.

Taking and letting go of a file are transactions that exclude each other: a file that is being
removed is not given to a new holder.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import sqlalchemy as sa

from service.access import Caller
from service.database import HOLDERS, Database
from service.problems import Problem
from service.quotas import Quotas
from service.sessions import SessionStore
from service.sinks import ReceivedFile
from service.storage import Kind, Storage, StoredUpload, now, plain_filename
from service.store import JobStore


class Holdings:
    """Methods block on database and disk."""

    def __init__(
        self,
        database: Database,
        storage: Storage,
        store: JobStore,
        sessions: SessionStore,
        quotas: Quotas,
    ) -> None:
        self._quotas = quotas
        self._sessions = sessions
        self._database = database
        self._storage = storage
        self._store = store

    def find(self, caller: Caller, kind: Kind, upload_id: str) -> StoredUpload | None:
        """A model or bundle that the caller sees, or None."""
        upload = self._storage.find_upload(kind, upload_id)
        if upload is None:
            return None
        with self._database.read() as connection:
            row = connection.execute(_held(upload.kind, upload.id, caller.owner)).one_or_none()
        if row is not None:
            return replace(upload, filename=row.filename, created_at=row.created_at)
        return upload if caller.is_admin else None

    def get(self, caller: Caller, kind: Kind, upload_id: str) -> StoredUpload:
        """A model or bundle that the caller sees.

        Raises:
            Problem: `model_not_found` or `bundle_not_found`.
        """
        upload = self.find(caller, kind, upload_id)
        if upload is None:
            raise Problem(
                f"{kind}_not_found",
                f"There is no {kind} with the id {upload_id[:80]!r}; upload it with POST "
                f"/v1/{kind}s.",
            )
        return upload

    def use(self, caller: Caller, kind: Kind, upload_id: str) -> StoredUpload:
        """The same, and remember that it is used now."""
        upload = self.get(caller, kind, upload_id)
        self._storage.touch(upload)
        return upload

    def add(self, caller: Caller, kind: Kind, received: ReceivedFile) -> tuple[StoredUpload, bool]:
        """Store a file, or take hold of one that is there; whether it is new to the caller.

        Raises:
            Problem: `quota_exceeded`; `insufficient_storage`.
        """
        received.flush()
        filename = plain_filename(received.filename, kind)
        self._storage.send_ahead(kind, received.path, received.sha256)
        with self._alone(kind, received.sha256) as connection:
            is_held = self._holds(connection, caller.owner, kind, received.sha256)
            if not is_held:
                self._quotas.check(connection, caller.owner, received.size_bytes)
            upload = self._storage.add_upload(kind, received.path, received.sha256, filename)
            if not is_held:
                row = {
                    "kind": kind,
                    "upload_id": upload.id,
                    "owner": caller.owner,
                    "filename": filename,
                    "created_at": now(),
                    "size_bytes": upload.size_bytes,
                }
                changes = {"filename": filename}
                connection.execute(self._database.upsert(HOLDERS, row, changes))
        return self.get(caller, kind, received.sha256), not is_held

    def delete(self, caller: Caller, kind: Kind, upload_id: str) -> None:
        """Let go of a model or bundle; an admin takes it from everyone.

        Raises:
            Problem: `model_not_found`, `bundle_not_found`; `resource_in_use`.
        """
        upload = self.get(caller, kind, upload_id)
        whose = None if caller.is_admin else caller.owner
        with self._alone(kind, upload_id) as connection:
            job_id = self._store.user_of(upload_id, whose)
            if job_id is not None:
                raise Problem(
                    "resource_in_use", f"The {kind} is used by the job {job_id}.", job_id=job_id
                )
            session_id = self._sessions.user_of(upload_id, whose)
            if session_id is not None:
                raise Problem(
                    "resource_in_use",
                    f"The {kind} is used by the session {session_id}.",
                    session_id=session_id,
                )
            self._release(connection, upload, whose)

    def expire(self, upload: StoredUpload, used_before: float) -> bool:
        """Remove what nobody has used since then; whether it is gone."""
        with self._alone(upload.kind, upload.id) as connection:
            newest = self._storage.find_upload(upload.kind, upload.id)
            if newest is None or newest.used_at >= used_before:
                return False
            if self._store.user_of(upload.id) is not None:
                return False
            if self._sessions.user_of(upload.id) is not None:
                return False
            self._release(connection, upload, None)
            return True

    def _holds(self, connection: sa.Connection, owner: str, kind: Kind, upload_id: str) -> bool:
        is_held = connection.execute(_held(kind, upload_id, owner)).first() is not None
        return is_held and self._storage.find_upload(kind, upload_id) is not None

    def _release(self, connection: sa.Connection, upload: StoredUpload, owner: str | None) -> None:
        """Take an upload from one owner, or from all; the last one's file goes."""
        held = sa.and_(HOLDERS.c.kind == upload.kind, HOLDERS.c.upload_id == upload.id)
        mine = held if owner is None else sa.and_(held, HOLDERS.c.owner == owner)
        connection.execute(HOLDERS.delete().where(mine))
        if connection.execute(sa.select(HOLDERS.c.owner).where(held).limit(1)).first() is None:
            self._storage.delete_upload(upload)

    @contextmanager
    def _alone(self, kind: Kind, upload_id: str) -> Iterator[sa.Connection]:
        """A transaction that no other change of this upload's holders runs beside."""
        with self._database.write() as connection:
            self._database.lock(connection, f"{kind} {upload_id}")
            yield connection


def _held(kind: Kind, upload_id: str, owner: str) -> sa.Select[tuple[str, str]]:
    return sa.select(HOLDERS.c.filename, HOLDERS.c.created_at).where(
        HOLDERS.c.kind == kind,
        HOLDERS.c.upload_id == upload_id,
        HOLDERS.c.owner == owner,
    )
