"""What is known of a job, and the folder that keeps it.

The record `job.json` is written whole at each step. Results are moved into the folder, flushed to
disk and their digests taken, before a record names them.
"""

from __future__ import annotations

import hashlib
import logging
import os
import re
import secrets
import time
from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path
from typing import Any

from pydantic import BaseModel, Field, ValidationError

from service.files import read_json, sync_folder, write_json
from service.problems import Problem
from service.protocol import ProgressReport
from service.storage import Storage

_ID = re.compile(r"[0-9a-f]{32}")
_RESULTS_LIMIT_BYTES = 2**16

log = logging.getLogger("service.jobs")


class JobState(StrEnum):
    """Where a job stands."""

    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def is_final(self) -> bool:
        """Whether the job is over."""
        return self not in (JobState.QUEUED, JobState.RUNNING)


class Failure(BaseModel):
    """Why a job gave no result, as a problem's parts."""

    code: str
    detail: str
    members: dict[str, Any] = Field(default_factory=dict)


class ResultFile(BaseModel):
    """A file a job left."""

    name: str
    sha256: str
    size_bytes: int
    media_type: str


class Job(BaseModel):
    """The record of a job."""

    id: str
    state: JobState
    model_id: str
    bundle_id: str
    filename: str
    """File name of the uploaded model."""
    options: dict[str, Any]
    times: dict[JobState, str]
    """When each state was entered."""
    failure: Failure | None = None
    results: dict[str, ResultFile] = Field(default_factory=dict)
    """`model`, `report` and `scores` of a job that succeeded."""
    progress: ProgressReport | None = None

    @property
    def instance(self) -> str:
        """The job's path."""
        return f"/v1/jobs/{self.id}"

    def problem(self) -> Problem | None:
        """The problem a failed or cancelled job is; None for other jobs."""
        if self.failure is None:
            return None
        failure = self.failure
        problem = Problem.from_parts(failure.code, failure.detail, failure.members)
        problem.instance = self.instance
        problem.members["job_id"] = self.id
        return problem


class JobRecords:
    """The folders of jobs. Methods block on the disk."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage

    def create(self, job: Job) -> None:
        """Make a job's folder, with its record in it."""
        self._folder(job.id).mkdir()
        self.save(job)
        sync_folder(self._storage.jobs)

    def save(self, job: Job) -> None:
        """Write a job's record."""
        write_json(self._folder(job.id) / "job.json", job.model_dump(mode="json"))

    def load(self, job_id: str) -> Job | None:
        """The job of this id; None when there is none, or its record cannot be read."""
        if not _ID.fullmatch(job_id):
            return None
        data = read_json(self._folder(job_id) / "job.json")
        try:
            return None if data is None else Job.model_validate(data)
        except ValidationError:
            log.exception("the record of job %s cannot be read", job_id)
            return None

    def is_accepted(self, job_id: str) -> bool:
        """Whether there is a record; a server may die between making the folder and writing it."""
        return (self._folder(job_id) / "job.json").exists()

    def delete(self, job_id: str) -> None:
        """Remove a job's folder."""
        self._storage.delete_job(job_id)

    def ids_newest_first(self, before: str | None) -> Iterator[str]:
        """Ids of all jobs, or of those that sort before an id."""
        names = {name for name in os.listdir(self._storage.jobs) if _ID.fullmatch(name)}
        for name in sorted(names, reverse=True):
            if before is None or name < before:
                yield name

    def path(self, job: Job, result: ResultFile) -> Path:
        """A result's file."""
        return self._folder(job.id) / result.name

    def keep_results(self, job: Job, workdir: Path) -> dict[str, ResultFile]:
        """Move a child's results into the job's folder, flushed to disk."""
        names = read_json(workdir / "results.json", _RESULTS_LIMIT_BYTES)
        model_name = str(names["model"])
        is_archive = model_name.endswith(".zip")
        wanted = {
            "model": ("pruned.zip" if is_archive else "pruned.onnx", _media_type(model_name)),
            "report": ("report.json", "application/json"),
            "scores": ("scores.npz", "application/x-npz"),
        }
        results = {}
        folder = self._folder(job.id)
        for key, (name, media_type) in wanted.items():
            sha256, size = _digest_and_flush(workdir / name)
            (workdir / name).rename(folder / name)
            results[key] = ResultFile(
                name=name, sha256=sha256, size_bytes=size, media_type=media_type
            )
        sync_folder(folder)
        return results

    def _folder(self, job_id: str) -> Path:
        return self._storage.jobs / job_id


def new_job_id() -> str:
    """An id that sorts by the time it was made."""
    return f"{time.time_ns() // 1_000_000:012x}{secrets.token_hex(10)}"


def _media_type(model_name: str) -> str:
    return "application/zip" if model_name.endswith(".zip") else "application/octet-stream"


def _digest_and_flush(path: Path) -> tuple[str, int]:
    """sha256 and size of a regular file, which is on disk afterwards."""
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    with os.fdopen(fd, "rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        os.fsync(fd)
        return digest, os.fstat(fd).st_size
