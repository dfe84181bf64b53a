"""Selection: from scores and a target to the channel classes that go.

Classes with the same producing convolutions form a *block* (a plain layer, a residual stage). A
block gives its classes up lowest score first, in chunks that keep its filter counts multiples of
`channel_multiple`, and never below `min_filters`. Classes that a grouped convolution binds go in
balanced bundles instead (`graph_ops.balance`). Blocks and bundles compete by the score of their
next unit (per filter, or per MAC saved). Everything is ordered by (rank, score, class), so the
same scores always give the same selection.
"""

from __future__ import annotations

import heapq
import math
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from graph_ops.channels import ChannelClasses
from graph_ops.cost import CostModel, Meter
from graph_ops.options import PruneOptions


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


@dataclass(frozen=True)
class DropOrder:
    """Units (sets of classes that go together) of one layer, in the order in which they go.

    Attributes:
        units: Class ids of each, lowest score first.
        droppable: How many of them may go when nothing else does.
    """

    units: Sequence[Sequence[int]]
    droppable: int


@dataclass(frozen=True)
class Goal:
    """Bounds of one round; whichever is set decides.

    Attributes:
        filters: Filters to drop, and no more.
        at_most: Filters that one round may drop, whatever the goal.
        macs: MACs that may remain.
        parameters: Parameters that may remain.
        size_bytes: Bytes that may remain.
    """

    filters: int | None = None
    at_most: int | None = None
    macs: float | None = None
    parameters: float | None = None
    size_bytes: float | None = None


@dataclass(frozen=True)
class Selection:
    """What goes.

    Attributes:
        classes: Class ids in the order they were chosen.
        filters: Filters they hold.
        is_reached: Whether the goal is met.
    """

    classes: tuple[int, ...]
    filters: int
    is_reached: bool


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


class Selector:
    """Chooses classes greedily under the floors of the options.

    Args:
        classes: Channel classes of the model.
        prunable: [classes] which may go.
        options: `min_filters`, `channel_multiple`, `normalization`, `rank_by`.
    """

    def __init__(
        self, classes: ChannelClasses, prunable: NDArray[np.bool_], options: PruneOptions
    ) -> None:
        self._classes = classes
        self._options = options
        self.blocks = find_blocks(classes, prunable)
        self._members = {
            class_id: dict(zip(block.convolutions, block.filters_per_class, strict=True))
            for block in self.blocks
            for class_id in block.classes
        }
        self._axes_of: dict[int, list[int]] = defaultdict(list)
        for axis, ids in enumerate(classes.partial_axes):
            for class_id in ids.tolist():
                self._axes_of[class_id].append(axis)
        self._totals = [
            c.filter_count if c.is_producer else 0 for c in classes.channels.convolutions
        ]

    def left(self, alive: NDArray[np.bool_]) -> list[int]:
        """Filters left in every convolution (0 for those that are never counted)."""
        return [
            int(alive[self._classes.of_filters(c)].sum()) if c.filters is not None else total
            for c, total in zip(self._classes.channels.convolutions, self._totals, strict=True)
        ]

    def count_prunable(self, alive: NDArray[np.bool_]) -> int:
        """How many filters could go at most."""
        nothing = np.zeros(self._classes.count)
        return self.select(nothing, alive, Goal(filters=None), None).filters

    def select(
        self,
        scores: NDArray[np.float64],
        alive: NDArray[np.bool_],
        goal: Goal,
        cost: CostModel | None,
    ) -> Selection:
        """Choose classes until the goal is met or nothing more may go.

        Args:
            scores: [classes] scores; lower goes first.
            alive: [classes] which are still there.
            goal: Where to stop; with no bound set, everything that may go is chosen.
            cost: Needed for goals other than `filters`, and for ranking by MACs.
        """
        if not self._options.ranks_by_errors:
            scores = normalize(scores, self.blocks, alive, self._options.normalization)
        meter = cost.meter(~alive) if cost is not None else None
        left = self.left(alive)
        axis_left = [int(alive[ids].sum()) for ids in self._classes.partial_axes]
        sequences = self._sequences(scores, alive)
        heap: list[tuple[float, float, int, int]] = []

        def push(index: int, position: int) -> None:
            if position < len(sequences[index]):
                unit = sequences[index][position]
                heapq.heappush(heap, self._key(unit, scores, meter, index, position))

        for index in range(len(sequences)):
            push(index, 0)
        chosen: list[int] = []
        filters, skipped = 0, False
        while heap and not _is_met(goal, filters, meter):
            _, _, index, position = heapq.heappop(heap)
            unit = sequences[index][position]
            going = self._count(unit)
            if not self._fits(going, left):
                continue
            leaving = Counter(axis for c in unit for axis in self._axes_of.get(c, ()))
            if any(axis_left[axis] <= count for axis, count in leaving.items()):
                push(index, position + 1)
                continue
            total = sum(going.values())
            if goal.at_most is not None and filters + total > goal.at_most and filters:
                continue
            if goal.filters is not None and filters + total > goal.filters:
                skipped = True
                continue
            chosen += unit
            filters += total
            for convolution, count in going.items():
                left[convolution] -= count
            for axis, count in leaving.items():
                axis_left[axis] -= count
            if meter is not None:
                meter.drop(unit)
            push(index, position + 1)
        reached = _is_met(goal, filters, meter) or (skipped and filters > 0)
        return Selection(tuple(chosen), filters, reached)

    def orders(self, scores: NDArray[np.float64], alive: NDArray[np.bool_]) -> list[DropOrder]:
        """What every layer would give up, one unit after the other."""
        found = []
        for units in self._sequences(scores, alive):
            left = self.left(alive)
            droppable = 0
            for unit in units:
                going = self._count(unit)
                if not self._fits(going, left):
                    break
                for convolution, count in going.items():
                    left[convolution] -= count
                droppable += 1
            found.append(DropOrder(units, droppable))
        return found

    def _sequences(
        self, scores: NDArray[np.float64], alive: NDArray[np.bool_]
    ) -> list[list[list[int]]]:
        """Sequences of units (sets of classes that go together), each in its order of going."""
        balances = self._classes.balances
        sequences = [self._chunks(block, scores, alive) for block in self.blocks]
        bound = np.asarray([c for b in self.blocks for c in b.classes if alive[c]], dtype=np.int64)
        sequences += [balances.bundles(part, scores) for part in balances.components(bound)]
        return [units for units in sequences if units]

    def _chunks(
        self, block: Block, scores: NDArray[np.float64], alive: NDArray[np.bool_]
    ) -> list[list[int]]:
        """Free classes of a block, lowest first, in pieces that keep counts multiples."""
        is_bound = self._classes.balances.is_bound
        ids = [c for c in block.classes if alive[c] and not is_bound[c]]
        ids.sort(key=lambda c: (scores[c], c))
        unit = 1
        for count in block.filters_per_class:
            multiple = self._options.channel_multiple
            unit = math.lcm(unit, multiple // math.gcd(multiple, count))
        first = len(ids) % unit
        parts = [ids[:first]] if first else []
        return parts + [ids[i : i + unit] for i in range(first, len(ids), unit)]

    def _key(
        self,
        unit: list[int],
        scores: NDArray[np.float64],
        meter: Meter | None,
        index: int,
        position: int,
    ) -> tuple[float, float, int, int]:
        score = float(np.mean(scores[unit]))
        rank = score
        if self._options.ranks_by_macs and meter is not None:
            rank = score * len(unit) / max(1, meter.saving(unit)[0])
        return rank, score, index, position

    def _count(self, unit: list[int]) -> dict[int, int]:
        """Filters a unit takes from each convolution."""
        going: dict[int, int] = defaultdict(int)
        for class_id in unit:
            for convolution, count in self._members[class_id].items():
                going[convolution] += count
        return going

    def _fits(self, going: dict[int, int], left: list[int]) -> bool:
        floor = self._options.min_filters
        return all(left[convolution] - count >= floor for convolution, count in going.items())


def _is_met(goal: Goal, filters: int, meter: Meter | None) -> bool:
    if goal.filters is not None:
        return filters >= goal.filters
    if meter is None:
        return False
    macs, parameters, size = meter.totals
    if goal.macs is not None:
        return macs <= goal.macs
    if goal.parameters is not None:
        return parameters <= goal.parameters
    if goal.size_bytes is not None:
        return size <= goal.size_bytes
    return False
