"""The original network, as what a cut one learns from."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
import onnx_ir as ir

from graph_ops.canonical import ScoringCopy, scoring_copy
from graph_ops.engines.sums import set_outputs
from graph_ops.errors import LossError
from graph_ops.loss import output_form
from graph_ops.runtime import Array, Session

Shapes = Mapping[str, tuple[int, ...]]


def output_values(copy: ScoringCopy) -> dict[str, ir.Value]:
    """What is compared, by graph output: the logits of float outputs."""
    found = {}
    for output in copy.model.graph.outputs:
        try:
            form = output_form(copy.model, copy.shapes, str(output.name))
        except LossError:
            continue
        found[form.name] = form.logits
    return found


class Teacher:
    """The original network.

    Args:
        model: The original.
        sample_shapes: Shape of one sample by input name.
    """

    def __init__(self, model: ir.Model, sample_shapes: Shapes) -> None:
        copy = scoring_copy(model, sample_shapes)
        values = output_values(copy)
        set_outputs(copy.model, list(dict.fromkeys(values.values())))
        self._names = {output: str(value.name) for output, value in values.items()}
        self._session = Session(copy.model)

    def outputs(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """What a student should compute, by graph output."""
        names = list(dict.fromkeys(self._names.values()))
        found = dict(zip(names, self._session.run(inputs, names), strict=True))
        return {output: found[name] for output, name in self._names.items()}


def mean_squares(outputs: Iterable[Mapping[str, Array]]) -> dict[str, float]:
    """Mean square of each output over batches; 0 where it is not finite."""
    sums: dict[str, float] = {}
    counts: dict[str, int] = {}
    for batch in outputs:
        for name, array in batch.items():
            square = float(np.square(array, dtype=np.float64).sum())
            sums[name] = sums.get(name, 0.0) + square
            counts[name] = counts.get(name, 0) + array.size
    return {n: s / counts[n] if np.isfinite(s) and counts[n] else 0.0 for n, s in sums.items()}
