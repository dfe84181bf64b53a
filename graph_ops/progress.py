"""How far a run is, for whoever watches it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Progress:
    """How far a run is.

    Attributes:
        phase: `load`, `score`, `search`, `recover`, `cut`, `write`, `prove` or `measure`.
        done: Units done in the phase (samples while scoring, layers while recovering).
        total: Units of the phase.
        message: For people.
    """

    phase: str
    done: int
    total: int
    message: str = ""


ProgressCallback = Callable[[Progress], None]
