"""Blocks: the channel classes that the same convolutions produce, and scores that compare them."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from graph_ops.channel_classes import ChannelClasses


@dataclass(frozen=True)
class Block:
    """Classes that the same convolutions produce.

    Attributes:
        classes: Class ids, ascending.
        convolutions: Positions (in the analysis) of the producing convolutions.
        filters_per_class: How many filters of each of them one class holds.
    """

    classes: tuple[int, ...]
    convolutions: tuple[int, ...]
    filters_per_class: tuple[int, ...]

    @property
    def filters(self) -> int:
        """Filters that go when one class goes."""
        return sum(self.filters_per_class)


def find_blocks(classes: ChannelClasses, prunable: NDArray[np.bool_]) -> list[Block]:
    """Group prunable classes by the convolutions that produce them.

    Args:
        classes: Channel classes of the model.
        prunable: [classes] which may go.
    """
    members: dict[int, dict[int, int]] = defaultdict(dict)
    for position, convolution in enumerate(classes.channels.convolutions):
        if not convolution.is_producer:
            continue
        ids, counts = np.unique(classes.of_filters(convolution), return_counts=True)
        for class_id, count in zip(ids.tolist(), counts.tolist(), strict=True):
            members[class_id][position] = count
    groups: dict[tuple[tuple[int, int], ...], list[int]] = defaultdict(list)
    for class_id in sorted(members):
        if prunable[class_id]:
            groups[tuple(sorted(members[class_id].items()))].append(class_id)
    return [
        Block(tuple(ids), tuple(p for p, _ in key), tuple(c for _, c in key))
        for key, ids in sorted(groups.items())
    ]


def normalize(
    scores: NDArray[np.float64], blocks: list[Block], alive: NDArray[np.bool_], how: str
) -> NDArray[np.float64]:
    """Divide each block's scores by their l2 norm or mean, so that layers compare.

    Args:
        scores: [classes] scores.
        blocks: Blocks of prunable classes.
        alive: [classes] which are still there.
        how: Option `normalization`.
    """
    if how == "none":
        return scores
    result = scores.copy()
    for block in blocks:
        ids = np.asarray([c for c in block.classes if alive[c]], dtype=np.int64)
        if ids.size == 0:
            continue
        own = scores[ids]
        scale = float(np.linalg.norm(own) if how == "l2" else own.mean())
        if scale > 0:
            result[ids] = own / scale
    return result
