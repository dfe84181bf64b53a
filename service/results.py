"""Files that a job leaves: taken out of a child's work folder, flushed to disk, never changed.

    jobs/{id}/
      checkpoint/round-*.npz    what the last finished round left
      checkpoint/*-point-*      points of a curve that are finished
      results-{n}/              of the attempt that succeeded: model, report.json, scores.npz,
                                the points of a curve

Each attempt has a folder of its own, so that one that was fenced off cannot touch the results of
another.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import time
from collections.abc import Callable
from pathlib import Path

from service.files import read_json, remove, sync_folder
from service.objects import StorageUnavailable
from service.records import Job, ResultFile
from service.storage import Storage

_NAMES_LIMIT_BYTES = 2**16
_KEY = re.compile(r"model|report|scores|points/\d{1,2}(?:/report)?")
_NAME = re.compile(r"[a-z][a-z0-9-]*\.(?:onnx|zip|json|npz)")
_MEDIA_TYPES = {
    ".onnx": "application/octet-stream",
    ".zip": "application/zip",
    ".json": "application/json",
    ".npz": "application/x-npz",
}
_ROUND = re.compile(r"round-(\d+)\.npz")
_KEPT = re.compile(r"[0-9a-f]{16}-[a-z0-9-]+\.(?:onnx|json)")
"""What `graph_ops.checkpoint` keeps beside the rounds; written once, before the round that tells of
it."""


class JobFiles:
    """Folders of jobs. Methods block on the disk."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._objects = storage.objects

    def checkpoint(self, job_id: str) -> Path:
        """Folder of a job's checkpoint; it may not be there."""
        return self._folder(job_id) / "checkpoint"

    def rounds(self, job_id: str) -> int:
        """Rounds that a job's checkpoint has, by the name that `graph_ops.checkpoint` gives it.

        What other machines have reached is fetched first.
        """
        folder = self.checkpoint(job_id)
        known = set(_files_in(folder))
        for found in self._objects.below(f"jobs/{job_id}/checkpoint"):
            name = found.name.rpartition("/")[2]
            if name not in known:
                self.open(job_id)
                folder.mkdir(exist_ok=True)
                self._objects.fetch(found.name, folder / name)
        return max(map(_number_of, _files_in(folder)), default=0)

    def save_checkpoint(self, job_id: str, saved: int) -> int:
        """Store the newest round where other machines find it; its number.

        Args:
            job_id: The job.
            saved: Number of the round that is stored already.
        """
        if not self._objects.is_remote:
            return saved
        folder = self.checkpoint(job_id)
        names = _files_in(folder)
        newest = max(names, key=_number_of, default="")
        if _number_of(newest) <= saved:
            return saved
        prefix = f"jobs/{job_id}/checkpoint"
        stored = {o.name.rpartition("/")[2] for o in self._objects.below(prefix)}
        try:
            for name in names:
                if _KEPT.fullmatch(name) and name not in stored:
                    self._objects.put(f"{prefix}/{name}", folder / name)
            self._objects.put(f"{prefix}/{newest}", folder / newest)
        except FileNotFoundError:  # a still newer round has taken its place
            return saved
        older = [name for name in stored if _ROUND.fullmatch(name) and name != newest]
        self._objects.delete([f"{prefix}/{name}" for name in older])
        return _number_of(newest)

    def path(self, job: Job, result: ResultFile) -> Path:
        """A result's file.

        Raises:
            StorageUnavailable: it cannot be fetched, or is damaged.
        """
        path = self._folder(job.id) / result.name
        if not self._objects.is_remote:
            return path
        with contextlib.suppress(FileNotFoundError):
            os.utime(path)
            return path
        path.parent.mkdir(parents=True, exist_ok=True)
        if not self._objects.fetch(f"jobs/{job.id}/{result.name}", path):
            raise StorageUnavailable(f"The object storage has lost {result.name}.")
        if _digest_and_flush(path)[0] != result.sha256:
            path.unlink()
            raise StorageUnavailable(f"The object storage has damaged {result.name}.")
        return path

    def open(self, job_id: str) -> None:
        """Make a job's folder."""
        folder = self._folder(job_id)
        if not folder.exists():
            folder.mkdir(exist_ok=True)
            sync_folder(self._storage.jobs)

    def keep(self, job_id: str, attempt: int, workdir: Path) -> dict[str, ResultFile]:
        """Move a child's results into the job's folder."""
        names = read_json(workdir / "results.json", _NAMES_LIMIT_BYTES)
        wanted = {str(key): str(name) for key, name in names.items()}
        for key, name in wanted.items():
            if not (_KEY.fullmatch(key) and _NAME.fullmatch(name)):
                raise ValueError(f"the child names a result {key!r} in {name!r}")
        folder = self._folder(job_id) / f"results-{attempt}"
        remove(folder)
        folder.mkdir()
        results = {}
        for key, name in wanted.items():
            sha256, size = _digest_and_flush(workdir / name)
            (workdir / name).rename(folder / name)
            results[key] = ResultFile(
                name=f"{folder.name}/{name}",
                sha256=sha256,
                size_bytes=size,
                media_type=_MEDIA_TYPES[Path(name).suffix],
            )
        sync_folder(folder)
        sync_folder(folder.parent)
        return results

    def publish(self, job_id: str, results: dict[str, ResultFile]) -> None:
        """Store results where every machine finds them; may be repeated."""
        for result in results.values():
            self._objects.put(f"jobs/{job_id}/{result.name}", self._folder(job_id) / result.name)

    def tidy(self, job: Job) -> None:
        """Remove what a finished job does not need; failed ones keep their checkpoint."""
        folder = self._folder(job.id)
        needed = {Path(result.name).parts[0] for result in job.results.values()}
        if not needed:
            needed.add("checkpoint")
        prefix = f"jobs/{job.id}/"
        stored = [found.name for found in self._objects.below(prefix)]
        kept = tuple(f"{prefix}{name}/" for name in needed)
        self._objects.delete([name for name in stored if not name.startswith(kept)])
        try:
            names = os.listdir(folder)
        except FileNotFoundError:
            return
        for name in names:
            if name not in needed:
                remove(folder / name)

    def orphans(self, older_than_s: float, known: Callable[[list[str]], set[str]]) -> list[str]:
        """Ids of folders that are older than that and belong to no job."""
        old = []
        for name in os.listdir(self._storage.jobs):
            with contextlib.suppress(FileNotFoundError):
                if time.time() - self._folder(name).stat().st_mtime > older_than_s:
                    old.append(name)
        # A job's row is there before its first object is.
        old += self._objects.folders("jobs")
        return sorted(set(old) - known(old))

    def delete(self, job_id: str) -> None:
        """Remove a job's folder."""
        self._storage.delete_job(job_id)

    def _folder(self, job_id: str) -> Path:
        return self._storage.jobs / job_id


def _files_in(folder: Path) -> list[str]:
    """Names of the regular files in a folder that may not be there."""
    try:
        with os.scandir(folder) as entries:
            return [entry.name for entry in entries if entry.is_file(follow_symlinks=False)]
    except OSError:
        return []


def _number_of(name: str) -> int:
    """Rounds that a file of this name has; 0 for other files."""
    found = _ROUND.fullmatch(name)
    return int(found[1]) if found else 0


def _digest_and_flush(path: Path) -> tuple[str, int]:
    """sha256 and size of a regular file, which is on disk afterwards."""
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    with os.fdopen(fd, "rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        os.fsync(fd)
        return digest, os.fstat(fd).st_size
