"""`Idempotency-Key`: a request that is sent again is answered by the job of the first one.

The rules of draft-ietf-httpapi-idempotency-key-header: the same key with the same content is the
same job, also when both come at once; with other content it is an error. What counts as content
are the digests of model and bundle and the options, not the bytes of the multipart body, whose
boundary differs each time. Keys outlive the server on disk.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from service.files import read_json, write_json
from service.problems import Problem

_KEY = re.compile(r"[\x21-\x7e]{1,255}")


@dataclass
class _Lock:
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    users: int = 0


class IdempotencyKeys:
    """Which job each key stands for."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._locks: dict[str, _Lock] = {}

    @asynccontextmanager
    async def hold(self, key: str) -> AsyncIterator[None]:
        """Keep other requests with this key waiting."""
        entry = self._locks.setdefault(key, _Lock())
        entry.users += 1
        try:
            async with entry.lock:
                yield
        finally:
            entry.users -= 1
            if not entry.users:
                del self._locks[key]

    def job_of(self, key: str, fingerprint: str) -> str | None:
        """Id of the job that the key stands for, or None.

        Raises:
            Problem: `idempotency_key_reused`.
        """
        record = read_json(self._path(key))
        if record is None:
            return None
        if record["fingerprint"] != fingerprint:
            raise Problem(
                "idempotency_key_reused",
                "This Idempotency-Key was used with another model, bundle or options.",
                job_id=record["job_id"],
            )
        return str(record["job_id"])

    def remember(self, key: str, fingerprint: str, job_id: str) -> None:
        """Let the key stand for a job, on disk before this returns."""
        write_json(self._path(key), {"fingerprint": fingerprint, "job_id": job_id})

    def forget(self, key: str) -> None:
        """Free the key: its job was never accepted."""
        self._path(key).unlink(missing_ok=True)

    def _path(self, key: str) -> Path:
        return self._folder / f"{hashlib.sha256(key.encode()).hexdigest()}.json"


def check_key(key: str | None) -> str | None:
    """The key of a request.

    Raises:
        Problem: `idempotency_key_invalid`.
    """
    if key is not None and not _KEY.fullmatch(key):
        raise Problem(
            "idempotency_key_invalid",
            "The Idempotency-Key has to be 1 to 255 visible ASCII characters.",
        )
    return key


def fingerprint_of(model_id: str, bundle_id: str, options: dict[str, Any]) -> str:
    """Digest of what a prune request asks for."""
    content = json.dumps([model_id, bundle_id, options], sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()
