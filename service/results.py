"""Files that a job leaves: taken out of a child's work folder, flushed to disk, never changed.

    jobs/{id}/
      checkpoint/round-*.npz    what the last finished round left
      results-{n}/              of the attempt that succeeded: model, report.json, scores.npz

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
from service.records import Job, ResultFile
from service.storage import Storage

_NAMES_LIMIT_BYTES = 2**16
_ROUND = re.compile(r"round-(\d+)\.npz")


class JobFiles:
    """Folders of jobs. Methods block on the disk."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage

    def checkpoint(self, job_id: str) -> Path:
        """Folder of a job's checkpoint; it may not be there."""
        return self._folder(job_id) / "checkpoint"

    def rounds(self, job_id: str) -> int:
        """Rounds that a job's checkpoint has, by the name that `graph_ops.checkpoint` gives it."""
        try:
            names = os.listdir(self.checkpoint(job_id))
        except OSError:
            return 0
        return max((int(m[1]) for name in names if (m := _ROUND.fullmatch(name))), default=0)

    def path(self, job: Job, result: ResultFile) -> Path:
        """A result's file."""
        return self._folder(job.id) / result.name

    def open(self, job_id: str) -> None:
        """Make a job's folder."""
        folder = self._folder(job_id)
        if not folder.exists():
            folder.mkdir(exist_ok=True)
            sync_folder(self._storage.jobs)

    def keep(self, job_id: str, attempt: int, workdir: Path) -> dict[str, ResultFile]:
        """Move a child's results into the job's folder."""
        names = read_json(workdir / "results.json", _NAMES_LIMIT_BYTES)
        is_archive = str(names["model"]).endswith(".zip")
        wanted = {
            "model": (
                "pruned.zip" if is_archive else "pruned.onnx",
                "application/zip" if is_archive else "application/octet-stream",
            ),
            "report": ("report.json", "application/json"),
            "scores": ("scores.npz", "application/x-npz"),
        }
        folder = self._folder(job_id) / f"results-{attempt}"
        remove(folder)
        folder.mkdir()
        results = {}
        for key, (name, media_type) in wanted.items():
            sha256, size = _digest_and_flush(workdir / name)
            (workdir / name).rename(folder / name)
            results[key] = ResultFile(
                name=f"{folder.name}/{name}",
                sha256=sha256,
                size_bytes=size,
                media_type=media_type,
            )
        sync_folder(folder)
        sync_folder(folder.parent)
        return results

    def tidy(self, job: Job) -> None:
        """Remove what a finished job does not need; failed ones keep their checkpoint."""
        folder = self._folder(job.id)
        needed = {Path(result.name).parts[0] for result in job.results.values()}
        if not needed:
            needed.add("checkpoint")
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
        return sorted(set(old) - known(old))

    def delete(self, job_id: str) -> None:
        """Remove a job's folder."""
        self._storage.delete_job(job_id)

    def _folder(self, job_id: str) -> Path:
        return self._storage.jobs / job_id


def _digest_and_flush(path: Path) -> tuple[str, int]:
    """sha256 and size of a regular file, which is on disk afterwards."""
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    with os.fdopen(fd, "rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        os.fsync(fd)
        return digest, os.fstat(fd).st_size
