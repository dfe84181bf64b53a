"""`ROLE=worker`: takes jobs from the queue and runs them, and takes over those of dead workers."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import threading
from types import FrameType

import sqlalchemy as sa

from service import engine
from service.attempts import Attempts
from service.cache import Cache
from service.children import Children
from service.database import Database
from service.gpu_memory import GpuMemory
from service.holdings import Holdings
from service.outbound import OutboundGuard
from service.quotas import Quotas
from service.results import JobFiles
from service.sessions import SessionStore
from service.settings import Settings
from service.shards.claims import ScoreShards
from service.shards.desk import ShardDesk
from service.shards.files import ShardFiles
from service.shards.help import ShardHelp
from service.storage import Storage
from service.store import JobStore
from service.sweeper import Sweeper
from service.tracing import open_tracing
from service.webhooks import WebhookSender
from service.workers import BEAT_S, Workers

_STOP_S = 10.0

log = logging.getLogger("service.worker")


class Worker:
    """One worker process.

    Raises:
        DataDirInUseError: another worker has its name.
    """

    def __init__(self, settings: Settings, storage: Storage) -> None:
        self._name = settings.worker
        self._slots = settings.max_concurrent_jobs
        storage.lock_worker(self._name)
        self._storage = storage
        self._database = Database(settings.database)
        self._workers = Workers(self._database)
        self._gpu = GpuMemory(settings.gpu_device)
        self._engine = engine.Engine(self._database, self._name, self._slots)
        store, files = JobStore(self._database, settings.job_retention_s), JobFiles(storage)
        sessions = SessionStore(self._database)
        self._tracing = open_tracing(settings.traces_url, "worker", self._name)
        children = Children(settings, settings.warm_children)
        self._shards, shard_files = ScoreShards(self._database), ShardFiles(storage)
        holdings = Holdings(self._database, storage, store, sessions, Quotas(settings))
        queue = engine.JobQueue(self._database)
        self._sweeper = Sweeper(settings, store, storage, holdings, files, sessions, queue)
        self._attempts = Attempts(
            store,
            storage,
            files,
            children,
            sessions,
            ShardDesk(self._name, self._shards, shard_files, files, store, queue, self._workers),
            self._tracing,
            settings.max_job_attempts,
        )
        self._help = ShardHelp(
            self._name,
            self._shards,
            shard_files,
            files,
            store,
            storage,
            children,
            queue,
            self._tracing,
        )
        self._cache = Cache(settings, storage, store)
        self._webhooks = _webhook_sender(settings, self._database)
        self._stop = threading.Event()

    def run(self) -> None:
        """Work until SIGTERM or SIGINT. Never returns: the process ends here."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_signal)
        self._database.create()
        engine.migrate(self._database)
        self._workers.beat(self._name, self._slots)
        self._shards.release(self._name)
        self._engine.start(self._attempts.run, self._help.run)
        threading.Thread(target=self._sweeper.run, args=(self._stop,), daemon=True).start()
        self._cache.start(self._stop)
        if self._webhooks is not None:
            sending = threading.Thread(target=self._webhooks.run, args=(self._stop,), daemon=True)
            sending.start()
        log.info("worker %s takes %d jobs at a time", self._name, self._slots)
        while not self._stop.wait(BEAT_S):
            self._look_around()
        self._leave()

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self._stop.set()

    def _look_around(self) -> None:
        """Say that this worker is alive, and take over from those that are not."""
        try:
            alive = self._workers.beat(self._name, self._slots, self._gpu.read())
            for place in self._engine.take_over(alive):
                log.warning("took over %s from a worker that is gone", place)
        except sa.exc.SQLAlchemyError as error:
            log.warning("the database does not answer: %s", type(error).__name__)

    async def _end_children(self) -> None:
        await asyncio.gather(self._attempts.stop(), self._help.stop())

    def _leave(self) -> None:
        """Take no more jobs, end the children, and go. Unfinished jobs are resumed elsewhere."""
        loop = self._attempts.loop or self._help.loop
        if loop is not None:
            stopping = asyncio.run_coroutine_threadsafe(self._end_children(), loop)
            try:
                stopping.result(_STOP_S)
            except TimeoutError:
                log.error("children did not end in time")
        try:
            self._workers.leave(self._name)
        except sa.exc.SQLAlchemyError as error:
            log.warning("the database does not answer: %s", type(error).__name__)
        self._storage.close()
        self._tracing.close()
        log.info("worker %s has left", self._name)
        logging.shutdown()
        # Without a word to the engine: what it takes for running is resumed by the next worker.
        os._exit(0)


def _webhook_sender(settings: Settings, database: Database) -> WebhookSender | None:
    if settings.webhook_secret is None:
        return None
    return WebhookSender(
        database,
        OutboundGuard.of(settings),
        settings.webhook_secret.get_secret_value(),
        settings.webhook_attempts,
        settings.webhook_first_pause_s,
    )
