"""Classes of coupled channels: what can only go together, and what cannot go."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from graph_ops.balance import Balances

if TYPE_CHECKING:
    from graph_ops.channels import Channels, Convolution, Labels


@dataclass(frozen=True)
class ChannelClasses:
    """The classes of coupled channels of one model.

    Attributes:
        channels: The label graph they come from.
        class_of: [labels] class of every label.
        count: Number of classes.
        reason_index: [count] index into `reasons` of why a class is frozen, -1 when it is not.
        reasons: Reasons for freezing.
    """

    channels: Channels
    class_of: NDArray[np.int64]
    count: int
    reason_index: NDArray[np.int64]
    reasons: list[str] = field(repr=False)

    @cached_property
    def balances(self) -> Balances:
        """What grouped convolutions ask of a set of dropped classes."""
        return Balances(self.class_of, self.channels.balances, self.count)

    @cached_property
    def is_frozen(self) -> NDArray[np.bool_]:
        """[count] whether nothing of the class may be removed."""
        return self.reason_index >= 0

    @cached_property
    def is_prunable(self) -> NDArray[np.bool_]:
        """[count] whether a convolution produces the class and nothing freezes it."""
        mask = np.zeros(self.count, dtype=np.bool_)
        for convolution in self.channels.convolutions:
            if convolution.is_producer:
                mask[self.of_filters(convolution)] = True
        return mask & ~self.is_frozen

    @cached_property
    def partial_axes(self) -> list[NDArray[np.int64]]:
        """Classes of each axis that could lose all of them while every convolution keeps some.

        Such is a part of a Split: what it holds comes from elsewhere, and one has to stay.
        """
        whole = [
            set(self.of_filters(c).tolist()) for c in self.channels.convolutions if c.is_producer
        ]
        holding: dict[int, list[int]] = defaultdict(list)
        for index, members in enumerate(whole):
            for class_id in members:
                holding[class_id].append(index)
        found: dict[tuple[int, ...], NDArray[np.int64]] = {}
        for labels in self.channels.labelled_axes():
            ids = np.unique(self.class_of[labels])
            key = tuple(ids.tolist())
            if key in found or self.is_frozen[ids].any():
                continue
            inside = set(key)
            candidates = {i for class_id in key for i in holding[class_id]}
            if not any(whole[i] <= inside for i in candidates):
                found[key] = ids
        return list(found.values())

    def reason(self, class_id: int) -> str | None:
        """Why a class is frozen, or None."""
        index = int(self.reason_index[class_id])
        return self.reasons[index] if index >= 0 else None

    def of_filters(self, convolution: Convolution) -> NDArray[np.int64]:
        """[M] class of each filter of a convolution (empty when it carries no labels)."""
        if convolution.filters is None:
            return np.empty(0, np.int64)
        return self.class_of[convolution.filters]

    def kept(self, labels: Labels, dropped: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """[len(labels)] which indices stay when the classes marked in `dropped` go."""
        return ~dropped[self.class_of[labels]]
