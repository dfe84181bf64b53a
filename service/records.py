"""What is known of a job."""

from __future__ import annotations

import json
import secrets
import time
from enum import StrEnum
from functools import cached_property
from typing import Any

from pydantic import BaseModel, Field

from service.problems import Problem


class JobState(StrEnum):
    """Where a job stands."""

    QUEUED = "queued"
    RUNNING = "running"
    CANCELLING = "cancelling"
    CANCELLED = "cancelled"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    EXPIRED = "expired"

    @property
    def is_final(self) -> bool:
        """Whether the job is over."""
        return self not in UNFINISHED


class JobKind(StrEnum):
    """What kind of work a job is."""

    PRUNE = "prune"
    CUT = "cut"
    SCORE = "score"


UNFINISHED = (JobState.QUEUED, JobState.RUNNING, JobState.CANCELLING)


class Failure(BaseModel):
    """Why a job gave no result, as a problem's parts."""

    code: str
    detail: str
    members: dict[str, Any] = Field(default_factory=dict)


class ResultFile(BaseModel):
    """A file a job left."""

    name: str
    """Path inside the job's folder."""
    sha256: str
    size_bytes: int
    media_type: str


class JobProgress(BaseModel):
    """How far a job is: `done` of `total` units of the phase."""

    phase: str
    done: int
    total: int
    message: str = ""
    eta_s: float | None = None
    """Seconds to the end of the phase; None where that cannot be said yet."""


class Job(BaseModel):
    """The record of a job."""

    id: str
    created_us: int
    """When it was sent, microseconds since the epoch; no two of one server are the same."""
    state: JobState
    workflow_id: str
    """Its place in the engine; another one after a retry."""
    model_id: str
    bundle_id: str
    """Empty where the work needs none."""
    kind: JobKind = JobKind.PRUNE
    task: dict[str, Any] | None = None
    """What the work needs beside model, bundle and options: `channels` or `sample_shapes` of a
    cut; `session`, and of its pieces those in `pieces`."""
    owner: str = ""
    """Whose it is: the owner of the API key that sent it; empty where there were no keys."""
    webhook_url: str | None = None
    """Who is told of its end."""
    turn: int = 1
    """Its turn among the waiting; lower ones come first."""
    traceparent: str | None = None
    """Names the span of its acceptance, to which its work belongs; None where nothing is traced."""
    filename: str
    """File name of the uploaded model."""
    options: dict[str, Any]
    metadata: dict[str, str]
    """The user's own words about it."""
    fingerprint: str
    """Digest of what was asked for."""
    times: dict[JobState, str]
    """When each state was entered last."""
    progress: JobProgress | None = None
    failure: Failure | None = None
    results: dict[str, ResultFile] = Field(default_factory=dict)
    """What a job that succeeded left: `model`, `report`, `scores`, `points/1` and so on."""
    attempts: int = 0
    """Times that work on it was begun."""
    rounds: int = 0
    """Rounds that its checkpoint had when work was last begun."""
    last_event: int = 0
    """Number of its newest event."""
    expires_at: float | None = None
    """When its results are removed, seconds since the epoch; None before its end, or for never."""

    @property
    def instance(self) -> str:
        """The job's path."""
        return f"/v1/jobs/{self.id}"

    @property
    def cursor(self) -> str:
        """Its place in lists of jobs."""
        return f"{self.created_us:x}-{self.id}"

    def problem(self) -> Problem | None:
        """The problem a failed or cancelled job is; None for other jobs."""
        if self.failure is None:
            return None
        failure = self.failure
        problem = Problem.from_parts(failure.code, failure.detail, failure.members)
        problem.instance = self.instance
        problem.members["job_id"] = self.id
        return problem


class JobEvent(BaseModel):
    """Something that happened to a job."""

    number: int
    """Counts from 1 in each job."""
    kind: str
    """`state` or `progress`."""
    data: dict[str, Any]

    @cached_property
    def frame(self) -> bytes:
        """It as a server-sent event; made once, however many clients are told."""
        data = json.dumps(self.data)
        return f"id: {self.number}\nevent: {self.kind}\ndata: {data}\n\n".encode()

    @property
    def is_end(self) -> bool:
        """Whether the job was over with it."""
        return self.kind == "state" and JobState(self.data["state"]).is_final


def new_job_id() -> str:
    """An id that sorts by the time it was made."""
    return f"{time.time_ns() // 1_000_000:012x}{secrets.token_hex(10)}"


def expiry() -> Failure:
    """Why an expired job has no result any more."""
    return Failure(code="job_expired", detail="The results were removed when their time was over.")


def cancellation() -> Failure:
    """Why a cancelled job gave no result."""
    return Failure(code="job_cancelled", detail="The job was cancelled before it was over.")


def exhaustion(attempts: int, last: Failure | None) -> Failure:
    """What a job is that has used up its attempts."""
    if last is None:
        last = Failure(code="job_crashed", detail="The process was lost together with its worker.")
    return Failure(
        code=last.code,
        detail=f"{last.detail} It was begun {attempts} times without finishing a round.",
        members={**last.members, "attempts": attempts},
    )
