"""The parts a running API consists of, and how handlers get at them."""

from __future__ import annotations

import logging
import threading
from dataclasses import dataclass, field
from typing import Annotated, Any

from fastapi import Depends, Request

from service import engine
from service.access import Gate
from service.cache import Cache
from service.catalog import Catalog
from service.children import Children
from service.database import Database
from service.holdings import Holdings
from service.jobs import Jobs
from service.keys import KeyStore
from service.metrics import Metrics
from service.objects import open_objects
from service.outbound import OutboundGuard, UrlRefused
from service.problems import Problem
from service.quotas import Quotas
from service.results import JobFiles
from service.sessions import SessionStore
from service.settings import Settings
from service.sources import Sources
from service.storage import Storage
from service.store import JobStore
from service.tracing import Tracing, open_tracing
from service.uploads import Uploads
from service.workers import Workers

log = logging.getLogger("service")


@dataclass
class Services:
    """Everything handlers use.

    Attributes:
        versions: What the first child reported of its runtime; None until it has.
        engines: What it reported of the gradient engines; None until it has.
        probe_problem: Why the first child did not work, if so.
        stopping: Set when the API is to stop.
    """

    settings: Settings
    storage: Storage
    database: Database
    workers: Workers
    metrics: Metrics
    uploads: Uploads
    gate: Gate
    guard: OutboundGuard
    holdings: Holdings
    cache: Cache
    catalog: Catalog
    jobs: Jobs
    sessions: SessionStore
    children: Children
    tracing: Tracing
    versions: dict[str, Any] | None = None
    engines: list[dict[str, Any]] | None = None
    probe_problem: Problem | None = None
    stopping: threading.Event = field(default_factory=threading.Event)

    @classmethod
    def build(cls, settings: Settings, storage: Storage | None = None) -> Services:
        """The parts, wired and not yet started."""
        storage = storage or Storage(
            settings.data_dir, settings.min_free_disk_bytes, open_objects(settings.storage_url)
        )
        database = Database(settings.database)
        store = JobStore(database, settings.job_retention_s)
        workers = Workers(database)
        metrics = Metrics(store.statistics, workers, storage)
        children = Children(settings, settings.warm_children)
        guard = OutboundGuard.of(settings)
        quotas = Quotas(settings)
        tracing = open_tracing(settings.traces_url, "api", settings.worker)
        sessions = SessionStore(database)
        holdings = Holdings(database, storage, store, sessions, quotas)
        return cls(
            settings=settings,
            storage=storage,
            database=database,
            workers=workers,
            metrics=metrics,
            uploads=Uploads(settings, storage, metrics, Sources(settings, guard)),
            gate=Gate(settings, KeyStore(database)),
            guard=guard,
            holdings=holdings,
            cache=Cache(settings, storage, store),
            catalog=Catalog(
                storage,
                holdings,
                children,
                settings.max_concurrent_inspections,
                settings.max_queued_inspections,
            ),
            jobs=Jobs(
                store,
                engine.JobQueue(database),
                workers,
                JobFiles(storage),
                settings.max_queued_jobs,
                quotas,
                tracing,
            ),
            tracing=tracing,
            sessions=sessions,
            children=children,
        )

    def open(self) -> None:
        """Make what is missing on disk and in the database.

        Raises:
            DataDirInUseError: another server has the folder for itself.
        """
        self.storage.open()
        self.cache.start(self.stopping)
        self.database.create()
        engine.migrate(self.database)

    def close(self) -> None:
        """Let go of disk and database."""
        self.stopping.set()
        self.tracing.close()
        self.database.close()
        self.storage.close()

    def check_webhook(self, url: str) -> None:
        """Check that the end of a job may be told to a URL.

        Raises:
            Problem: `webhook_not_allowed`.
        """
        if self.settings.webhook_secret is None:
            raise Problem("webhook_not_allowed", "This server sends no webhooks.")
        try:
            self.guard.check(url)
        except UrlRefused as refusal:
            raise Problem("webhook_not_allowed", f"webhook_url: {refusal}") from None

    async def probe(self) -> None:
        """Find out, once, whether children can do their work here."""
        try:
            found = await self.catalog.probe()
            self.engines, self.versions = found["engines"], found["versions"]
        except Problem as problem:
            log.error("children do not work: %s", problem)
            self.probe_problem = problem


async def services_of(request: Request) -> Services:
    """The services of the app that answers this request.

    A coroutine, because FastAPI calls plain functions in a thread, which costs more than they do.
    """
    services: Services = request.app.state.services
    return services


ServicesDep = Annotated[Services, Depends(services_of)]
