"""How far a run is, for whoever watches it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Progress:
    """How far a run is.

    Attributes:
        phase: `load`, `score`, `select`, `search`, `recover`, `cut`, `write`, `prove` or `measure`.
        done: Units done in the phase (samples while scoring, layers, then gradient steps, while
            recovering).
        total: Units of the phase.
        message: For people.
    """

    phase: str
    done: int
    total: int
    message: str = ""


@dataclass(frozen=True)
class PhaseTime:
    """When a phase of a run was, each time that there is one.

    Attributes:
        phase: `load`, `analyse`, `score`, `select`, `recover`, `cut`, `write`, `prove` or
            `measure`.
        number: The round, where the phase is one's.
        begin_s: Its beginning, seconds since the epoch.
        end_s: Its end.
    """

    phase: str
    number: int | None
    begin_s: float
    end_s: float


PhaseCallback = Callable[[PhaseTime], None]
ProgressCallback = Callable[[Progress], None]
