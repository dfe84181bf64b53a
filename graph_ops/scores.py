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
from dataclasses import dataclass, field
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from graph_ops.errors import ScoresMissingError, ScoreStateError
from graph_ops.options import Criterion

FORMAT = 1
_UNREADABLE = (ValueError, KeyError, TypeError, AttributeError, EOFError, BadZipFile)
"""What NumPy and its zip reader raise on files that are not an `.npz`, or a broken one."""


@dataclass
class ScoreState:
    """Accumulated scores of one model's channel classes.

    Attributes:
        digest: Identifies the model, its cut, and the definition of the score.
        sum_abs: [classes] Σ_n |c|, float64.
        sum_squares: [classes] Σ_n c², float64.
        samples: Samples summed over.
        losses: Sum of their losses; NaN where one is not known.
    """

    digest: str
    sum_abs: NDArray[np.float64]
    sum_squares: NDArray[np.float64]
    samples: int = 0
    losses: float = field(default=0.0)

    @classmethod
    def empty(cls, digest: str, count: int) -> ScoreState:
        """No samples yet."""
        return cls(digest, np.zeros(count), np.zeros(count))

    def add(self, contributions: NDArray[np.float64], losses: NDArray[np.floating] | None) -> None:
        """Add samples.

        Args:
            contributions: [N, classes] c of each sample.
            losses: [N] loss of each sample; None where it is not known, and so no mean is.
        """
        self.sum_abs += np.abs(contributions).sum(axis=0)
        self.sum_squares += np.square(contributions).sum(axis=0)
        self.samples += contributions.shape[0]
        self.losses += np.nan if losses is None else float(np.sum(losses, dtype=np.float64))

    @property
    def mean_loss(self) -> float | None:
        """Mean loss over the samples; None before the first, or where one is not known."""
        if self.samples == 0 or np.isnan(self.losses):
            return None
        return self.losses / self.samples

    def merge(self, other: ScoreState) -> ScoreState:
        """The sum of two states.

        Raises:
            ScoreStateError: they belong to different models or definitions.
        """
        other.require(self.digest)
        return ScoreState(
            self.digest,
            self.sum_abs + other.sum_abs,
            self.sum_squares + other.sum_squares,
            self.samples + other.samples,
            self.losses + other.losses,
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

    def save(self, path: str | Path) -> None:
        """Write the state as `.npz`."""
        header = json.dumps({"format": FORMAT, "digest": self.digest})
        with open(path, "wb") as file:
            np.savez(
                file,
                header=np.frombuffer(header.encode(), dtype=np.uint8),
                sum_abs=self.sum_abs,
                sum_squares=self.sum_squares,
                samples=np.int64(self.samples),
                losses=np.float64(self.losses),
            )

    @classmethod
    def load(cls, path: str | Path) -> ScoreState:
        """Read a saved state.

        Raises:
            ScoreStateError: the file is not a score state.
        """
        try:
            with np.load(path, allow_pickle=False) as file:
                header = json.loads(bytes(file["header"]).decode())
                if header.get("format") != FORMAT:
                    raise KeyError("format")
                return cls(
                    str(header["digest"]),
                    np.asarray(file["sum_abs"], dtype=np.float64),
                    np.asarray(file["sum_squares"], dtype=np.float64),
                    int(file["samples"]),
                    float(file["losses"]),
                )
        except OSError as error:
            raise ScoreStateError(
                f"The score state {str(path)!r} cannot be read: {error.strerror or error}.",
                file=str(path),
            ) from None
        except _UNREADABLE:
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
