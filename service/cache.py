"""Keeps `DATA_DIR` small where it is a cache of object storage.

Every process that fetches files has a cache of its own, and trims it itself: copies that nobody
here has asked for in a while go, and all that an unfinished job may need stay.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import sqlalchemy as sa

from service.settings import Settings
from service.storage import Storage
from service.store import JobStore

log = logging.getLogger("service.cache")


class Cache:
    """Methods block on database and disk.

    Args:
        settings: How long copies are kept, and how often it is looked.
        storage: The data folder.
        store: Knows which jobs are not over.
    """

    def __init__(self, settings: Settings, storage: Storage, store: JobStore) -> None:
        self._retention_s = settings.cache_retention_s
        self._interval_s = settings.sweep_interval_s
        self._storage = storage
        self._store = store

    def start(self, stop: threading.Event) -> None:
        """Trim again and again in a thread, until told to stop; nothing where it is no cache."""
        if self._storage.objects.is_remote:
            threading.Thread(target=self._run, args=(stop,), daemon=True).start()

    def trim(self) -> int:
        """Remove copies that were not used for long; how many."""
        limit = time.time() - self._retention_s
        old = [folder for folder in self._storage.copies() if _used_at(folder) < limit]
        needed = self._store.needed([folder.name for folder in old])
        gone = [folder for folder in old if folder.name not in needed]
        for folder in gone:
            self._storage.forget_copy(folder)
        return len(gone)

    def _run(self, stop: threading.Event) -> None:
        while not stop.wait(self._interval_s):
            try:
                count = self.trim()
                if count:
                    log.info("%d copies had their time", count)
            except (OSError, sa.exc.SQLAlchemyError) as error:
                log.warning("trimming failed and is tried again: %s", type(error).__name__)


def _used_at(folder: Path) -> float:
    """When a file in a folder was last written or asked for, seconds since the epoch."""
    return max(_times(folder), default=time.time())


def _times(folder: Path) -> Iterator[float]:
    for path in (folder, *folder.rglob("*")):
        try:
            yield path.stat().st_mtime
        except FileNotFoundError:
            continue
