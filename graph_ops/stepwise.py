"""The proof node by node, for networks that carry rounding too far to be compared at their end.

Every node of the pruned model is given what the masked original computes, less the channels that
were dropped, and has to compute what the original does from there. So no node adds to the rounding
of another: what is left is that of one operator, in float64. Where every node does what its
counterpart does, the models do the same: induction along the graph.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from graph_ops.channel_classes import ChannelClasses
from graph_ops.difference import difference, relative
from graph_ops.double_precision import DoubleSession
from graph_ops.runtime import Array


def largest_step(
    classes: ChannelClasses,
    dropped: NDArray[np.bool_],
    reference: ir.Model,
    candidate: ir.Model,
    feeds: Mapping[str, Array],
) -> tuple[float, float]:
    """Largest difference that one node adds: absolute, and relative to its largest magnitude.

    Args:
        classes: Channel classes of the original.
        dropped: [classes] which were dropped.
        reference: The masked original.
        candidate: The pruned model; its values are named as the original's.
        feeds: One batch.

    Returns:
        Infinity where an output of the model could not be compared.

    Raises:
        ModelRunError: the reference implementation does not know an operator, or fails.
    """
    wanted = _left(classes, dropped, DoubleSession(reference).run_all(feeds))
    session = DoubleSession(candidate)
    missing = set(session.output_names)
    largest, share = 0.0, 0.0
    for name, found in session.steps(feeds, wanted):
        expected = wanted.get(name)
        if expected is None or expected.shape != found.shape:
            continue
        missing.discard(name)
        gap, magnitude = difference(found, expected)
        largest = max(largest, gap)
        share = max(share, relative(gap, magnitude))
    return (np.inf, np.inf) if missing else (largest, share)


def _left(
    classes: ChannelClasses, dropped: NDArray[np.bool_], values: Mapping[str, Array]
) -> dict[str, Array]:
    """What the original computes in floats, and its outputs, in the channels that stay.

    Integers inside it are left out: they may spell a number of channels.
    """
    graph = classes.channels.model.graph
    outputs = {str(value.name) for value in graph.outputs}
    found = {}
    for value in (o for node in graph for o in node.outputs):
        array = values.get(str(value.name))
        if array is None or not (array.dtype.kind == "f" or value.name in outputs):
            continue
        for axis in range(array.ndim):
            labels = classes.channels.axis(value, axis)
            if labels is not None and labels.size == array.shape[axis]:
                array = np.compress(classes.kept(labels, dropped), array, axis=axis)
        found[str(value.name)] = array
    return found
