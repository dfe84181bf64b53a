"""The kinds of work that children do, with the limits that the settings give each."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from service.protocol import ProgressReport
from service.runner import Limits, Spares, run_child
from service.settings import Settings


class Children:
    """Starts children; knows nothing of queues or records.

    Args:
        settings: Their limits.
        spares: Children kept waiting for the next prune job.
    """

    def __init__(self, settings: Settings, spares: int = 0) -> None:
        self._module = settings.child_module
        self._spares = Spares(self._module, spares)
        memory, file_bytes = settings.memory_limit_bytes, settings.job_file_bytes
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

    async def prune(
        self,
        workdir: Path,
        model: Path,
        bundle: Path,
        options: dict[str, Any],
        checkpoint: Path,
        on_progress: Callable[[ProgressReport], None],
    ) -> None:
        """Prune; the results are in `workdir` afterwards.

        Args:
            workdir: The child's folder.
            model: The model file.
            bundle: The bundle file.
            options: All options of the run.
            checkpoint: Folder that keeps what each round reached; the child goes on from there.
            on_progress: Called for each report of the child.

        Raises:
            ChildFailure: it did not work out.
        """
        paths = {"model": str(model), "bundle": str(bundle)}
        request = {
            "action": "prune",
            "options": options,
            "checkpoint": str(checkpoint),
            **paths,
            **self._input_limits,
        }
        limits = self._job
        await run_child(self._module, workdir, request, limits, on_progress, self._spares)

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
        await run_child(self._module, workdir, {**request, **self._input_limits}, self._inspection)
