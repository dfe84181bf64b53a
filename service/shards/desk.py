"""The worker's side of a job that shares its scoring: offers shards, and brings in what they give.

The job's child says which round it scores (`mailbox.py`); the shards are offered in the
database, and places for helpers are put into the queue, behind all jobs. The child takes shards
as well, from the other end, so that a job gets on without any help.
"""

from __future__ import annotations

import asyncio
import logging
import time
from pathlib import Path

import sqlalchemy as sa

from service.engine import JobQueue
from service.objects import StorageUnavailable
from service.records import JobState
from service.results import JobFiles
from service.shards.claims import MAX_SHARDS, ScoreShards, ShardClaim
from service.shards.files import ShardFiles
from service.shards.mailbox import Post
from service.store import JobStore, Ticket
from service.workers import Workers

_TURN_S = 0.05
_LOOK_S = 0.2
_RETRY_S = 0.5

log = logging.getLogger("service.worker")


class ShardDesk:
    """Shares the scorings of a worker's jobs.

    Args:
        name: The worker.
        shards: Shards in the database.
        files: Their files.
        job_files: Checkpoints.
        store: Jobs.
        queue: Takes places for helpers.
        workers: Which workers there are.
    """

    def __init__(
        self,
        name: str,
        shards: ScoreShards,
        files: ShardFiles,
        job_files: JobFiles,
        store: JobStore,
        queue: JobQueue,
        workers: Workers,
    ) -> None:
        self.name = name
        self.shards, self.files, self.job_files = shards, files, job_files
        self._store, self.queue, self.workers = store, queue, workers

    async def serve(self, ticket: Ticket, workdir: Path) -> None:
        """Share the scorings of a job's child, until cancelled."""
        table = _Table(self, ticket, workdir)
        while True:
            try:
                await asyncio.to_thread(table.turn)
                await asyncio.sleep(_TURN_S)
            except (sa.exc.SQLAlchemyError, StorageUnavailable) as error:
                log.warning("shards wait for database or storage: %s", type(error).__name__)
                await asyncio.sleep(_RETRY_S)

    async def until_alone(self, job_id: str) -> None:
        """Wait until nobody helps a job that is to be cancelled."""
        while True:
            try:
                if not await asyncio.to_thread(self._is_helped, job_id):
                    return
                await asyncio.sleep(_TURN_S)
            except sa.exc.SQLAlchemyError as error:
                log.warning("waiting for the database: %s", type(error).__name__)
                await asyncio.sleep(_RETRY_S)

    def close(self, job_id: str) -> None:
        """Forget what was shared of a job that is over; may be repeated."""
        self.shards.forget(job_id)
        self.queue.drop_help(job_id)
        self.files.drop_all(job_id)

    def _is_helped(self, job_id: str) -> bool:
        helpers = self.shards.helpers(job_id)
        if not helpers & {str(worker["name"]) for worker in self.workers.alive()}:
            return False
        job = self._store.find(job_id)
        return job is not None and job.state is JobState.CANCELLING


class _Table:
    """One attempt's round after round. Methods block."""

    def __init__(self, desk: ShardDesk, ticket: Ticket, workdir: Path) -> None:
        self._desk, self._ticket = desk, ticket
        self._job_id = ticket.job.id
        self._workdir = workdir
        self._post = Post(workdir)
        self._round = 0
        self._claims: dict[int, ShardClaim] = {}
        self._brought: set[int] = set()
        self._looked_at = 0.0

    def turn(self) -> None:
        """Look once at what there is to do."""
        found = self._post.round()
        if found is None:
            return
        number, count = found
        if number != self._round:
            self._open(number, count)
        self._collect()
        if self._post.wanted.exists():
            self._give()
        if time.monotonic() - self._looked_at >= _LOOK_S:
            self._looked_at = time.monotonic()
            self._bring()
            self._free()

    def _open(self, number: int, count: int) -> None:
        if not (number >= 1 and 1 <= count <= MAX_SHARDS):
            raise ValueError(f"the child offers {count} shards of round {number}")
        desk, job_id = self._desk, self._job_id
        desk.job_files.save_checkpoint(job_id, 0)  # helpers go on from there
        desk.files.drop_all(job_id, but_of_round=number)
        desk.queue.drop_help(job_id)
        waiting = desk.shards.offer(job_id, number, count)
        places = min(len(waiting) - 1, desk.workers.slots() - 1)
        desk.queue.ask_for_help(self._ticket.job, number, places)
        self._round, self._claims, self._brought = number, {}, set()

    def _collect(self) -> None:
        """Keep what the child has scored."""
        for shard in self._post.shards("scored", self._round):
            path = self._post.path("scored", self._round, shard)
            claim = self._claims.get(shard)
            try:
                if claim is None:
                    path.unlink()  # it was refused from another, and scored again
                    continue
                sha256 = self._desk.files.keep(claim.shard, path)
            except FileNotFoundError:  # the child is at its next round
                return
            self._brought.add(shard)
            if sha256 is not None:
                self._desk.shards.finish(claim, sha256)
            self._claims.pop(shard)
            path.unlink(missing_ok=True)

    def _give(self) -> None:
        """Give the child a shard, if there is one that nobody has."""
        desk = self._desk
        claim = desk.shards.claim(self._job_id, self._round, desk.name, is_own=True)
        if claim is not None:
            self._claims[claim.shard.number] = claim
            self._post.give(self._round, claim.shard.number)

    def _bring(self) -> None:
        """Bring the child what others have scored."""
        desk = self._desk
        for shard, sha256 in desk.shards.done(self._job_id, self._round).items():
            if shard.number in self._brought:
                continue
            fetched = self._workdir / "fetched-shard"
            if desk.files.fetch(shard, sha256, fetched):
                fetched.rename(self._post.path("arrived", self._round, shard.number))
                self._brought.add(shard.number)
            else:
                log.warning("the file of %s is lost or damaged", shard)
                desk.shards.refuse(shard, sha256)

    def _free(self) -> None:
        """Take shards from workers that have died."""
        desk = self._desk
        helpers = desk.shards.helpers(self._job_id)
        if helpers:
            alive = {str(worker["name"]) for worker in desk.workers.alive()}
            if helpers - alive:
                desk.shards.take_from(self._job_id, helpers - alive)
