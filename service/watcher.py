"""Tells requests that wait for a job when something has happened to it.

One task looks at all watched jobs at once, ten times a second, and only while there are any: a
thousand clients that wait cost one query.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Iterator
from contextlib import contextmanager

import anyio.to_thread
import sqlalchemy as sa

from service.store import JobStore

_LOOK_S = 0.1
_RETRY_S = 1.0

log = logging.getLogger("service.jobs")


class Watch:
    """One request's view of one job."""

    def __init__(self) -> None:
        self._changed = asyncio.Event()
        self.is_over = False
        """Whether the server is stopping."""

    async def change(self, timeout_s: float | None) -> bool:
        """Wait until something may have happened; False after `timeout_s` seconds without."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self._changed.wait()
        has_changed = self._changed.is_set()
        self._changed.clear()
        return has_changed

    def tell(self) -> None:
        """Wake the request up."""
        self._changed.set()


class Watcher:
    """Watches jobs on behalf of requests. Used on one event loop."""

    def __init__(self, store: JobStore) -> None:
        self._store = store
        self._watches: dict[str, set[Watch]] = {}
        self._heads: dict[str, int | None] = {}
        self._task: asyncio.Task[None] | None = None
        self._is_stopping = False

    @contextmanager
    def watch(self, job_id: str) -> Iterator[Watch]:
        """Watch a job. Read it after this begins: what happens from then on is told."""
        watch = Watch()
        watch.is_over = self._is_stopping
        self._watches.setdefault(job_id, set()).add(watch)
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._look())
        try:
            yield watch
        finally:
            rest = self._watches[job_id]
            rest.discard(watch)
            if not rest:
                del self._watches[job_id]
                self._heads.pop(job_id, None)

    def stop(self) -> None:
        """Send everyone home. May be called twice."""
        self._is_stopping = True
        for watches in self._watches.values():
            for watch in watches:
                watch.is_over = True
                watch.tell()

    async def _look(self) -> None:
        while self._watches:
            try:
                found = await anyio.to_thread.run_sync(self._store.heads, list(self._watches))
            except sa.exc.SQLAlchemyError as error:
                log.warning("the database does not answer: %s", type(error).__name__)
                await asyncio.sleep(_RETRY_S)
                continue
            for job_id, watches in self._watches.items():
                head = found.get(job_id)
                # A job that is new here may have changed since its request read it.
                if job_id not in self._heads or self._heads[job_id] != head:
                    self._heads[job_id] = head
                    for watch in watches:
                        watch.tell()
            await asyncio.sleep(_LOOK_S)
