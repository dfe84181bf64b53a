"""Selection: from scores and a target to the channel classes that go.

Classes with the same producing convolutions form a *block* (a plain layer, a residual stage). A
block gives its classes up lowest score first, in chunks that keep its filter counts multiples of
`channel_multiple`, and never below `min_filters`. Classes that a grouped convolution binds go in
balanced bundles instead (`graph_ops.balance`). Blocks and bundles compete by the score of their
next unit (per filter, or per MAC saved); the last unit is the cheapest that is enough. Everything
is ordered by (rank, score, class), so the same scores always give the same selection.
"""

from __future__ import annotations

import heapq
import math
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from graph_ops.blocks import Block, find_blocks, normalize
from graph_ops.channel_classes import ChannelClasses
from graph_ops.cost import CostModel, Meter
from graph_ops.options import PruneOptions
from graph_ops.rank_by import SCORE, rank_by

AUTO_MULTIPLES = ((64, 8), (16, 4))
"""Without `channel_multiple`: from so many filters on, counts stay multiples of this. The
convolutions of ONNX Runtime leave their blocked layout where input channels are no multiple of 4,
and fill blocks of 8 up; narrower layers have too few filters for that (docs/performance.md).
Where no layer has 64, the network is fast as it is, and it is cut to the filter."""


@dataclass(frozen=True)
class DropOrder:
    """Units (sets of classes that go together) of one layer, in the order in which they go.

    Attributes:
        units: Class ids of each, lowest score first.
        droppable: How many of them may go when nothing else does.
        is_free: Whether any classes may make up a unit, not only those that do.
    """

    units: Sequence[Sequence[int]]
    droppable: int
    is_free: bool = True


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
        self._rank_by = rank_by(options)
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

    def axis_left(self, alive: NDArray[np.bool_]) -> list[int]:
        """Channels left on every axis that may not become empty."""
        return [int(alive[ids].sum()) for ids in self._classes.partial_axes]

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
        if not self._rank_by.measures:
            scores = normalize(scores, self.blocks, alive, self._options.normalization)
        walk = _Walk(self, scores, alive, goal, cost)
        walk.go(self._sequences(scores, alive, finest=False))
        chosen_here = self._options.channel_multiple is None and self._options.minds_latency
        if chosen_here and not walk.is_met:
            # A multiple that nobody asked for may not put a target out of reach.
            walk.go(self._sequences(scores, walk.alive, finest=True))
        return walk.selection()

    def orders(self, scores: NDArray[np.float64], alive: NDArray[np.bool_]) -> list[DropOrder]:
        """What every layer would give up, one unit after the other."""
        found = []
        for units in self._sequences(scores, alive, finest=False):
            left = self.left(alive)
            droppable = 0
            for unit in units:
                going = self.going(unit)
                if not self.fits(going, left):
                    break
                for convolution, count in going.items():
                    left[convolution] -= count
                droppable += 1
            is_free = not self._classes.balances.is_bound[units[0][0]]
            found.append(DropOrder(units, droppable, is_free))
        return found

    def _sequences(
        self, scores: NDArray[np.float64], alive: NDArray[np.bool_], *, finest: bool
    ) -> list[list[list[int]]]:
        """Sequences of units (sets of classes that go together), each in its order of going."""
        balances = self._classes.balances
        sequences = [
            self._chunks(block, scores, alive, 1 if finest else self._multiple_of(block))
            for block in self.blocks
        ]
        bound = np.asarray([c for b in self.blocks for c in b.classes if alive[c]], dtype=np.int64)
        sequences += [balances.bundles(part, scores) for part in balances.components(bound)]
        return [units for units in sequences if units]

    def _chunks(
        self, block: Block, scores: NDArray[np.float64], alive: NDArray[np.bool_], multiple: int
    ) -> list[list[int]]:
        """Free classes of a block, lowest first, in pieces that keep counts multiples."""
        is_bound = self._classes.balances.is_bound
        ids = [c for c in block.classes if alive[c] and not is_bound[c]]
        ids.sort(key=lambda c: (scores[c], c))
        unit = 1
        for count in block.filters_per_class:
            unit = math.lcm(unit, multiple // math.gcd(multiple, count))
        first = len(ids) % unit
        parts = [ids[:first]] if first else []
        return parts + [ids[i : i + unit] for i in range(first, len(ids), unit)]

    def _multiple_of(self, block: Block) -> int:
        """What the block's filter counts stay multiples of."""
        multiple = self._options.channel_multiple
        if multiple is not None:
            return multiple
        if not self._options.minds_latency:
            return 1
        if max(self._totals, default=0) < AUTO_MULTIPLES[0][0]:
            return 1
        narrowest = min(self._totals[convolution] for convolution in block.convolutions)
        return next((each for least, each in AUTO_MULTIPLES if narrowest >= least), 1)

    def key(
        self,
        unit: list[int],
        scores: NDArray[np.float64],
        meter: Meter | None,
    ) -> tuple[float, float]:
        """What units are ordered by: rank, then mean score."""
        score = float(np.mean(scores[unit]))
        rank = score
        if self._rank_by.kind != SCORE and meter is not None:
            rank = score * len(unit) / max(1, meter.saving(unit)[0])
        return rank, score

    def going(self, unit: list[int]) -> dict[int, int]:
        """Filters a unit takes from each convolution."""
        going: dict[int, int] = defaultdict(int)
        for class_id in unit:
            for convolution, count in self._members[class_id].items():
                going[convolution] += count
        return going

    def leaving(self, unit: list[int]) -> Counter[int]:
        """Channels a unit takes from each axis that may not become empty."""
        return Counter(axis for c in unit for axis in self._axes_of.get(c, ()))

    def fits(self, going: dict[int, int], left: list[int]) -> bool:
        """Whether every convolution keeps `min_filters`."""
        floor = self._options.min_filters
        return all(left[convolution] - count >= floor for convolution, count in going.items())


class _Walk:
    """Takes units off sequences, the lowest rank first, until a goal is met.

    Args:
        selector: Ranks units and knows what they take.
        scores: [classes] normalized scores.
        alive: [classes] which are still there.
        goal: Where to stop.
        cost: Of the model; None where neither the goal nor the ranking needs it.
    """

    def __init__(
        self,
        selector: Selector,
        scores: NDArray[np.float64],
        alive: NDArray[np.bool_],
        goal: Goal,
        cost: CostModel | None,
    ) -> None:
        self._selector = selector
        self._scores = scores
        self._goal = goal
        self._meter = cost.meter(~alive) if cost is not None else None
        self._left = selector.left(alive)
        self._axis_left = selector.axis_left(alive)
        self._chosen: list[int] = []
        self._filters, self._skipped = 0, False
        self._heap: list[tuple[float, float, int, int]] = []
        self._sequences: list[list[list[int]]] = []
        self.alive = alive.copy()
        """[classes] which are left."""

    @property
    def is_met(self) -> bool:
        """Whether the goal is met."""
        totals = None if self._meter is None else self._meter.totals
        return _is_met(self._goal, self._filters, totals)

    def selection(self) -> Selection:
        """What was taken."""
        reached = self.is_met or (self._skipped and self._filters > 0)
        return Selection(tuple(self._chosen), self._filters, reached)

    def go(self, sequences: list[list[list[int]]]) -> None:
        """Take units until the goal is met or none is left that may go."""
        self._heap, self._sequences = [], sequences
        for index in range(len(sequences)):
            self._push(index, 0)
        while self._heap and not self.is_met:
            _, _, index, position = heapq.heappop(self._heap)
            unit = sequences[index][position]
            if not self._selector.fits(self._selector.going(unit), self._left):
                continue
            if self._empties(unit):
                self._push(index, position + 1)
                continue
            total = sum(self._selector.going(unit).values())
            at_most = self._goal.at_most
            if at_most is not None and self._filters + total > at_most and self._filters:
                continue
            if self._goal.filters is not None and self._filters + total > self._goal.filters:
                self._skipped = True
                continue
            if self._ends(unit):
                self._take(self._last(unit))
                return
            self._take(unit)
            self._push(index, position + 1)

    def _push(self, index: int, position: int) -> None:
        if position < len(self._sequences[index]):
            unit = self._sequences[index][position]
            key = self._selector.key(unit, self._scores, self._meter)
            heapq.heappush(self._heap, (*key, index, position))

    def _empties(self, unit: list[int]) -> bool:
        leaving = self._selector.leaving(unit)
        return any(self._axis_left[axis] <= count for axis, count in leaving.items())

    def _ends(self, unit: list[int]) -> bool:
        """Whether a goal in MACs, parameters or bytes is met once the unit is gone."""
        if self._goal.filters is not None or self._meter is None:
            return False
        saved = self._meter.saving(unit)
        totals = [t - s for t, s in zip(self._meter.totals, saved, strict=True)]
        return _is_met(self._goal, self._filters, totals)

    def _last(self, unit: list[int]) -> list[int]:
        """Of the next units that end the walk, the one with the lowest score altogether.

        By rank alone a wide unit with a low score per MAC would go where a narrow one is enough.
        """
        others = [self._sequences[index][position] for _, _, index, position in self._heap]
        ends = [u for u in others if self._may_go(u) and self._ends(u)]
        return min([unit, *ends], key=lambda u: (float(self._scores[u].sum()), u))

    def _may_go(self, unit: list[int]) -> bool:
        going = self._selector.going(unit)
        at_most = self._goal.at_most
        return (
            self._selector.fits(going, self._left)
            and not self._empties(unit)
            and (at_most is None or self._filters + sum(going.values()) <= at_most)
        )

    def _take(self, unit: list[int]) -> None:
        going = self._selector.going(unit)
        self._chosen += unit
        self.alive[unit] = False
        self._filters += sum(going.values())
        for convolution, count in going.items():
            self._left[convolution] -= count
        for axis, count in self._selector.leaving(unit).items():
            self._axis_left[axis] -= count
        if self._meter is not None:
            self._meter.drop(unit)


def _is_met(goal: Goal, filters: int, totals: list[int] | None) -> bool:
    if goal.filters is not None:
        return filters >= goal.filters
    if totals is None:
        return False
    macs, parameters, size = totals
    if goal.macs is not None:
        return macs <= goal.macs
    if goal.parameters is not None:
        return parameters <= goal.parameters
    if goal.size_bytes is not None:
        return size <= goal.size_bytes
    return False
