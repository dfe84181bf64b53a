"""A worker with nothing else to do helps a job that another one runs: it scores shards of it.

The place in the queue says whose round. One child opens model and bundle once, goes on from the
job's checkpoint, and scores shard after shard, each claimed before it is given to the child. The
next one is claimed before the last is said to be done: as long as the child lives, this worker
holds a shard, and the job is not said to be cancelled.
"""

from __future__ import annotations

import asyncio
import logging
import time
from pathlib import Path

import sqlalchemy as sa

from service.children import Children, PhaseTrace, WorkFiles
from service.engine import JobQueue
from service.files import remove
from service.logs import JOB_ID
from service.objects import StorageUnavailable
from service.problems import Problem
from service.records import Job
from service.results import JobFiles
from service.runner import ChildFailure
from service.shards.claims import ScoreShards, ShardClaim
from service.shards.files import ShardFiles
from service.shards.mailbox import Post
from service.storage import Kind, Storage
from service.store import JobStore
from service.tracing import Span, Tracing, Value

_TURN_S = 0.05
_LOOK_S = 0.2
_RETRY_S = 0.5
_AWAY = (sa.exc.SQLAlchemyError, StorageUnavailable)

log = logging.getLogger("service.worker")


class ShardHelp:
    """Helps; used on the engine's event loop."""

    def __init__(
        self,
        name: str,
        shards: ScoreShards,
        files: ShardFiles,
        job_files: JobFiles,
        store: JobStore,
        storage: Storage,
        children: Children,
        queue: JobQueue,
        tracing: Tracing,
    ) -> None:
        self._tracing = tracing
        self.name = name
        self.shards, self.files, self._job_files = shards, files, job_files
        self._store, self._storage = store, storage
        self._children, self.queue = children, queue
        self._running: set[asyncio.Task[None]] = set()
        self._is_stopping = False
        self.loop: asyncio.AbstractEventLoop | None = None
        """The engine's loop, once it has helped."""

    async def run(self, job_id: str, number: int) -> None:
        """Help with a round, as long as help is wanted and nothing else waits.

        Does not return when the worker is stopping.
        """
        self.loop = asyncio.get_running_loop()
        JOB_ID.set(job_id)
        if not self._is_stopping:
            help_ = asyncio.create_task(self._help(job_id, number))
            self._running.add(help_)
            await asyncio.wait({help_})
            self._running.discard(help_)
            if not help_.cancelled() and (error := help_.exception()) is not None:
                log.error("help with job %s ended", job_id, exc_info=error)
        if self._is_stopping:
            await asyncio.Event().wait()

    async def stop(self) -> None:
        """Kill the children; returns when they are gone."""
        self._is_stopping = True
        helping = list(self._running)
        for task in helping:
            task.cancel()
        await asyncio.gather(*helping, return_exceptions=True)

    async def _help(self, job_id: str, number: int) -> None:
        try:
            claim = await asyncio.to_thread(self._claim, job_id, number)
            job = await asyncio.to_thread(self._store.find, job_id)
            if claim is None or job is None:
                return
            workdir = await asyncio.to_thread(self._storage.new_temporary)
        except _AWAY as error:
            log.warning("no help without database or storage: %s", type(error).__name__)
            return
        log.info("helps with round %d from shard %d on", number, claim.shard.number)
        bench = _Bench(self, claim, workdir)
        has_failed = False
        try:
            child = asyncio.create_task(self._work(job, claim, workdir))
            try:
                await bench.follow(child)
            finally:
                child.cancel()
                await asyncio.wait({child})
            if not child.cancelled() and (error_ := child.exception()) is not None:
                has_failed = True
                if not isinstance(error_, (ChildFailure, Problem)):
                    raise error_
                log.warning("helping failed: %s", error_)
        finally:
            await asyncio.shield(self._leave(bench, has_failed))
        if bench.makes_room:
            await asyncio.to_thread(self.queue.ask_for_help, job, number, 1)

    async def _work(self, job: Job, claim: ShardClaim, workdir: Path) -> None:
        await asyncio.to_thread(self._job_files.rounds, job.id)
        model = await asyncio.to_thread(self._upload, Kind.MODEL, job.model_id)
        bundle = await asyncio.to_thread(self._upload, Kind.BUNDLE, job.bundle_id)
        files = WorkFiles(model, bundle, self._job_files.checkpoint(job.id))
        number = claim.shard.round
        if job.traceparent is None:
            trace = PhaseTrace(self._tracing, Span())
            await self._children.help(workdir, job, files, number, claim.count, trace)
            return
        attributes: dict[str, Value] = {"job.id": job.id, "round": number}
        with self._tracing.span("help", job.traceparent, **attributes) as span:
            trace = PhaseTrace(self._tracing, span)
            await self._children.help(workdir, job, files, number, claim.count, trace)

    def _upload(self, kind: Kind, upload_id: str) -> Path:
        return self._storage.localise(self._storage.get_upload(kind, upload_id)).path

    async def _leave(self, bench: _Bench, has_failed: bool) -> None:
        """Hand over what is done, and give back what is not; the child has gone."""
        while True:
            try:
                await asyncio.to_thread(bench.close, has_failed)
                break
            except _AWAY as error:
                log.warning("shards wait for database or storage: %s", type(error).__name__)
                await asyncio.sleep(_RETRY_S)
        await asyncio.to_thread(remove, bench.workdir)

    def _claim(self, job_id: str, number: int) -> ShardClaim | None:
        return self.shards.claim(job_id, number, self.name, is_own=False)


class _Bench:
    """What one child is given, and what it gives. Methods but `follow` block."""

    def __init__(self, help_: ShardHelp, claim: ShardClaim, workdir: Path) -> None:
        self._help, self.workdir = help_, workdir
        self._job_id, self._round = claim.shard.job_id, claim.shard.round
        self._claim: ShardClaim | None = claim
        self._done: tuple[ShardClaim, str] | None = None
        self._post = Post(workdir)
        self._post.give(self._round, claim.shard.number)
        self.makes_room = False
        """Whether it left because whole jobs wait."""

    async def follow(self, child: asyncio.Task[None]) -> None:
        """Until the child ends, or is not wanted any more."""
        looked_at = 0.0
        while True:
            done, _ = await asyncio.wait({child}, timeout=_TURN_S)
            if done:
                return
            try:
                await asyncio.to_thread(self._turn)
                if time.monotonic() - looked_at >= _LOOK_S:
                    looked_at = time.monotonic()
                    if not await asyncio.to_thread(self._is_wanted):
                        return
            except _AWAY as error:
                log.warning("shards wait for database or storage: %s", type(error).__name__)
                await asyncio.sleep(_RETRY_S)

    def close(self, has_failed: bool) -> None:
        """Say what is done, and give the rest back; may be repeated."""
        if self._done is not None:
            self._finish(*self._done)
            self._done = None
        if self._claim is not None:
            self._help.shards.give_back(self._claim, has_failed)
            self._claim = None

    def _turn(self) -> None:
        """Keep what the child has scored, and give it the next one."""
        claim = self._claim
        if claim is None or claim.shard.number not in self._post.shards("scored", self._round):
            return
        if self._done is None:
            path = self._post.path("scored", self._round, claim.shard.number)
            sha256 = self._help.files.keep(claim.shard, path)
            path.unlink(missing_ok=True)
            if sha256 is None:
                self._post.over.touch()
                return
            self._done = (claim, sha256)
        self._claim = self._next()
        if self._claim is None:
            self._post.over.touch()  # what is done is said when the child has gone
            return
        self._post.give(self._round, self._claim.shard.number)
        self._finish(*self._done)
        self._done = None

    def _next(self) -> ShardClaim | None:
        if self._help.shards.is_busy():
            self.makes_room = True
            return None
        return self._help.shards.claim(self._job_id, self._round, self._help.name, is_own=False)

    def _finish(self, claim: ShardClaim, sha256: str) -> None:
        if not self._help.shards.finish(claim, sha256):
            self._help.files.drop(claim.shard)

    def _is_wanted(self) -> bool:
        claim = self._claim or (self._done and self._done[0])
        return claim is None or self._help.shards.is_held(claim)
