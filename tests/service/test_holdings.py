"""Who holds which file, on both databases, while everyone takes hold and lets go at once."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from service.access import Caller
from service.database import Database
from service.holdings import Holdings
from service.keys import KeyStore, Scope
from service.problems import Problem
from service.quotas import Quotas, stored_bytes, stored_bytes_of
from service.sessions import SessionStore
from service.settings import Settings
from service.sinks import ReceivedFile
from service.storage import Kind, Storage
from service.store import JobStore
from service.workers import Workers
from tests.support.postgres import needs_postgres, running_postgres

CONTENT = b"x" * 1000


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=needs_postgres)])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    """A database as an earlier version has left it."""
    if request.param == "sqlite":
        yield from reopened(f"sqlite:///{tmp_path / 'jobs.sqlite'}")
    else:
        with running_postgres() as url:
            yield from reopened(url)


def reopened(url: str) -> Iterator[Database]:
    database = Database(url)
    database.create()
    with database.write() as connection:
        connection.execute(sa.text("DROP TABLE api_keys"))
        connection.execute(sa.text("ALTER TABLE upload_holders DROP COLUMN size_bytes"))
        connection.execute(sa.text("ALTER TABLE workers DROP COLUMN gpu_total_bytes"))
        connection.execute(sa.text("ALTER TABLE jobs DROP COLUMN webhook_url"))
    database.create()
    yield database
    database.close()


class Store:
    """Holdings of small files on a disk of their own."""

    def __init__(self, database: Database, folder: Path) -> None:
        self.storage = Storage(folder)
        self.storage.open()
        self.sessions = SessionStore(database)
        quotas = Quotas(Settings(max_stored_bytes_per_owner=1500))
        self.holdings = Holdings(
            database, self.storage, JobStore(database, 10.0), self.sessions, quotas
        )

    def add(self, owner: str, content: bytes = CONTENT) -> bool:
        path = self.storage.new_temporary() / "body"
        path.write_bytes(content)
        sha256 = hashlib.sha256(content).hexdigest()
        received = ReceivedFile(path, "m.onnx", sha256, len(content))
        upload, is_new = self.holdings.add(caller(owner), Kind.MODEL, received)
        assert upload.path.read_bytes() == content
        return is_new

    def delete(self, owner: str) -> None:
        sha256 = hashlib.sha256(CONTENT).hexdigest()
        self.holdings.delete(caller(owner), Kind.MODEL, sha256)


def caller(owner: str) -> Caller:
    return Caller(owner, Scope.SUBMIT)


def test_equal_files_count_for_each_and_once_in_all(database: Database, tmp_path: Path) -> None:
    store = Store(database, tmp_path / "data")
    assert store.add("a")
    assert not store.add("a")
    assert store.add("b")
    with database.read() as connection:
        assert stored_bytes(connection) == stored_bytes_of(connection, "a") == 1000
    with pytest.raises(Problem) as caught:
        store.add("a", b"y" * 501)
    assert caught.value.code == "quota_exceeded"
    keys = KeyStore(database)
    key, token = keys.create("ci", Scope.READ)
    assert keys.find(token) == key
    workers = Workers(database)
    workers.beat("w", 2)
    workers.beat("w", 2, (5, 2**40))
    (row,) = workers.alive()
    assert (row["gpu_used_bytes"], row["gpu_total_bytes"]) == (5, 2**40)


def test_nobody_holds_a_file_that_is_gone(database: Database, tmp_path: Path) -> None:
    store = Store(database, tmp_path / "data")
    failures: list[BaseException] = []

    def take_and_let_go(owner: str) -> None:
        try:
            for _ in range(15):
                store.add(owner)
                store.delete(owner)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=take_and_let_go, args=(f"o{n}",)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert list((tmp_path / "data" / "models").iterdir()) == []


def test_a_model_that_a_session_needs_stays(database: Database, tmp_path: Path) -> None:
    store = Store(database, tmp_path / "data")
    store.add("a")
    sha256 = hashlib.sha256(CONTENT).hexdigest()
    session = store.sessions.create(caller("a"), sha256, {})
    with pytest.raises(Problem) as caught:
        store.delete("a")
    assert caught.value.code == "resource_in_use"
    assert caught.value.members["session_id"] == session.id
    upload = store.storage.find_upload(Kind.MODEL, sha256)
    assert upload is not None
    assert not store.holdings.expire(upload, upload.used_at + 1)
    store.sessions.delete(caller("a"), session.id)
    store.delete("a")
    assert store.storage.find_upload(Kind.MODEL, sha256) is None
