"""Removes what has had its time: results, records, uploads, and what crashes left behind.

Every worker sweeps; what one has removed, the next one does not find.
"""

from __future__ import annotations

import logging
import threading
import time

import sqlalchemy as sa

from service.engine import JobQueue
from service.holdings import Holdings
from service.records import JobState
from service.results import JobFiles
from service.sessions import SessionStore
from service.settings import Settings
from service.storage import Storage
from service.store import JobStore

_AT_ONCE = 200
# A folder is made before its job's row says so only for moments.
_ORPHANED_S = 3600.0

log = logging.getLogger("service.worker")


class Sweeper:
    """Methods block on database and disk."""

    def __init__(
        self,
        settings: Settings,
        store: JobStore,
        storage: Storage,
        holdings: Holdings,
        files: JobFiles,
        sessions: SessionStore,
        queue: JobQueue,
    ) -> None:
        self._interval_s = settings.sweep_interval_s
        self._upload_retention_s = settings.upload_retention_s
        self._store = store
        self._storage = storage
        self._holdings = holdings
        self._files = files
        self._sessions = sessions
        self._queue = queue

    def run(self, stop: threading.Event) -> None:
        """Sweep again and again until told to stop."""
        while not stop.wait(self._interval_s):
            try:
                self.sweep()
            except (OSError, sa.exc.SQLAlchemyError) as error:
                log.warning("sweeping failed and is tried again: %s", error)
            except Exception:
                log.exception("sweeping failed")

    def sweep(self) -> None:
        """Remove what is due."""
        for job in self._store.due(_AT_ONCE):
            if job.state is JobState.EXPIRED:
                self._store.delete(job.id)
            else:
                self._store.expire(job.id)
            self._files.delete(job.id)
            log.info("job %s had its time", job.id)
        for job_id in self._files.orphans(_ORPHANED_S, self._store.known):
            self._files.delete(job_id)
        self._sweep_sessions()
        self._sweep_uploads()
        self._storage.clear_leftovers()
        self._queue.forget_finished()

    def _sweep_sessions(self) -> None:
        if self._upload_retention_s:
            for session_id in self._sessions.expire(time.time() - self._upload_retention_s):
                log.info("session %s had its time", session_id)

    def _sweep_uploads(self) -> None:
        if not self._upload_retention_s:
            return
        limit = time.time() - self._upload_retention_s
        for upload in self._storage.uploads():
            if upload.used_at < limit and self._holdings.expire(upload, limit):
                log.info("%s %s had its time", upload.kind, upload.id)
