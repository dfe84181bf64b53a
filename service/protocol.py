"""What the server and its children agree on. Light on purpose, like `service.files`."""

from __future__ import annotations

from dataclasses import dataclass

PARENT_PID_VARIABLE = "PRUNER_PARENT_PID"
"""Environment variable that tells a child whose death it must not outlive."""

WAIT = "-"
"""In place of a work folder: warm up, and read the folder from standard input."""

DISK_FULL = 74
"""Exit status of a child that found no room even to write why it failed (sysexits.h: EX_IOERR)."""

SCRATCH = "scratch"
"""Folder for a child's own temporary files, in its work folder."""

LISTEN_FD_VARIABLE = "PRUNER_LISTEN_FD"
"""Environment variable with the number of the socket that a supervisor lends the API."""

LOCK_FD_VARIABLE = "PRUNER_LOCK_FD"
"""Environment variable with the number of the file whose lock a supervisor lends its roles."""


@dataclass(frozen=True)
class PhaseReport:
    """When a phase of a child's work was, in seconds since the epoch.

    `number` is the round, where the phase is one's.
    """

    phase: str
    number: int | None
    begin_s: float
    end_s: float


@dataclass(frozen=True)
class ProgressReport:
    """How far a child is: `done` of `total` units of the phase."""

    phase: str
    done: int
    total: int
    message: str = ""
