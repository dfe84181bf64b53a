"""API keys for tests of a server that may be running already."""

from __future__ import annotations

import httpx

from service.database import Database
from service.keys import KeyStore, Scope
from tests.support.server import Server


def make_key(
    server: Server, name: str, scope: str = "submit", owner: str | None = None, **limits: int
) -> str:
    """A token for a server on SQLite."""
    database = Database(f"sqlite:///{server.data_dir / 'jobs.sqlite'}")
    try:
        database.create()
        return KeyStore(database).create(name, Scope(scope), owner, **limits)[1]
    finally:
        database.close()


def client_with(server: Server, token: str) -> httpx.Client:
    """A client that sends a key."""
    headers = {"Authorization": f"Bearer {token}"}
    return httpx.Client(base_url=server.url, headers=headers, timeout=60)
