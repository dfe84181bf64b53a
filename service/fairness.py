"""Whose job is next: owners take turns, whoever has sent how many.

Start-time fair queueing (Goyal, Vin and Cheng, 1996) with jobs of equal weight. Each job gets a
turn when it is accepted: the one after the last of its owner's jobs, but no earlier than the turn
that is being served. The queue serves lower turns first, and jobs of one turn in the order they
came. An owner with a hundred waiting jobs so holds a hundred different turns, and the first job
of another is served among the next.
"""

from __future__ import annotations

import sqlalchemy as sa

from service.database import JOBS
from service.records import UNFINISHED, JobState


def next_turn(connection: sa.Connection, owner: str) -> int:
    """The turn of an owner's next job; at least 1."""
    turn = JOBS.c.turn
    started = JOBS.c.state.in_([JobState.RUNNING, JobState.CANCELLING])
    waiting = JOBS.c.state == JobState.QUEUED
    mine = sa.and_(JOBS.c.state.in_(UNFINISHED), JOBS.c.owner == owner)
    query = sa.select(
        sa.func.max(sa.case((started, turn))),
        sa.func.min(sa.case((waiting, turn))),
        sa.func.max(sa.case((mine, turn))),
    ).where(JOBS.c.state.in_(UNFINISHED))
    served, first_waiting, last_of_mine = connection.execute(query).one()
    now = served or first_waiting or 1
    return int(now if last_of_mine is None else max(now, last_of_mine + 1))
