"""What the server and its children agree on. Light on purpose, like `service.files`."""

from __future__ import annotations

from dataclasses import dataclass

PARENT_PID_VARIABLE = "PRUNER_PARENT_PID"
"""Environment variable that tells a child whose death it must not outlive."""


@dataclass(frozen=True)
class ProgressReport:
    """How far a child is: `done` of `total` units of the phase."""

    phase: str
    done: int
    total: int
    message: str = ""
