"""API keys in the database, the limits on them, and whose job is next."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from service.database import TABLES, Database
from service.fairness import next_turn
from service.keys import KeyNameError, KeyStore, Scope
from service.rates import RateLimiter
from tests.support.server import REPOSITORY


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    database = Database(f"sqlite:///{tmp_path / 'jobs.sqlite'}")
    database.create()
    yield database
    database.close()


@pytest.fixture
def keys(database: Database) -> KeyStore:
    return KeyStore(database)


def test_a_token_finds_its_key(keys: KeyStore) -> None:
    assert not keys.any()
    key, token = keys.create("ci", Scope.SUBMIT)
    assert keys.any()
    assert keys.find(token) == key
    assert key.owner == "ci"


@pytest.mark.parametrize("change", ["", "x", " "])
def test_other_tokens_find_nothing(keys: KeyStore, change: str) -> None:
    _, token = keys.create("ci", Scope.SUBMIT)
    wrong = token[:-1] + ("A" if token[-1] != "A" else "B")
    for text in (wrong + change, change, token + change if change else token[:-1]):
        assert keys.find(text) is None


def test_only_a_digest_is_in_the_database(keys: KeyStore, database: Database) -> None:
    _, token = keys.create("ci", Scope.SUBMIT)
    secret = token.split("_", 2)[2]
    path = Path(str(sa.make_url(database.url).database))
    database.close()
    for file in path.parent.glob("jobs.sqlite*"):
        assert secret.encode() not in file.read_bytes()


def test_a_revoked_key_is_worthless_and_leaves_the_door_closed(keys: KeyStore) -> None:
    key, token = keys.create("ci", Scope.SUBMIT)
    keys.revoke("ci")
    assert keys.find(token) is None
    assert keys.any()
    assert [k.revoked_at is None for k in keys.all()] == [False]
    again, _ = keys.create("ci", Scope.READ)
    keys.revoke(again.id)
    with pytest.raises(KeyNameError):
        keys.revoke(key.id)


def test_a_name_is_given_once(keys: KeyStore) -> None:
    keys.create("ci", Scope.SUBMIT)
    for name in ("ci", "", "../x", "a" * 64):
        with pytest.raises(KeyNameError):
            keys.create(name, Scope.READ)


@pytest.mark.parametrize(
    ("has", "needs", "enough"),
    [
        ("read", "read", True),
        ("read", "submit", False),
        ("submit", "read", True),
        ("submit", "admin", False),
        ("admin", "submit", True),
    ],
)
def test_scopes_include_those_before_them(has: str, needs: str, enough: bool) -> None:
    assert Scope(has).includes(Scope(needs)) is enough


def test_a_rate_is_held_and_recovers() -> None:
    at = 0.0
    rates = RateLimiter(lambda: at)
    sent = sum(rates.take("a", 60) == 0 for _ in range(100))
    assert sent == 10, "the burst of ten seconds"
    assert rates.take("a", 60) == 1
    assert rates.take("b", 60) == 0, "another key has its own"
    at += 5.0
    assert sum(rates.take("a", 60) == 0 for _ in range(100)) == 5


def waiting_job(connection: sa.Connection, owner: str, state: str = "queued") -> int:
    turn = next_turn(connection, owner)
    row: dict[str, Any] = {c.name: "" for c in TABLES.tables["jobs"].columns}
    row |= {name: {} for name in ("options", "metadata", "times", "results")}
    row |= dict.fromkeys(("progress", "failure", "last_failure", "started_at", "expires_at"))
    row |= dict.fromkeys(("attempts", "stalled", "rounds", "last_event"), 0)
    count = connection.execute(sa.select(sa.func.count()).select_from(TABLES.tables["jobs"]))
    row |= {"id": f"j{count.scalar()}", "created_us": 1, "owner": owner, "turn": turn}
    connection.execute(TABLES.tables["jobs"].insert().values({**row, "state": state}))
    return turn


def test_owners_take_turns(database: Database) -> None:
    with database.write() as connection:
        assert [waiting_job(connection, "many") for _ in range(5)] == [1, 2, 3, 4, 5]
        assert [waiting_job(connection, "few") for _ in range(2)] == [1, 2]
        connection.execute(sa.text("UPDATE jobs SET state = 'succeeded' WHERE turn <= 2"))
        connection.execute(sa.text("UPDATE jobs SET state = 'running' WHERE turn = 3"))
        assert waiting_job(connection, "late") == 3, "no credit for having been away"
        assert waiting_job(connection, "few") == 3
        assert waiting_job(connection, "many") == 6


def test_a_database_of_an_earlier_version_gets_the_new_columns(tmp_path: Path) -> None:
    path = tmp_path / "jobs.sqlite"
    database = Database(f"sqlite:///{path}")
    database.create()
    database.close()
    with sqlite3.connect(path) as old:
        old.execute("DROP INDEX ix_jobs_owner")
        old.execute("ALTER TABLE jobs DROP COLUMN owner")
        old.execute("ALTER TABLE jobs DROP COLUMN turn")
    old.close()
    database = Database(f"sqlite:///{path}")
    database.create()
    with database.write() as connection:
        assert waiting_job(connection, "") == 1
    database.close()


def serve(tmp_path: Path, *arguments: str, **settings: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "DATA_DIR": str(tmp_path), "PORT": "0", **settings}
    return subprocess.run(
        [sys.executable, "-m", "service", *arguments],
        cwd=REPOSITORY,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_keys_are_managed_from_the_command_line(tmp_path: Path) -> None:
    made = serve(tmp_path, "keys", "create", "ci", "--scope", "read", "--max-jobs", "3")
    assert made.returncode == 0, made.stderr
    token = made.stdout.strip()
    listed = serve(tmp_path, "keys", "list").stdout
    assert "ci" in listed
    assert token.split("_")[1] in listed
    assert token.split("_", 2)[2] not in listed
    again = serve(tmp_path, "keys", "create", "ci")
    assert again.returncode == 2
    assert "There is a key named 'ci'" in again.stderr
    assert serve(tmp_path, "keys", "revoke", "ci").returncode == 0


def test_without_keys_a_server_is_not_put_where_others_reach_it(tmp_path: Path) -> None:
    done = serve(tmp_path, HOST="192.0.2.1")
    assert done.returncode == 2
    assert "there are no API keys" in done.stderr
    assert "keys create" in done.stderr
    # Past that check; an address that is not this machine's cannot be bound.
    for more in ({"ALLOW_UNAUTHENTICATED": "true"}, {}):
        if not more:
            assert serve(tmp_path, "keys", "create", "ci").returncode == 0
        done = serve(tmp_path, HOST="192.0.2.1", **more)
        assert "Cannot listen on 192.0.2.1" in done.stderr
