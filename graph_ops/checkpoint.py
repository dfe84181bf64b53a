"""What a run has reached after a round, kept so that a run which was cut short goes on from there.

Rounds are deterministic: what a round does depends on the model, the bundle, the options and what
earlier rounds left. So a run that goes on from a checkpoint ends with the same model, scores and
report, byte for byte, as one that was never cut short; only its timings differ.

A checkpoint is one `.npz` file per run, `round-0003.npz` after three rounds, written under another
name, flushed to disk, and renamed: it is there completely or not at all. A key in it says which
run it belongs to. One that is damaged or of another run is as good as none: the run starts over.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import secrets
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from graph_ops.rank_by import RankBy
from graph_ops.recovery import RefittedWeights
from graph_ops.runtime import Array
from graph_ops.scores import ScoreState

FORMAT = 6
_NAME = re.compile(r"round-(\d{4,})\.npz")
_UNREADABLE = (ValueError, KeyError, TypeError, AttributeError, EOFError, BadZipFile, OSError)
"""What NumPy and its zip reader raise on files that are missing, no `.npz`, or a broken one."""


@dataclass(frozen=True)
class RoundState:
    """A run after one of its rounds.

    Whatever else a round changes about the network has to be added here.

    Attributes:
        number: Rounds that are done.
        filters: Filters dropped by them.
        dropped: [classes] which classes are gone.
        last_scores: [classes] last score of each class; NaN where there is none.
        weights: What the rounds refitted.
        first_scores: Scores of the whole network; None for criteria without gradients.
        rounds: The report's entry of each round.
        rank_by: What layers were compared by, and why.
        engine: Who computed the gradients, as in the report; None for criteria without them.
        stop_reason: Why the last round was the last; None when there are more.
        timing_s: Seconds spent so far, by phase.
        goal: What a search has found so far, JSON-ready; None without one.
    """

    number: int
    filters: int
    dropped: NDArray[np.bool_]
    last_scores: NDArray[np.float64]
    weights: RefittedWeights
    first_scores: ScoreState | None
    rounds: list[dict[str, Any]]
    rank_by: RankBy
    engine: dict[str, Any] | None = None
    stop_reason: str | None = None
    timing_s: dict[str, float] = field(default_factory=dict)
    goal: dict[str, Any] | None = None


def run_key(*parts: str) -> str:
    """Identifies a run by everything that determines its result."""
    return hashlib.sha256("|".join(parts).encode()).hexdigest()


class Checkpoint:
    """The newest round state of one run, in a folder of its own.

    Args:
        folder: Where it is kept; made when the first state is saved.
    """

    def __init__(self, folder: str | Path) -> None:
        self._folder = Path(folder)

    def save(self, key: str, state: RoundState) -> None:
        """Keep a state, on disk before this returns; earlier ones go.

        Raises:
            OSError: it cannot be written.
        """
        self._folder.mkdir(parents=True, exist_ok=True)
        target = self._folder / f"round-{state.number:04d}.npz"
        temporary = self._folder / f".{target.name}.{secrets.token_hex(6)}"
        try:
            with temporary.open("xb") as file:
                np.savez(file, **_arrays_of(key, state))
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(target)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        _sync(self._folder)
        for number, path in _states(self._folder):
            if number < state.number:
                path.unlink(missing_ok=True)

    def load(self, key: str) -> RoundState | None:
        """The newest state of the run with this key; None when there is none that can be read."""
        for _, path in sorted(_states(self._folder), reverse=True):
            try:
                with path.open("rb") as raw, np.load(raw, allow_pickle=False) as file:
                    return _state_of(key, file)
            except _UNREADABLE:
                continue
        return None

    def keep_file(self, name: str, content: bytes) -> None:
        """Keep a file beside the states, on disk before this returns.

        Raises:
            OSError: it cannot be written.
        """
        self._folder.mkdir(parents=True, exist_ok=True)
        temporary = self._folder / f".{name}.{secrets.token_hex(6)}"
        try:
            with temporary.open("xb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(self._folder / name)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        _sync(self._folder)

    def read_file(self, name: str) -> bytes | None:
        """A file that was kept, or None."""
        try:
            return (self._folder / name).read_bytes()
        except OSError:
            return None


class SavedRun:
    """One run and its checkpoint, if it has one.

    Args:
        checkpoint: Where states are kept; None keeps nothing.
        key: Identifies the run (`run_key`).
        classes: Channel classes of its network.
    """

    def __init__(self, checkpoint: Checkpoint | None, key: str, classes: int) -> None:
        self._checkpoint = checkpoint
        self._key = key
        self._classes = classes

    def load(self) -> RoundState | None:
        """Where to go on from; None to start at the beginning."""
        state = None if self._checkpoint is None else self._checkpoint.load(self._key)
        if state is None or not state.dropped.size == state.last_scores.size == self._classes:
            return None
        return state

    def save(self, state: RoundState) -> None:
        """Keep what a round reached."""
        if self._checkpoint is not None:
            self._checkpoint.save(self._key, state)

    def keep_file(self, name: str, content: bytes) -> None:
        """Keep a file of the run."""
        if self._checkpoint is not None:
            self._checkpoint.keep_file(f"{self._key[:16]}-{name}", content)

    def read_file(self, name: str) -> bytes | None:
        """A file that the run kept, or None."""
        if self._checkpoint is None:
            return None
        return self._checkpoint.read_file(f"{self._key[:16]}-{name}")


def rounds_done(folder: Path) -> int:
    """Rounds that the checkpoint in a folder has, by its name; 0 when there is none."""
    return max((number for number, _ in _states(folder)), default=0)


def _states(folder: Path) -> list[tuple[int, Path]]:
    try:
        names = os.listdir(folder)
    except OSError:
        return []
    found = ((_NAME.fullmatch(name), name) for name in names)
    return [(int(match[1]), folder / name) for match, name in found if match]


def _arrays_of(key: str, state: RoundState) -> dict[str, Any]:
    header = {
        "format": FORMAT,
        "key": key,
        "number": state.number,
        "filters": state.filters,
        "rounds": state.rounds,
        "rank_by": asdict(state.rank_by),
        "engine": state.engine,
        "stop_reason": state.stop_reason,
        "timing_s": state.timing_s,
        "goal": state.goal,
    }
    arrays: dict[str, Any] = {"dropped": state.dropped, "last_scores": state.last_scores}
    if state.first_scores is not None:
        arrays |= state.first_scores.arrays()
    for kind, refitted in _refitted(state.weights).items():
        header[kind] = list(refitted)
        arrays |= {f"{kind}_{i}": array for i, array in enumerate(refitted.values())}
    return {"header": np.frombuffer(json.dumps(header).encode(), dtype=np.uint8), **arrays}


def _state_of(key: str, file: Any) -> RoundState:
    header = json.loads(bytes(file["header"]).decode())
    if header["format"] != FORMAT or header["key"] != key:
        raise KeyError("key")
    first = ScoreState.of_arrays(file) if "scores" in file else None
    return RoundState(
        number=int(header["number"]),
        filters=int(header["filters"]),
        dropped=np.asarray(file["dropped"], dtype=np.bool_),
        last_scores=np.asarray(file["last_scores"], dtype=np.float64),
        weights=RefittedWeights(
            **{
                kind: {name: np.array(file[f"{kind}_{i}"]) for i, name in enumerate(header[kind])}
                for kind in _refitted(RefittedWeights())
            }
        ),
        first_scores=first,
        rounds=list(header["rounds"]),
        rank_by=RankBy(**header["rank_by"]),
        engine=header["engine"],
        stop_reason=header["stop_reason"],
        timing_s=dict(header["timing_s"]),
        goal=header["goal"],
    )


def _refitted(weights: RefittedWeights) -> dict[str, Mapping[str, Array]]:
    """Names of tensors are no names of files: each kind is numbered, in the order of its header."""
    return {"tensors": weights.tensors, "biases": weights.biases}


def _sync(folder: Path) -> None:
    """Flush a folder's entries to disk."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
