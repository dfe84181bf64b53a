"""The job engine: DBOS, and all that this service knows about it.

DBOS keeps a queue in the database of jobs, hands each entry to one worker, and gives it out again
when a worker that had it starts anew. What a job is, how it is cancelled and how often it is
attempted is decided by this service (`store.py`); an entry here is only the name of a job.

DBOS does not notice a worker that never returns. `take_over` does: it gives back to the queue
what workers without a heartbeat hold, by the same guarded update as DBOS's own recovery. That
update names columns of DBOS's tables, so the version is pinned and a test runs it.

Entries are JSON. DBOS would unpickle an entry that says it is a pickle: whoever can write to the
database can run code here, so the database is the service's alone.
"""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import Awaitable, Callable, Collection
from datetime import UTC, datetime

import sqlalchemy as sa
from dbos import DBOS, DBOSClient, DBOSConfig, DBOSPortableJSONSerializer

from service.database import Database
from service.logs import adopt
from service.records import Job

_APPLICATION = "onnx-filter-pruner"
# Raised when queued entries of an older version cannot be run any more, and only then: entries
# are given to workers of the same version alone.
_VERSION = "jobs-1"
_QUEUE = "jobs"
_WORKFLOW = "prune"
_HELP = "help"
# Behind all jobs, whatever their turn.
_LAST = 2**30
_POLL_S = 0.2
# Attempts are counted by the service, which knows whether a job got further.
_UNLIMITED = 1_000_000
_TAKEN_AT_ONCE = 200
_KEPT_S = 3600.0
_FORGOTTEN_AT_ONCE = 500

RunJob = Callable[[str, str], Awaitable[None]]
"""Does the work of a job: called with its id and its place in the queue."""

Help = Callable[[str, int], Awaitable[None]]
"""Helps with the scoring of a job that runs elsewhere: called with its id and the round."""

_run_job: RunJob | None = None
_help: Help | None = None

logging.getLogger("dbos").setLevel(logging.WARNING)


def migrate(database: Database) -> None:
    """Make the engine's tables; waits for another process that does."""
    DBOS.migrate(database.url)


class JobQueue:
    """The queue, as those see it who put jobs into it."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._client = DBOSClient(
            system_database_engine=database.engine,
            serializer=DBOSPortableJSONSerializer(),
            application_name=_APPLICATION,
            lazy=True,
        )

    def put(self, connection: sa.Connection, job: Job) -> None:
        """Put a job into the queue, as part of a transaction."""
        options = {
            "workflow_name": _WORKFLOW,
            "queue_name": _QUEUE,
            "workflow_id": job.workflow_id,
            "app_version": _VERSION,
            "priority": job.turn,
        }
        self._client.enqueue_in_transaction(connection, options, job.id)  # type: ignore[arg-type]

    def ask_for_help(self, job: Job, number: int, places: int) -> None:
        """Put places into the queue, behind all jobs, for workers that help with a round."""
        if places <= 0:
            return
        with self._database.write() as connection:
            for _ in range(places):
                options = {
                    "workflow_name": _HELP,
                    "queue_name": _QUEUE,
                    "workflow_id": f"{_help_prefix(job.id)}{secrets.token_hex(8)}",
                    "app_version": _VERSION,
                    "priority": _LAST,
                }
                self._client.enqueue_in_transaction(connection, options, job.id, number)  # type: ignore[arg-type]

    def drop_help(self, job_id: str) -> None:
        """Remove the places that nobody has taken."""
        schema = "" if self._database.is_sqlite else "dbos."
        unused = sa.text(
            f"DELETE FROM {schema}workflow_status WHERE status = 'ENQUEUED' AND name = :name "
            "AND substr(workflow_uuid, 1, :length) = :prefix"
        )
        prefix = _help_prefix(job_id)
        values = {"name": _HELP, "length": len(prefix), "prefix": prefix}
        with self._database.write() as connection:
            connection.execute(unused, values)

    def forget_finished(self) -> int:
        """Remove places that are done with since an hour; how many."""
        done = self._client.list_workflows(
            status=["SUCCESS", "ERROR", "CANCELLED"],
            completed_before=datetime.fromtimestamp(time.time() - _KEPT_S, UTC).isoformat(),
            limit=_FORGOTTEN_AT_ONCE,
            load_input=False,
            load_output=False,
        )
        if done:
            self._client.delete_workflows([workflow.workflow_id for workflow in done])
        return len(done)


class Engine:
    """The queue, as a worker sees it.

    Args:
        database: The database of jobs, with the engine's tables in it.
        name: The worker's name, which no other living worker has.
        slots: Jobs it runs at the same time.
    """

    def __init__(self, database: Database, name: str, slots: int) -> None:
        self._database = database
        self._name = name
        self._slots = slots
        self._schema = "" if database.is_sqlite else "dbos."

    def start(self, run_job: RunJob, help_: Help) -> None:
        """Take jobs from the queue from now on, those first that this worker left unfinished.

        Where there are none, help with those of others.
        """
        global _run_job, _help
        _run_job, _help = run_job, help_
        config: DBOSConfig = {
            "name": _APPLICATION,
            "system_database_url": self._database.url,
            "executor_id": self._name,
            "application_version": _VERSION,
            "serializer": DBOSPortableJSONSerializer(),
            "log_level": "WARNING",
            "enable_otlp": False,
        }
        DBOS(config=config)
        DBOS.listen_queues([_QUEUE])
        adopt("dbos")
        DBOS.launch()
        DBOS.register_queue(
            _QUEUE,
            worker_concurrency=self._slots,
            polling_interval_sec=_POLL_S,
            on_conflict="always_update",
        )

    def take_over(self, alive: Collection[str]) -> list[str]:
        """Give back to the queue what workers other than these hold; the places."""
        held = sa.text(
            f"SELECT workflow_uuid, executor_id FROM {self._schema}workflow_status "
            "WHERE status = 'PENDING' AND name IN (:name, :help) LIMIT :limit"
        )
        give_back = sa.text(
            f"UPDATE {self._schema}workflow_status SET status = 'ENQUEUED', owner_xid = NULL, "
            "started_at_epoch_ms = NULL, queue_name = COALESCE(queue_name, :queue) "
            "WHERE workflow_uuid = :id AND status = 'PENDING' AND executor_id = :holder"
        )
        with self._database.read() as connection:
            values = {"name": _WORKFLOW, "help": _HELP, "limit": _TAKEN_AT_ONCE}
            rows = connection.execute(held, values).all()
        taken = []
        for workflow_id, holder in rows:
            if holder in alive:
                continue
            with self._database.write() as connection:
                place = {"queue": _QUEUE, "id": workflow_id, "holder": holder}
                if connection.execute(give_back, place).rowcount:
                    taken.append(str(workflow_id))
        return taken


@DBOS.workflow(name=_WORKFLOW, max_recovery_attempts=_UNLIMITED)
async def _prune(job_id: str) -> None:
    await _work(job_id)


@DBOS.step(name="work")
async def _work(job_id: str) -> None:
    assert _run_job is not None
    workflow_id = DBOS.workflow_id
    assert workflow_id is not None
    await _run_job(job_id, workflow_id)


@DBOS.workflow(name=_HELP, max_recovery_attempts=_UNLIMITED)
async def _help_with(job_id: str, number: int) -> None:
    await _help_work(job_id, number)


@DBOS.step(name="help")
async def _help_work(job_id: str, number: int) -> None:
    assert _help is not None
    await _help(job_id, number)


def _help_prefix(job_id: str) -> str:
    return f"{job_id}~help~"
