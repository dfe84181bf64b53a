"""What was measured, kept as JSON files so that a rerun, or a run that was cut off, goes on."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

FOLDER = Path(__file__).parents[2] / "build" / "accuracy"
MACS_TOLERANCE = 0.01
"""Relative; a result farther from its target shows its MACs."""
LONGEST_ERROR = 60


@dataclass(frozen=True)
class Measured:
    """One pruned network.

    Attributes:
        accuracy: Share of right answers on the hold-out; None where there is no network.
        macs_ratio: MACs left, of the original's.
        error: Why there is no network; empty otherwise.
        to_choose_by: The same share of other training images; None where there are none.
    """

    accuracy: float | None = None
    macs_ratio: float | None = None
    error: str = ""
    to_choose_by: float | None = None

    def cell(self, target: float) -> str:
        """For a table: percent, with the MACs where they are not the target's."""
        if self.accuracy is None or self.macs_ratio is None:
            return f"fails: {self.error[:LONGEST_ERROR]}"
        text = f"{100 * self.accuracy:.1f}"
        is_on_target = abs(self.macs_ratio - target) <= MACS_TOLERANCE * target
        return text if is_on_target else f"{text} (at {self.macs_ratio:.2f})"

    def reaches(self, target: float) -> bool:
        """Whether no more MACs are left than asked for, within the tolerance."""
        return self.macs_ratio is not None and self.macs_ratio <= target * (1 + MACS_TOLERANCE)


def digest(parts: Iterable[bytes | str]) -> str:
    """A name for what a measurement depends on."""
    state = hashlib.sha256()
    for part in parts:
        content = part.encode() if isinstance(part, str) else part
        state.update(hashlib.sha256(content).digest())
    return state.hexdigest()[:32]


def source_digest(*paths: Path) -> str:
    """Of files, and of every Python file in folders."""
    files = [f for p in paths for f in (sorted(p.rglob("*.py")) if p.is_dir() else [p])]
    return digest(file.read_bytes() for file in files)


@dataclass(frozen=True)
class Results:
    """Measurements in a folder.

    Attributes:
        folder: One file a measurement.
        measures: Whether what is not there is measured; it is None otherwise.
    """

    folder: Path = FOLDER
    measures: bool = True

    def get(self, key: Iterable[bytes | str], measure: Callable[[], Measured]) -> Measured | None:
        """The measurement of a key, made if need be."""
        path = self.folder / f"{digest(key)}.json"
        if path.exists():
            return Measured(**json.loads(path.read_text()))
        if not self.measures:
            return None
        measured = measure()
        self.folder.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(asdict(measured)))
        return measured
