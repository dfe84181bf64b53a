"""What scored shards came to, as files that every worker finds: `jobs/{id}/shards/`.

They are there until the job's next round, so that a job that is begun again in the middle of a
round does not score them a second time.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
from pathlib import Path

from service.files import remove, sync_folder
from service.shards.claims import Shard
from service.storage import Storage

_FOLDER = "shards"
_LIMIT_BYTES = 2**30


class ShardFiles:
    """Methods block on the disk, and raise `StorageUnavailable`."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._objects = storage.objects

    def keep(self, shard: Shard, file: Path) -> str | None:
        """Store a child's file; its digest, or None when the job has gone.

        Raises:
            ValueError: it is no regular file, or far too large for one.
        """
        sha256 = _flushed_digest(file)
        if self._objects.is_remote:
            self._objects.put(self._name(shard), file)
            return sha256
        folder = self._folder(shard.job_id)
        try:
            folder.mkdir(exist_ok=True)
            file.replace(folder / shard.file_name)
            sync_folder(folder)
        except FileNotFoundError:
            return None
        return sha256

    def fetch(self, shard: Shard, sha256: str, target: Path) -> bool:
        """Copy a shard's file; False when it is not there, or not the one of this digest."""
        if self._objects.is_remote:
            if not self._objects.fetch(self._name(shard), target):
                return False
        else:
            try:
                shutil.copyfile(self._folder(shard.job_id) / shard.file_name, target)
            except FileNotFoundError:
                return False
        with target.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        if found != sha256:
            target.unlink()
        return found == sha256

    def drop(self, shard: Shard) -> None:
        """Remove one file."""
        if self._objects.is_remote:
            self._objects.delete([self._name(shard)])
        else:
            (self._folder(shard.job_id) / shard.file_name).unlink(missing_ok=True)

    def drop_all(self, job_id: str, but_of_round: int | None = None) -> None:
        """Remove a job's files, but those of a round where one is given."""
        kept = f"round-{but_of_round}-shard-"
        if self._objects.is_remote:
            stored = [found.name for found in self._objects.below(f"jobs/{job_id}/{_FOLDER}")]
            old = [name for name in stored if not name.rpartition("/")[2].startswith(kept)]
            self._objects.delete(old)
            return
        folder = self._folder(job_id)
        if but_of_round is None:
            remove(folder)
            return
        try:
            names = os.listdir(folder)
        except FileNotFoundError:
            return
        for name in names:
            if not name.startswith(kept):
                remove(folder / name)

    def _folder(self, job_id: str) -> Path:
        return self._storage.jobs / job_id / _FOLDER

    def _name(self, shard: Shard) -> str:
        return f"jobs/{shard.job_id}/{_FOLDER}/{shard.file_name}"


def _flushed_digest(path: Path) -> str:
    """sha256 of a child's file, which is on disk afterwards."""
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    with os.fdopen(fd, "rb") as file:
        found = os.fstat(fd)
        if not stat.S_ISREG(found.st_mode) or found.st_size > _LIMIT_BYTES:
            raise ValueError(f"{path.name} cannot be what a shard came to")
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        os.fsync(fd)
        return digest
