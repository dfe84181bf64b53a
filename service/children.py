"""The kinds of work that children do, with the limits that the settings give each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from service.protocol import PhaseReport, ProgressReport
from service.records import Job, JobKind
from service.runner import Limits, Spares, run_child
from service.settings import Settings
from service.tracing import Span, Tracing


@dataclass(frozen=True)
class WorkFiles:
    """What a job's work is done on.

    Attributes:
        model: The model file.
        bundle: The bundle file; None where the work needs none.
        checkpoint: Folder that keeps what each round reached; the child goes on from there.
        states: Score states that the work goes by.
    """

    model: Path
    bundle: Path | None
    checkpoint: Path
    states: Sequence[Path] = ()


class PhaseTrace:
    """Traces the phases of a child's work.

    Args:
        tracing: Where to.
        span: What they belong to.
    """

    def __init__(self, tracing: Tracing, span: Span) -> None:
        self._tracing = tracing
        self.traceparent = span.traceparent

    def __call__(self, report: PhaseReport) -> None:
        """A phase is over."""
        number = {} if report.number is None else {"round": report.number}
        begin_s, end_s = report.begin_s, report.end_s
        self._tracing.record(report.phase, self.traceparent, begin_s, end_s, **number)


class Children:
    """Starts children; knows nothing of queues or records.

    Args:
        settings: Their limits.
        spares: Children kept waiting for the next job or inspection.
    """

    def __init__(self, settings: Settings, spares: int = 0) -> None:
        self._module = settings.child_module
        self._spares = Spares(self._module, spares)
        memory, file_bytes = settings.memory_limit_bytes, settings.job_file_bytes
        self._score_shards = settings.score_shards
        self._job = Limits(settings.job_timeout_s, memory, file_bytes)
        self._inspection = Limits(settings.inspection_timeout_s, memory, file_bytes)
        self._input_limits = {
            "model_limits": {
                "max_bytes": settings.max_model_bytes,
                "max_unpacked_bytes": settings.max_unpacked_bytes,
                "max_unpacked_ratio": settings.max_unpack_ratio,
            },
            "bundle_limits": {
                "max_array_bytes": settings.max_array_bytes,
                "max_unpacked_bytes": settings.max_unpacked_bytes,
                "max_unpacked_ratio": settings.max_unpack_ratio,
            },
        }

    async def work(
        self,
        workdir: Path,
        job: Job,
        files: WorkFiles,
        on_progress: Callable[[ProgressReport], None],
        trace: PhaseTrace,
    ) -> None:
        """Do a job's work; the results are in `workdir` afterwards.

        Args:
            workdir: The child's folder.
            job: What is to be done.
            files: What it is done on.
            on_progress: Called for each report of the child.
            trace: Takes the times of its phases.

        Raises:
            ChildFailure: it did not work out.
        """
        request = {
            "action": job.kind,
            "options": job.options,
            "task": job.task or {},
            "model": str(files.model),
            "bundle": None if files.bundle is None else str(files.bundle),
            "states": [str(path) for path in files.states],
            "checkpoint": str(files.checkpoint),
            "score_shards": self.shards_of(job),
            "traceparent": trace.traceparent,
            **self._input_limits,
        }
        await run_child(self._module, workdir, request, self._job, on_progress, trace, self._spares)

    def shards_of(self, job: Job) -> int:
        """Into how many shards a job's scoring is split."""
        if job.kind is JobKind.CUT:
            return 1
        return int(job.options.get("score_shards") or self._score_shards)

    async def help(
        self,
        workdir: Path,
        job: Job,
        files: WorkFiles,
        number: int,
        count: int,
        trace: PhaseTrace,
    ) -> None:
        """Score shards of a round of somebody else's job, as `service.shards.mailbox` names them.

        Raises:
            ChildFailure: it did not work out.
        """
        request = {
            "action": "help",
            "options": job.options,
            "round": number,
            "shards": count,
            "model": str(files.model),
            "bundle": str(files.bundle),
            "checkpoint": str(files.checkpoint),
            "traceparent": trace.traceparent,
            **self._input_limits,
        }
        await run_child(
            self._module, workdir, request, self._job, on_phase=trace, spares=self._spares
        )

    async def merge(
        self,
        workdir: Path,
        states: Sequence[Path],
        model: Path | None = None,
        options: dict[str, Any] | None = None,
    ) -> None:
        """Add up score states, and hold them against a model where one is given.

        Raises:
            ChildFailure: it did not work out.
        """
        request = {
            "action": "merge",
            "states": [str(path) for path in states],
            "model": None if model is None else str(model),
            "options": options,
            **self._input_limits,
        }
        await run_child(self._module, workdir, request, self._inspection)

    async def inspect(
        self,
        workdir: Path,
        action: str,
        paths: dict[str, Path],
        options: dict[str, Any] | None = None,
    ) -> None:
        """Find facts (`inspect`, `channels`, `contents`, `forecast`, `probe`), left in `workdir`.

        Raises:
            ChildFailure: it did not work out.
        """
        named = {key: str(path) for key, path in paths.items()}
        request = {"action": action, "options": options, **named}
        request = {**request, **self._input_limits}
        await run_child(self._module, workdir, request, self._inspection, spares=self._spares)
