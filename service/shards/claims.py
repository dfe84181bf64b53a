"""The shards of a job's scoring, in the database: which are waiting, with whom, and done.

The worker that runs a job offers the shards of a round. Workers that have nothing else to do take
them, and so does the job's own child: nobody waits for anybody. What a shard came to is a file of
the job's (`results.py`); a row here says that it is there, and with which digest, so that a job
which is begun again does not score it a second time.

A shard is *held* by a claim, a word that nobody else knows. It is given back when its holder
fails, and taken from one that has died; whoever still works on it then finds the claim gone.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable
from dataclasses import dataclass

import sqlalchemy as sa

from service.database import JOBS, SCORE_SHARDS, Database
from service.records import JobState

MAX_SHARDS = 256
"""Most shards of a scoring."""

_MAX_FAILURES = 2
"""Times that others may fail at a shard before it is left to the job's own child."""


@dataclass(frozen=True)
class Shard:
    """One shard of a job's round.

    Attributes:
        job_id: The job.
        round: The round, from 1.
        number: Which shard of it, from 0.
    """

    job_id: str
    round: int
    number: int

    @property
    def file_name(self) -> str:
        """Name of the file that says what it came to."""
        return f"round-{self.round}-shard-{self.number}.npz"


@dataclass(frozen=True)
class ShardClaim:
    """The right to say what a shard came to.

    Attributes:
        shard: Which.
        count: Shards of its round.
        word: Known to its holder alone.
    """

    shard: Shard
    count: int
    word: str


class ScoreShards:
    """Methods block on the database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def offer(self, job_id: str, number: int, count: int) -> list[Shard]:
        """Offer a round's shards; those that are not done.

        What was done of the same round before stays, claims that the job's own child held are
        void, and shards of other rounds go.
        """
        table = SCORE_SHARDS
        mine = table.c.job_id == job_id
        with self._database.write() as connection:
            self._database.lock(connection, f"shards of {job_id}")
            others = sa.or_(table.c.round != number, table.c.shards != count)
            connection.execute(table.delete().where(mine, others))
            query = sa.select(table.c.shard, table.c.sha256).where(mine)
            known = {row.shard: row.sha256 for row in connection.execute(query)}
            new = [shard for shard in range(count) if shard not in known]
            for shard in new:
                row = {"job_id": job_id, "round": number, "shard": shard, "shards": count}
                connection.execute(table.insert().values(**row, is_own=False, failures=0))
            own = sa.and_(mine, table.c.is_own, table.c.sha256.is_(None))
            connection.execute(table.update().where(own).values(claim=None, holder=None))
        return [Shard(job_id, number, n) for n in range(count) if known.get(n) is None]

    def claim(self, job_id: str, number: int, holder: str, is_own: bool) -> ShardClaim | None:
        """Take a shard of a round that nobody has; None when there is none, or none is wanted.

        The job's own child begins at the end, others at the front.

        Args:
            job_id: The job, which has to be running.
            number: The round.
            holder: The worker.
            is_own: Whether its child is the job's own.
        """
        table = SCORE_SHARDS
        running = sa.select(JOBS.c.id).where(JOBS.c.id == job_id, JOBS.c.state == JobState.RUNNING)
        free = sa.and_(
            table.c.job_id == job_id,
            table.c.round == number,
            table.c.claim.is_(None),
            table.c.sha256.is_(None),
            sa.exists(running),
        )
        if not is_own:
            free = sa.and_(free, table.c.failures < _MAX_FAILURES)
        order = table.c.shard.desc() if is_own else table.c.shard
        with self._database.read() as connection:
            waiting = connection.execute(sa.select(table.c.shard).where(free).order_by(order))
            shards = [Shard(job_id, number, shard) for shard in waiting.scalars()]
        taken = (self._take(s, sa.and_(_is(s), free), holder, is_own) for s in shards)
        return next((claim for claim in taken if claim is not None), None)

    def is_held(self, claim: ShardClaim) -> bool:
        """Whether a shard is still its holder's, and its job still running."""
        query = (
            sa.select(SCORE_SHARDS.c.claim)
            .join(JOBS, JOBS.c.id == SCORE_SHARDS.c.job_id)
            .where(_is(claim.shard), JOBS.c.state == JobState.RUNNING)
        )
        with self._database.read() as connection:
            return bool(connection.execute(query).scalar() == claim.word)

    def is_busy(self) -> bool:
        """Whether whole jobs wait for a place: they come before help."""
        query = sa.select(JOBS.c.id).where(JOBS.c.state == JobState.QUEUED).limit(1)
        with self._database.read() as connection:
            return connection.execute(query).first() is not None

    def finish(self, claim: ShardClaim, sha256: str) -> bool:
        """Say that a shard's file is there; whether the claim still held."""
        held = sa.and_(_is(claim.shard), SCORE_SHARDS.c.claim == claim.word)
        done = {"sha256": sha256, "claim": None, "holder": None}
        with self._database.write() as connection:
            return bool(connection.execute(SCORE_SHARDS.update().where(held).values(done)).rowcount)

    def give_back(self, claim: ShardClaim, has_failed: bool) -> None:
        """Let somebody else have a shard."""
        held = sa.and_(_is(claim.shard), SCORE_SHARDS.c.claim == claim.word)
        failures = SCORE_SHARDS.c.failures + int(has_failed)
        free = {"claim": None, "holder": None, "failures": failures}
        with self._database.write() as connection:
            connection.execute(SCORE_SHARDS.update().where(held).values(free))

    def refuse(self, shard: Shard, sha256: str) -> None:
        """Have a shard scored again whose file is not what it should be."""
        done = sa.and_(_is(shard), SCORE_SHARDS.c.sha256 == sha256)
        with self._database.write() as connection:
            connection.execute(SCORE_SHARDS.update().where(done).values(sha256=None))

    def done(self, job_id: str, number: int) -> dict[Shard, str]:
        """Shards of a round that are done, with the digests of their files."""
        table = SCORE_SHARDS
        query = sa.select(table.c.shard, table.c.sha256).where(
            table.c.job_id == job_id, table.c.round == number, table.c.sha256.is_not(None)
        )
        with self._database.read() as connection:
            rows = connection.execute(query).all()
        return {Shard(job_id, number, row.shard): str(row.sha256) for row in rows}

    def helpers(self, job_id: str) -> set[str]:
        """Workers that hold shards of a job for others."""
        table = SCORE_SHARDS
        query = sa.select(table.c.holder).where(
            table.c.job_id == job_id, table.c.claim.is_not(None), sa.not_(table.c.is_own)
        )
        with self._database.read() as connection:
            return {str(holder) for holder in connection.execute(query).scalars()}

    def take_from(self, job_id: str, holders: Iterable[str]) -> None:
        """Give back what workers hold that have died."""
        table = SCORE_SHARDS
        theirs = sa.and_(
            table.c.job_id == job_id, table.c.holder.in_(list(holders)), sa.not_(table.c.is_own)
        )
        with self._database.write() as connection:
            connection.execute(table.update().where(theirs).values(claim=None, holder=None))

    def release(self, holder: str) -> None:
        """Give back what a worker of this name held that has just started anew."""
        table = SCORE_SHARDS
        with self._database.write() as connection:
            theirs = table.update().where(table.c.holder == holder)
            connection.execute(theirs.values(claim=None, holder=None))

    def forget(self, job_id: str) -> None:
        """Forget a job's shards; whoever works on one finds out."""
        with self._database.write() as connection:
            connection.execute(SCORE_SHARDS.delete().where(SCORE_SHARDS.c.job_id == job_id))

    def _take(
        self, shard: Shard, free: sa.ColumnElement[bool], holder: str, is_own: bool
    ) -> ShardClaim | None:
        word = secrets.token_hex(12)
        values = {"claim": word, "holder": holder, "is_own": is_own}
        count = sa.select(SCORE_SHARDS.c.shards).where(_is(shard))
        with self._database.write() as connection:
            if not connection.execute(SCORE_SHARDS.update().where(free).values(values)).rowcount:
                return None
            return ShardClaim(shard, int(connection.execute(count).scalar_one()), word)


def _is(shard: Shard) -> sa.ColumnElement[bool]:
    table = SCORE_SHARDS
    return sa.and_(
        table.c.job_id == shard.job_id,
        table.c.round == shard.round,
        table.c.shard == shard.number,
    )
