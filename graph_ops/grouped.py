"""Grouped convolutions whose groups can go only as a whole.

A grouped convolution stays balanced when every group loses equally many channels, which ones is
free. Where normalisation ties all channels of a group to each other (EvoNorm, GroupNormalization)
no group can lose a part. If that holds for what a group reads and for its filters, the group goes
with both, as a channel of a depthwise convolution does. If it holds for one side only, that side
has to stay.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from graph_ops.edits import NarrowGroups, SpellCount
from graph_ops.graph import node_label

if TYPE_CHECKING:
    from graph_ops.channels import Channels, CostItem, Labels


@dataclass(frozen=True)
class GroupedConvolution:
    """A convolution of several groups of several channels.

    Attributes:
        node: The convolution.
        inputs: [groups, width] labels of what each group reads.
        filters: [groups, filters of a group] labels of what it makes.
    """

    node: ir.Node
    inputs: Labels
    filters: Labels


def settle_groups(channels: Channels, class_of: NDArray[np.int64]) -> None:
    """Let whole groups go where nothing less can.

    Args:
        channels: Every rule has been applied.
        class_of: [labels] what is coupled so far.
    """
    whole = []
    for convolution in channels.grouped:
        sides = (convolution.inputs, convolution.filters)
        tied = [bool((class_of[s] == class_of[s[:, :1]]).all()) for s in sides]
        if all(tied):
            whole.append(convolution)
            continue
        for side, is_tied in zip(sides, tied, strict=True):
            if is_tied:
                name = node_label(convolution.node)
                reason = "needs equally many in every group, and those of a group go together"
                channels.freeze(side.reshape(-1), f"grouped convolution {name!r} {reason}")
    if whole:
        _let_go(channels, whole)


def _let_go(channels: Channels, whole: Sequence[GroupedConvolution]) -> None:
    """Couple what the groups read with their filters; nothing is balanced or narrowed any more.

    What is taken back here had to be there before: rules count with balances (`classes_among`).
    """
    nodes = {c.node for c in whole}
    tables = {id(table) for c in whole for table in (c.inputs, c.filters)}
    channels.balances = [b for b in channels.balances if id(b) not in tables]
    channels.edits = [
        e for e in channels.edits if not (isinstance(e, NarrowGroups) and e.node in nodes)
    ]
    channels.costs = [_whole_cost(i) if i.node in nodes else i for i in channels.costs]
    for convolution in whole:
        name = node_label(convolution.node)
        weight = convolution.node.inputs[1]
        assert weight is not None
        channels.narrowed.pop(weight, None)
        first = np.ascontiguousarray(convolution.inputs[:, 0])
        channels.couple(first, convolution.filters[:, 0], f"groups of {name!r} go as a whole")
        channels.edit(SpellCount(convolution.node, "group", None, first))


def _whole_cost(item: CostItem) -> CostItem:
    """Each filter reads as many channels as ever; the last but positions are the input's."""
    filters, inputs, *positions = item.axes
    width = inputs.size // item.divisor
    return replace(item, factor=item.factor * width, axes=(filters, *positions), divisor=1)
