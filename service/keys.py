"""API keys: made, listed, revoked; of a key's secret only a digest is kept.

A token is `ofp_{id}_{secret}`. The id finds the row; the secret has 256 random bits, so that a
plain sha256 of it needs no salt and no slow hash: there is nothing to guess. Digests are compared
in constant time, and an id that does not exist costs the same comparison.

A revoked key stays in the table: where a key has ever been made, nobody gets in without one.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from dataclasses import asdict, dataclass
from enum import StrEnum

import sqlalchemy as sa

from service.database import API_KEYS, Database
from service.storage import now

_PREFIX = "ofp"
_TOKEN = re.compile(rf"{_PREFIX}_([0-9a-f]{{12}})_([A-Za-z0-9_-]{{43}})")
_NAME = re.compile(r"[A-Za-z0-9][\w.\-]{0,62}")
_NO_DIGEST = hashlib.sha256(b"no key").hexdigest()


class Scope(StrEnum):
    """What a key may do; each scope includes those before it."""

    READ = "read"
    SUBMIT = "submit"
    ADMIN = "admin"

    def includes(self, other: Scope) -> bool:
        """Whether this scope is enough where the other is asked for."""
        order = list(Scope)
        return order.index(self) >= order.index(other)


@dataclass(frozen=True)
class ApiKey:
    """What is known of a key.

    Attributes:
        id: The part of the token that may be shown.
        name: What people call it; unique among the keys that are not revoked.
        owner: Whose models, bundles and jobs it works on: keys of one owner share them.
        scope: What it may do.
        digest: sha256 of the token's secret, in hex.
        max_requests_per_minute: Its own limit; None for the server's.
        max_jobs: Jobs of its owner that may be unfinished at a time; None for the server's limit.
        created_at: ISO 8601 in UTC.
        revoked_at: The same; None while it is good.
    """

    id: str
    name: str
    owner: str
    scope: Scope
    digest: str
    max_requests_per_minute: int | None
    max_jobs: int | None
    created_at: str
    revoked_at: str | None = None


class KeyNameError(ValueError):
    """A name that cannot be given to a key, or that no key has."""


class KeyStore:
    """The table of keys. Methods block on the database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def create(
        self,
        name: str,
        scope: Scope,
        owner: str | None = None,
        max_requests_per_minute: int | None = None,
        max_jobs: int | None = None,
    ) -> tuple[ApiKey, str]:
        """A new key and its token, which is not kept anywhere.

        Raises:
            KeyNameError: a name that is malformed, or that a good key has already.
        """
        owner = owner or name
        for text in (name, owner):
            if not _NAME.fullmatch(text):
                raise KeyNameError(
                    f"{text[:80]!r} is no name: up to 63 letters, digits and . _ - are."
                )
        secret = secrets.token_urlsafe(32)
        key = ApiKey(
            id=secrets.token_hex(6),
            name=name,
            owner=owner,
            scope=scope,
            digest=_digest(secret),
            max_requests_per_minute=max_requests_per_minute,
            max_jobs=max_jobs,
            created_at=now(),
        )
        with self._database.write() as connection:
            if connection.execute(_good_keys(name)).first() is not None:
                raise KeyNameError(f"There is a key named {name!r}; revoke it first.")
            connection.execute(API_KEYS.insert().values(**asdict(key)))
        return key, f"{_PREFIX}_{key.id}_{secret}"

    def all(self) -> list[ApiKey]:
        """Every key, revoked ones too, oldest first."""
        query = sa.select(API_KEYS).order_by(API_KEYS.c.created_at, API_KEYS.c.id)
        with self._database.read() as connection:
            return [_key_of(row) for row in connection.execute(query).mappings()]

    def any(self) -> bool:
        """Whether a key was ever made."""
        with self._database.read() as connection:
            return connection.execute(sa.select(API_KEYS.c.id).limit(1)).first() is not None

    def revoke(self, name_or_id: str) -> ApiKey:
        """Make a key worthless.

        Raises:
            KeyNameError: no good key has this name or id.
        """
        with self._database.write() as connection:
            row = connection.execute(_good_keys(name_or_id)).mappings().first()
            if row is None:
                raise KeyNameError(f"There is no good key with the name or id {name_or_id!r}.")
            change = API_KEYS.update().where(API_KEYS.c.id == row["id"])
            connection.execute(change.values(revoked_at=now()))
            return _key_of(row)

    def find(self, token: str) -> ApiKey | None:
        """The good key that a token belongs to, or None."""
        parts = _TOKEN.fullmatch(token)
        if parts is None:
            return None
        query = sa.select(API_KEYS).where(API_KEYS.c.id == parts[1])
        with self._database.read() as connection:
            row = connection.execute(query).mappings().one_or_none()
        digest = _NO_DIGEST if row is None else row["digest"]
        is_right = hmac.compare_digest(digest, _digest(parts[2]))
        if row is None or not is_right or row["revoked_at"] is not None:
            return None
        return _key_of(row)


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


def _good_keys(name_or_id: str) -> sa.Select[tuple[str]]:
    named = sa.or_(API_KEYS.c.name == name_or_id, API_KEYS.c.id == name_or_id)
    return sa.select(API_KEYS).where(named, API_KEYS.c.revoked_at.is_(None))


def _key_of(row: sa.RowMapping) -> ApiKey:
    return ApiKey(**{**row, "scope": Scope(row["scope"])})
