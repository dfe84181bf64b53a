"""How a network compares with the original on samples that nothing was fitted on."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from graph_ops.bundle import Batch, Dataset
from graph_ops.runtime import Array, Session


@dataclass(frozen=True)
class Classifier:
    """An output whose largest entry along axis 1 is a class.

    Attributes:
        output: Its name.
        classes: How many classes there are.
    """

    output: str
    classes: int


@dataclass(frozen=True)
class Verdict:
    """How a network compares with the original on the samples set aside.

    Attributes:
        error: Root mean square difference of the outputs relative to the original's root mean
            square, the mean over outputs of numbers; infinite where something is not finite.
        same: [n] whether each sample is given the same class; empty where it is no classifier.
    """

    error: float
    same: NDArray[np.bool_]

    @property
    def agreement(self) -> float:
        """Share of samples given the same class."""
        return float(self.same.mean()) if self.same.size else 1.0

    def is_better_than(self, other: Verdict) -> bool:
        """Whether its error is smaller, and it agrees with the original no less often."""
        return self.error < other.error and not self.agrees_less(other)

    def agrees_less(self, other: Verdict) -> bool:
        """Whether it agrees less often than another, by over two standard errors.

        Only samples on which the two differ count (McNemar): without a real difference, gains and
        losses among k of them differ by about √k.
        """
        if self.same.size != other.same.size:
            return False
        lost = int((other.same & ~self.same).sum())
        gained = int((self.same & ~other.same).sum())
        return lost - gained > 2 * math.sqrt(lost + gained)


class Judge:
    """Error of a model's outputs against the original's.

    Args:
        original: The original.
        samples: Those set aside.
        classifier: The output that names a class, if there is one.
    """

    def __init__(self, original: ir.Model, samples: Dataset, classifier: Classifier | None) -> None:
        session = Session(original, keep_memory=False)
        self._samples = samples
        self._names = session.output_names
        self._classifier = None if classifier is None else classifier.output
        self._wanted = [self._run(session, batch) for batch in samples.batches("scored")]

    @property
    def can_compare(self) -> bool:
        """Whether the original's outputs have float numbers, all finite and not all zero."""
        arrays = [a for batch in self._wanted for a in batch if a.dtype.kind == "f"]
        return all(np.isfinite(a).all() for a in arrays) and any(a.any() for a in arrays)

    def verdict(self, model: ir.Model) -> Verdict:
        """Run a model on the samples set aside."""
        session = Session(model, keep_memory=False)
        names = self._names
        return self.compare(session.run(b.inputs, names) for b in self._samples.batches("scored"))

    def compare(self, outputs: Iterable[Sequence[Array]]) -> Verdict:
        """The same from a model's outputs.

        Args:
            outputs: Of every batch of the samples set aside, in the order of the model's outputs.
        """
        count = len(self._names)
        gap, energy = np.zeros(count), np.zeros(count)
        same = [np.empty(0, dtype=np.bool_)]
        for whole, wanted in zip(outputs, self._wanted, strict=True):
            for i, (a, given) in enumerate(zip(wanted, whole, strict=True)):
                b = given[: a.shape[0]] if a.ndim and given.ndim else given
                if a.dtype.kind == "f" and a.shape == b.shape:
                    gap[i] += np.square(a.astype(np.float64) - b).sum()
                    energy[i] += np.square(a.astype(np.float64)).sum()
                if self._names[i] == self._classifier:
                    same.append((a.argmax(axis=1) == b.argmax(axis=1)).reshape(-1))
        used = energy > 0
        if not used.any() or not np.isfinite(gap).all() or not np.isfinite(energy).all():
            return Verdict(float("inf"), np.empty(0, dtype=np.bool_))
        error = float(np.sqrt(gap[used] / energy[used]).mean())
        return Verdict(error, np.concatenate(same))

    def _run(self, session: Session, batch: Batch) -> Sequence[Array]:
        rows = next(iter(batch.inputs.values())).shape[0]
        found = session.run(batch.inputs, self._names)
        return [a[: batch.size] if a.ndim and a.shape[0] == rows else a for a in found]
