"""The score state: sums over samples that add up across batches, machines and calls.

For channel class k with producing convolutions P(k), sample n, output a and gradient g = dL/da:

    c[n, k] = Σ_{p∈P(k)} Σ_positions (a_p[n, k] − a₀) · g_p[n, k]   (signed: the class goes as a
                                                                     whole)
    taylor         mean_n |c[n, k]|
    taylor_squared mean_n c[n, k]²

a₀ is where dropping moves the output: 0, or what a following BatchNormalization maps to zero (the
option `gate`). This is the first-order Taylor expansion of the loss (Molchanov et al. 2017,
arXiv 1611.06440, and 2019, arXiv 1906.10771).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from graph_ops.errors import ScoresMissingError, ScoreStateError
from graph_ops.exact_sums import LIMBS, ExactSums
from graph_ops.options import Criterion

FORMAT = 2
UNREADABLE = (ValueError, KeyError, TypeError, AttributeError, EOFError, BadZipFile)
"""What NumPy and its zip reader raise on files that are not an `.npz`, or a broken one."""


@dataclass
class ScoreState:
    """Accumulated scores of one model's channel classes.

    Sums are exact (`exact_sums.py`), so that parts add up to the same bits in any order.

    Attributes:
        digest: Identifies the model, its cut, and the definition of the score.
        absolute: [classes] Σ_n |c|.
        squares: [classes] Σ_n c².
        losses: [2] sums of their positive losses and of the negative ones' magnitudes; lost where
            one is not known.
        samples: Samples summed over.
        binding: What was scored on, JSON-ready: `sample_shapes` by input, and `targets` (`dtype`
            and `shape` of one sample's, or None), with which the network can be opened again.
    """

    digest: str
    absolute: ExactSums
    squares: ExactSums
    losses: ExactSums
    samples: int = 0
    binding: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def empty(cls, digest: str, count: int, binding: dict[str, Any] | None = None) -> ScoreState:
        """No samples yet."""
        sums = (ExactSums.zeros(count), ExactSums.zeros(count), ExactSums.zeros(2))
        return cls(digest, *sums, binding=binding or {})

    def add(self, contributions: NDArray[np.float64], losses: NDArray[np.floating] | None) -> None:
        """Add samples.

        Args:
            contributions: [N, classes] c of each sample.
            losses: [N] loss of each sample; None where it is not known, and so no mean is.
        """
        self.absolute.add(np.abs(contributions))
        self.squares.add(np.square(contributions))
        self.samples += contributions.shape[0]
        known = np.asarray([np.nan] if losses is None else losses, dtype=np.float64).reshape(-1)
        self.losses.add(np.stack([np.maximum(known, 0), np.maximum(-known, 0)], axis=1))

    @property
    def sum_abs(self) -> NDArray[np.float64]:
        """[classes] Σ_n |c| as numbers."""
        return self.absolute.values

    @property
    def sum_squares(self) -> NDArray[np.float64]:
        """[classes] Σ_n c² as numbers."""
        return self.squares.values

    @property
    def mean_loss(self) -> float | None:
        """Mean loss over the samples; None before the first, or where one is not known."""
        positive, negative = self.losses.values.tolist()
        if self.samples == 0 or np.isnan(positive) or np.isnan(negative):
            return None
        return float((positive - negative) / self.samples)

    def merge(self, other: ScoreState) -> ScoreState:
        """The sum of two states, the same to the bit in whatever order parts are merged.

        Raises:
            ScoreStateError: they belong to different models or definitions.
        """
        other.require(self.digest)
        return ScoreState(
            self.digest,
            self.absolute.merge(other.absolute),
            self.squares.merge(other.squares),
            self.losses.merge(other.losses),
            self.samples + other.samples,
            self.binding,
        )

    def scores(self, criterion: Criterion) -> NDArray[np.float64]:
        """[classes] mean over samples of |c| or c².

        Raises:
            ScoresMissingError: there are no samples yet.
        """
        if self.samples == 0:
            raise ScoresMissingError("No scores yet: call update_score with a batch first.")
        sums = self.sum_squares if criterion is Criterion.TAYLOR_SQUARED else self.sum_abs
        return sums / self.samples

    def arrays(self) -> dict[str, NDArray[Any]]:
        """The state as arrays that can be saved together with others."""
        header = {"digest": self.digest, "samples": self.samples, "binding": self.binding}
        sums = {"abs": self.absolute, "squares": self.squares, "losses": self.losses}
        text = json.dumps(header, sort_keys=True).encode()
        arrays: dict[str, NDArray[Any]] = {"scores": np.frombuffer(text, dtype=np.uint8)}
        for name, total in sums.items():
            arrays[f"scores_{name}"] = np.ascontiguousarray(total.limbs)
            arrays[f"scores_{name}_lost"] = total.is_lost
        return arrays

    @classmethod
    def of_arrays(cls, file: Mapping[str, NDArray[Any]]) -> ScoreState:
        """The state that `arrays` gave.

        Raises:
            KeyError, ValueError, TypeError: something is missing or not as it was given.
        """
        header = json.loads(bytes(file["scores"]).decode())
        sums = [
            ExactSums(
                np.asarray(file[f"scores_{name}"], dtype=np.int64, order="F"),
                np.asarray(file[f"scores_{name}_lost"], dtype=np.bool_),
            )
            for name in ("abs", "squares", "losses")
        ]
        for total, count in zip(sums, (len(sums[0].limbs), len(sums[0].limbs), 2), strict=True):
            if total.limbs.shape != (count, LIMBS) or total.is_lost.shape != (count,):
                raise ValueError("shape")
        return cls(
            str(header["digest"]),
            sums[0],
            sums[1],
            sums[2],
            int(header["samples"]),
            dict(header["binding"]),
        )

    def save(self, path: str | Path) -> None:
        """Write the state as `.npz`."""
        with open(path, "wb") as file:
            np.savez(file, format=np.int64(FORMAT), **self.arrays())  # type: ignore[arg-type]

    @classmethod
    def load(cls, path: str | Path) -> ScoreState:
        """Read a saved state.

        Raises:
            ScoreStateError: the file is not a score state.
        """
        try:
            with np.load(path, allow_pickle=False) as file:
                if int(file["format"]) != FORMAT:
                    raise KeyError("format")
                return cls.of_arrays(file)
        except OSError as error:
            raise ScoreStateError(
                f"The score state {str(path)!r} cannot be read: {error.strerror or error}.",
                file=str(path),
            ) from None
        except UNREADABLE:
            raise ScoreStateError(
                f"{str(path)!r} is not a score state of format {FORMAT}, or is damaged.",
                file=str(path),
            ) from None

    def require(self, digest: str) -> None:
        """Check that the state belongs to a model.

        Raises:
            ScoreStateError: it does not.
        """
        if digest != self.digest:
            raise ScoreStateError(
                "The score state belongs to another model or another definition of the score.",
                expected=digest,
                found=self.digest,
            )
