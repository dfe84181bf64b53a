"""The database of jobs: a file on one machine, or PostgreSQL for many.

Holds the tables of this service; the job engine (`service.engine`) keeps its own in the same
database, so that a job and its place in the queue are written in one transaction.

SQLite runs in WAL mode, where readers and one writer do not wait for each other; a write takes
the lock at its start and never finds the database changed in the middle. PostgreSQL locks the
rows that a transaction has selected for update.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.dialects import postgresql, sqlite

_CREATE_S = 30.0

TABLES = sa.MetaData()

JOBS = sa.Table(
    "jobs",
    TABLES,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("created_us", sa.BigInteger, nullable=False),
    sa.Column("state", sa.Text, nullable=False, index=True),
    sa.Column("workflow_id", sa.Text, nullable=False),
    sa.Column("model_id", sa.Text, nullable=False, index=True),
    sa.Column("bundle_id", sa.Text, nullable=False, index=True),
    sa.Column("filename", sa.Text, nullable=False),
    sa.Column("options", sa.JSON, nullable=False),
    sa.Column("metadata", sa.JSON, nullable=False),
    sa.Column("fingerprint", sa.Text, nullable=False),
    sa.Column("times", sa.JSON, nullable=False),
    sa.Column("progress", sa.JSON),
    sa.Column("failure", sa.JSON),
    sa.Column("results", sa.JSON, nullable=False),
    # The attempt that may write; the others are fenced off.
    sa.Column("attempts", sa.Integer, nullable=False),
    # Attempts since a round was last finished, and the rounds finished by then.
    sa.Column("stalled", sa.Integer, nullable=False),
    sa.Column("rounds", sa.Integer, nullable=False),
    sa.Column("last_failure", sa.JSON),
    sa.Column("started_at", sa.Float),
    sa.Column("expires_at", sa.Float, index=True),
    sa.Column("last_event", sa.Integer, nullable=False),
    sa.Column("owner", sa.Text, nullable=False, server_default="", index=True),
    # Its turn among the waiting: see `service.fairness`.
    sa.Column("webhook_url", sa.Text),
    sa.Column("result_bytes", sa.BigInteger, nullable=False, server_default="0"),
    sa.Column("turn", sa.Integer, nullable=False, server_default="1"),
    # What kind of work it is, and what that needs beside model, bundle and options.
    sa.Column("kind", sa.Text, nullable=False, server_default="prune"),
    sa.Column("task", sa.JSON),
    # The span that its traces belong to, in the form of W3C Trace Context.
    sa.Column("traceparent", sa.Text),
    sa.Index("jobs_by_age", "created_us", "id"),
)

SESSIONS = sa.Table(
    "score_sessions",
    TABLES,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("owner", sa.Text, nullable=False, index=True),
    sa.Column("model_id", sa.Text, nullable=False, index=True),
    sa.Column("options", sa.JSON, nullable=False),
    sa.Column("created_at", sa.Text, nullable=False),
    sa.Column("used_at", sa.Float, nullable=False),
)

PIECES = sa.Table(
    "score_pieces",
    TABLES,
    sa.Column("session_id", sa.Text, primary_key=True),
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("source", sa.Text, nullable=False),
    sa.Column("size_bytes", sa.BigInteger, nullable=False),
    sa.Column("added_at", sa.Text, nullable=False),
    sa.Column("state", sa.LargeBinary, nullable=False),
)

EVENTS = sa.Table(
    "job_events",
    TABLES,
    sa.Column("job_id", sa.Text, primary_key=True),
    sa.Column("number", sa.Integer, primary_key=True),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("data", sa.JSON, nullable=False),
)

LABELS = sa.Table(
    "job_labels",
    TABLES,
    sa.Column("job_id", sa.Text, primary_key=True),
    sa.Column("key", sa.Text, primary_key=True),
    sa.Column("value", sa.Text, nullable=False),
    sa.Index("job_labels_by_pair", "key", "value"),
)

KEYS = sa.Table(
    "idempotency_keys",
    TABLES,
    sa.Column("digest", sa.Text, primary_key=True),
    sa.Column("fingerprint", sa.Text, nullable=False),
    sa.Column("job_id", sa.Text, nullable=False, index=True),
)

API_KEYS = sa.Table(
    "api_keys",
    TABLES,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("owner", sa.Text, nullable=False),
    sa.Column("scope", sa.Text, nullable=False),
    sa.Column("digest", sa.Text, nullable=False),
    sa.Column("max_requests_per_minute", sa.Integer),
    sa.Column("max_jobs", sa.Integer),
    sa.Column("created_at", sa.Text, nullable=False),
    sa.Column("revoked_at", sa.Text),
)

HOLDERS = sa.Table(
    "upload_holders",
    TABLES,
    sa.Column("kind", sa.Text, primary_key=True),
    sa.Column("upload_id", sa.Text, primary_key=True),
    sa.Column("owner", sa.Text, primary_key=True),
    sa.Column("filename", sa.Text, nullable=False),
    sa.Column("created_at", sa.Text, nullable=False),
    sa.Column("size_bytes", sa.BigInteger, nullable=False, server_default="0"),
)

WEBHOOKS = sa.Table(
    "webhook_messages",
    TABLES,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("job_id", sa.Text, nullable=False),
    sa.Column("owner", sa.Text, nullable=False),
    sa.Column("url", sa.Text, nullable=False),
    sa.Column("body", sa.Text, nullable=False),
    sa.Column("attempts", sa.Integer, nullable=False),
    sa.Column("due_at", sa.Float, nullable=False, index=True),
)

BEATS = sa.Table(
    "workers",
    TABLES,
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("beat_at", sa.Float, nullable=False),
    sa.Column("slots", sa.Integer, nullable=False),
    sa.Column("gpu_used_bytes", sa.BigInteger),
    sa.Column("gpu_total_bytes", sa.BigInteger),
)

SCORE_SHARDS = sa.Table(
    "score_shards",
    TABLES,
    sa.Column("job_id", sa.Text, primary_key=True),
    sa.Column("round", sa.Integer, primary_key=True),
    sa.Column("shard", sa.Integer, primary_key=True),
    # Shards of the round.
    sa.Column("shards", sa.Integer, nullable=False),
    # Who works on it: the worker, and a word of its own; `is_own` for the job's own child.
    sa.Column("holder", sa.Text),
    sa.Column("claim", sa.Text),
    sa.Column("is_own", sa.Boolean, nullable=False),
    sa.Column("failures", sa.Integer, nullable=False),
    # Digest of its file, once it is done.
    sa.Column("sha256", sa.Text),
)

PHASES = sa.Table(
    "phase_seconds",
    TABLES,
    sa.Column("phase", sa.Text, primary_key=True),
    sa.Column("jobs", sa.BigInteger, nullable=False),
    sa.Column("seconds", sa.Float, nullable=False),
)

ENDED = sa.Table(
    "ended_jobs",
    TABLES,
    sa.Column("state", sa.Text, primary_key=True),
    sa.Column("code", sa.Text, primary_key=True),
    sa.Column("bucket", sa.Integer, primary_key=True),
    sa.Column("jobs", sa.BigInteger, nullable=False),
    sa.Column("seconds", sa.Float, nullable=False),
)


class Database:
    """Connections to the database, and its schema.

    Args:
        url: `sqlite:////absolute/path` or `postgresql://user@host/name`.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self.is_sqlite = url.startswith("sqlite:")
        arguments: dict[str, Any] = {"pool_pre_ping": not self.is_sqlite, "pool_timeout": 30}
        if not self.is_sqlite:
            arguments["connect_args"] = {"connect_timeout": 5}
        driver_url = sa.make_url(url)
        if not self.is_sqlite:
            driver_url = driver_url.set(drivername="postgresql+psycopg")
        self.engine = sa.create_engine(
            driver_url, pool_size=8, max_overflow=8, hide_parameters=True, **arguments
        )
        if self.is_sqlite:
            event.listen(self.engine, "connect", _prepare_sqlite)

    def create(self) -> None:
        """Make the file, where it is one, and the tables that are missing."""
        if self.is_sqlite:
            path = Path(str(sa.make_url(self.url).database))
            path.parent.mkdir(parents=True, exist_ok=True)
            # Who can write it can put work into the queue: it is the owner's alone.
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        end = time.monotonic() + _CREATE_S
        while True:
            try:
                self._create_tables()
                return
            except sa.exc.OperationalError:
                # Another process switches the new file to WAL, which takes it for itself; or
                # the server is still starting.
                if time.monotonic() > end:
                    raise
                time.sleep(0.1)

    def _create_tables(self) -> None:
        with self.write() as connection:
            if not self.is_sqlite:
                # Processes that start together take turns.
                connection.execute(sa.text("SELECT pg_advisory_xact_lock(7166530)"))
            TABLES.create_all(connection)
            _add_missing_columns(connection)

    def close(self) -> None:
        """Close all connections."""
        self.engine.dispose()

    @contextmanager
    def read(self) -> Iterator[sa.Connection]:
        """A connection to read with."""
        with self.engine.connect() as connection:
            yield connection

    @contextmanager
    def write(self) -> Iterator[sa.Connection]:
        """A transaction: committed at the end, rolled back when an exception leaves it."""
        with self.engine.begin() as connection:
            if self.is_sqlite:
                connection.exec_driver_sql("BEGIN IMMEDIATE")
            yield connection

    def upsert(self, table: sa.Table, row: dict[str, Any], changes: dict[str, Any]) -> sa.Insert:
        """Insert a row, or make changes to the one that has its key."""
        statement = (sqlite.insert if self.is_sqlite else postgresql.insert)(table).values(**row)
        return statement.on_conflict_do_update(index_elements=table.primary_key, set_=changes)

    def lock(self, connection: sa.Connection, name: str) -> None:
        """Exclude, to the end of a transaction, others that lock this name.

        SQLite has one writer at a time anyway.
        """
        if not self.is_sqlite:
            statement = sa.text("SELECT pg_advisory_xact_lock(hashtextextended(:name, 0))")
            connection.execute(statement, {"name": name})

    def clock(self, connection: sa.Connection) -> float:
        """Seconds since the epoch, by the one clock that all processes share."""
        if self.is_sqlite:
            return time.time()
        found = connection.execute(sa.text("SELECT extract(epoch FROM clock_timestamp())"))
        return float(found.scalar_one())


def _add_missing_columns(connection: sa.Connection) -> None:
    """Bring tables of an earlier version up to date: later columns have a default or none at all.

    `create_all` leaves tables that are there as they are.
    """
    found = sa.inspect(connection)
    preparer = connection.dialect.identifier_preparer
    for table in TABLES.sorted_tables:
        known = {column["name"] for column in found.get_columns(table.name)}
        for column in table.columns:
            if column.name in known:
                continue
            definition = sa.schema.CreateColumn(column).compile(dialect=connection.dialect)
            name = preparer.format_table(table)
            connection.execute(sa.text(f"ALTER TABLE {name} ADD COLUMN {definition}"))
            for index in table.indexes:
                if column.name in index.columns:
                    index.create(connection, checkfirst=True)


def _prepare_sqlite(connection: Any, _: Any) -> None:
    connection.isolation_level = "IMMEDIATE"
    connection.execute("PRAGMA busy_timeout=30000")
    connection.execute("PRAGMA journal_mode=WAL")
