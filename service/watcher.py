"""Tells requests that wait for a job when something has happened to it.

One task looks at all watched jobs at once, ten times a second, and only while there are any, and
reads what is new of a job once for everyone: for the database a thousand clients that wait are as
one. They are woken in groups, so that other requests are answered in between.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import anyio.to_thread
import sqlalchemy as sa

from service.event_log import EventLog
from service.records import JobEvent

_LOOK_S = 0.1
_RETRY_S = 1.0
# Requests woken at once: about two milliseconds' work.
_GROUP = 32

log = logging.getLogger("service.jobs")


class Watch:
    """One request's view of one job."""

    def __init__(self) -> None:
        self._waiting: asyncio.Future[None] | None = None
        self._has_changed = False
        self._events: list[JobEvent] = []
        self._seen_after: int | None = None
        self.is_over = False
        """Whether the server is stopping."""

    async def change(self, timeout_s: float | None) -> bool:
        """Wait until something may have happened; False after `timeout_s` seconds without."""
        if not self._has_changed:
            # A future and a timer: an Event under a timeout takes several times as long.
            loop = asyncio.get_running_loop()
            self._waiting = loop.create_future()
            timer = None if timeout_s is None else loop.call_later(timeout_s, self._wake)
            try:
                await self._waiting
            finally:
                self._waiting = None
                if timer is not None:
                    timer.cancel()
        has_changed, self._has_changed = self._has_changed, False
        return has_changed

    def take(self, after: int) -> list[JobEvent] | None:
        """Events that came since the last call; None when some after that number were missed."""
        events, seen_after = self._events, self._seen_after
        self._events, self._seen_after = [], None
        if seen_after is None or seen_after > after:
            return None
        return [event for event in events if event.number > after]

    def tell(self, after: int | None = None, events: Sequence[JobEvent] = ()) -> None:
        """Wake the request up.

        Args:
            after: `events` are all that came after this number; None when they are not known.
            events: What happened.
        """
        is_gap = after is None or (self._has_changed and self._seen_after is None)
        if is_gap:
            self._seen_after = None
        else:
            self._seen_after = after if self._seen_after is None else self._seen_after
            self._events += events
        self._has_changed = True
        self._wake()

    def _wake(self) -> None:
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(None)


class Watcher:
    """Watches jobs on behalf of requests. Used on one event loop."""

    def __init__(self, event_log: EventLog) -> None:
        self._event_log = event_log
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
                found = await anyio.to_thread.run_sync(self._event_log.heads, list(self._watches))
            except sa.exc.SQLAlchemyError as error:
                log.warning("the database does not answer: %s", type(error).__name__)
                await asyncio.sleep(_RETRY_S)
                continue
            for job_id in list(self._watches):
                head = found.get(job_id)
                # A job that is new here may have changed since its request read it.
                if job_id not in self._heads:
                    await self._tell(job_id, head)
                elif self._heads[job_id] != head:
                    await self._tell_events(job_id, self._heads[job_id], head)
            await asyncio.sleep(_LOOK_S)

    async def _tell_events(self, job_id: str, known: int | None, head: int | None) -> None:
        """Read what is new of a job, and hand it to all who watch it."""
        events: list[JobEvent] = []
        try:
            if known is not None and head is not None:
                events = await anyio.to_thread.run_sync(self._event_log.after, job_id, known)
        except sa.exc.SQLAlchemyError:
            known = None
        newest = max((event.number for event in events), default=head or 0)
        await self._tell(job_id, head if head is None else max(head, newest), known, events)

    async def _tell(
        self,
        job_id: str,
        head: int | None,
        after: int | None = None,
        events: Sequence[JobEvent] = (),
    ) -> None:
        watches = self._watches.get(job_id)
        if watches is None:  # everyone may have gone meanwhile
            return
        self._heads[job_id] = head
        for number, watch in enumerate(list(watches), start=1):
            watch.tell(after, events)
            if number % _GROUP == 0:
                await asyncio.sleep(0)
