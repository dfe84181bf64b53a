"""From numbers per filter to numbers per channel class."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray
from scipy.sparse import csr_array

from graph_ops.channel_classes import ChannelClasses
from graph_ops.channels import Convolution
from graph_ops.float_shadow import stored_weight
from graph_ops.graph import int_of
from graph_ops.runtime import Array


class ClassMap:
    """Sums filters' contributions into their classes.

    Args:
        classes: Channel classes of the original model.
        convolutions: The scored convolutions, in the order their contributions come.
        alive: [classes] which are still there; a cut convolution has only their filters.
    """

    def __init__(
        self,
        classes: ChannelClasses,
        convolutions: Sequence[Convolution],
        alive: NDArray[np.bool_],
    ) -> None:
        columns = [classes.of_filters(c) for c in convolutions]
        targets = np.concatenate([ids[alive[ids]] for ids in columns])
        ones = np.ones(targets.size)
        self._matrix = csr_array(
            (ones, (np.arange(targets.size), targets)), shape=(targets.size, classes.count)
        )

    def sum(self, parts: Sequence[Array]) -> NDArray[np.float64]:
        """[N, classes] signed sums of the parts [N, C] of the convolutions."""
        joined = np.concatenate(parts, axis=1).astype(np.float64)
        return np.asarray(joined @ self._matrix, dtype=np.float64)


def magnitudes(
    classes: ChannelClasses, alive: NDArray[np.bool_], current: ir.Model
) -> NDArray[np.float64]:
    """[classes] l2 norm of the weights that make a class's channels, as they are now.

    Args:
        classes: Channel classes of the original model.
        alive: [classes] which are still there.
        current: The model as it is cut now; its nodes are those of the original, in order.
    """
    counterpart = dict(zip(classes.channels.model.graph, current.graph, strict=True))
    squares = np.zeros(classes.count)
    for convolution in classes.channels.convolutions:
        ids = classes.of_filters(convolution)
        weight = stored_weight(counterpart[convolution.node].inputs[1])
        if not convolution.is_producer or weight is None or ids.size == 0:
            continue
        own = _filter_squares(convolution.node, weight)
        np.add.at(squares, ids[alive[ids]], own)
    return np.sqrt(squares)


def _filter_squares(node: ir.Node, weight: NDArray[np.generic]) -> NDArray[np.float64]:
    """[M] sum of squares of each filter's weights."""
    squares = np.square(weight.astype(np.float64))
    if node.op_type == "Conv":
        return np.asarray(squares.reshape(weight.shape[0], -1).sum(axis=1))
    group = int_of(node, "group", 1)
    grouped = squares.reshape(group, weight.shape[0] // group, weight.shape[1], -1)
    return np.asarray(grouped.sum(axis=(1, 3)).reshape(-1))
