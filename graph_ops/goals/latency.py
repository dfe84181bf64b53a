"""A share of the latency, measured with ONNX Runtime here, or reckoned from a device's table.

Latency depends on shapes and not on weights, so trials need no recovery: cut, time, and close in
by interpolation, for latency is nearly linear in MACs along one ranking. It is not quite: kernels
like some numbers of channels more than others, and clocks shake. A trial that comes close by one
reading may have come close by chance, so it is read once more, for longer, and that reading counts.
In the end the trial that came closest is taken.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np

from graph_ops.bundle import Dataset
from graph_ops.channels import Convolution
from graph_ops.checkpoint import SavedRun
from graph_ops.errors import OptionsError, UnreachableTargetError
from graph_ops.goals.ranking import Ranking
from graph_ops.network import TaylorPrunableNetwork
from graph_ops.options import LatencyTable, LayerLatency
from graph_ops.rounds import Course
from graph_ops.run import Run
from graph_ops.runtime import Array, Session
from graph_ops.scores import ScoreState
from graph_ops.selection import Goal
from graph_ops.timing import Reading, compare

TRIALS = 12
CLOSE = 0.015
"""Trials end when the latency is this close to the goal, relatively."""
BUDGET_S = 3.0
"""Seconds that one trial is timed for at most, but for the least number of turns."""
LONGER_S = 10.0
"""The same for a trial that came close."""
ACCEPTED = 0.03
"""How close it has to be by its second reading."""


class Clock(Protocol):
    """Latencies of a network as it is cut now, and of the original."""

    source: str

    def read(self, network: TaylorPrunableNetwork, budget_s: float) -> Reading:
        """Milliseconds of the original and of the network as it is now."""


class RuntimeClock:
    """Times models with ONNX Runtime, in turns with the original.

    Args:
        network: The network, for its original.
        feeds: One sample, or one batch of a fixed batch size.
    """

    source = "measured"

    def __init__(self, network: TaylorPrunableNetwork, feeds: Mapping[str, Array]) -> None:
        self._original = Session(network.source.model)
        self._feeds = feeds

    def read(self, network: TaylorPrunableNetwork, budget_s: float) -> Reading:
        """Of both, as well as the budget lets them be known."""
        candidate = Session(network.to_plain_ir())
        return compare(self._original, candidate, self._feeds, budget_s=budget_s)


class TableClock:
    """Adds up the entries of a latency table, linear between its numbers of channels.

    Args:
        network: The network.
        table: Latencies of its convolutions on a device.

    Raises:
        OptionsError: a convolution that may change is not in the table, or a name is unknown.
    """

    source = "table"

    def __init__(self, network: TaylorPrunableNetwork, table: LatencyTable) -> None:
        by_name = {c.name: c for c in network.convolutions}
        unknown = sorted(set(table.layers) - set(by_name))
        if unknown:
            raise OptionsError(
                f"Option 'latency_table': the model has no convolution {unknown[0]!r}.",
                field="latency_table",
                unknown=unknown,
            )
        missing = [
            n for n, c in by_name.items() if n not in table.layers and _may_change(network, c)
        ]
        if missing:
            raise OptionsError(
                f"Option 'latency_table': convolution {missing[0]!r} may lose channels and has no "
                "entry.",
                field="latency_table",
                missing=missing,
            )
        self._overhead = table.overhead_ms
        self._layers = [(by_name[name], _Grid(layer)) for name, layer in table.layers.items()]

    def read(self, network: TaylorPrunableNetwork, budget_s: float) -> Reading:
        """Sums of both."""
        whole = np.zeros_like(network.dropped)
        return Reading(self._total(network, whole), self._total(network, network.dropped), 0.0)

    def _total(self, network: TaylorPrunableNetwork, dropped: Array) -> float:
        return self._overhead + sum(
            grid.ms(*_channels(network, convolution, dropped)) for convolution, grid in self._layers
        )


class _Grid:
    """Bilinear between a layer's entries, and beyond them as at the nearest edge."""

    def __init__(self, layer: LayerLatency) -> None:
        # Slow to import, and few runs have a table.
        from scipy.interpolate import RegularGridInterpolator

        self._axes = [layer.inputs or (1,), layer.outputs]
        values = np.asarray(layer.ms, dtype=np.float64)
        long = [np.asarray(axis, dtype=np.float64) for axis in self._axes]
        for number, axis in enumerate(long):
            if axis.size == 1:  # the same whatever the number
                long[number] = np.asarray([axis[0], axis[0] + 1])
                values = np.repeat(values, 2, axis=number)
        self._bounds = [(axis[0], axis[-1]) for axis in long]
        self._interpolator = RegularGridInterpolator(tuple(long), values)

    def ms(self, inputs: int, outputs: int) -> float:
        """Milliseconds at these numbers of channels."""
        point = [np.clip(n, *b) for n, b in zip((inputs, outputs), self._bounds, strict=True)]
        return float(self._interpolator([point])[0])


def _may_change(network: TaylorPrunableNetwork, convolution: Convolution) -> bool:
    axis = network.classes.channels.axis(convolution.node.inputs[0], 1)
    nothing = np.empty(0, dtype=np.int64)
    read = nothing if axis is None else network.classes.class_of[axis]
    written = network.classes.of_filters(convolution)
    return bool(network.prunable[read].any() or network.prunable[written].any())


def _channels(
    network: TaylorPrunableNetwork, convolution: Convolution, dropped: Array
) -> tuple[int, int]:
    """Input channels and filters of a convolution when classes are dropped."""
    classes = network.classes
    labels = classes.channels.axis(convolution.node.inputs[0], 1)
    inputs = 1 if labels is None else int(classes.kept(labels, dropped).sum())
    filters = classes.of_filters(convolution)
    outputs = convolution.filter_count if filters.size == 0 else int((~dropped[filters]).sum())
    return inputs, outputs


def make_clock(run: Run, network: TaylorPrunableNetwork, feeds: Mapping[str, Array]) -> Clock:
    """What tells latencies in this run."""
    table = run.options.latency_table
    return RuntimeClock(network, feeds) if table is None else TableClock(network, table)


@dataclass(frozen=True)
class _Trial:
    share: float
    ratio: float
    before_ms: float
    after_ms: float
    error: float = 0.0


def search_latency(
    run: Run,
    network: TaylorPrunableNetwork,
    dataset: Dataset,
    scores: ScoreState | None,
    saved: SavedRun,
    feeds: Mapping[str, Array],
) -> Course:
    """Set the network to the size whose latency is the share that the target allows.

    Raises:
        OptionsError: the latency table does not fit the model.
        UnreachableTargetError: even the smallest model is slower, and the options want no less.
    """
    wanted = run.options.target.max_latency_ratio
    assert wanted is not None
    clock = make_clock(run, network, feeds)
    ranking = Ranking(run, network, dataset, saved, scores)
    trials = [_Trial(**finding) for finding in ranking.findings]
    whole = network.cost.totals(np.zeros_like(network.dropped))[0]
    ranking.set_to(Goal())
    smallest = network.cost.totals(network.dropped)[0] / max(1, whole)
    low, high = _Trial(smallest, 0.0, 0.0, 0.0), _Trial(1.0, 1.0, 0.0, 0.0)
    replayed = len(trials)
    known: dict[bytes, _Trial] = {}

    def tried(share: float, number: int, budget_s: float = BUDGET_S) -> _Trial:
        if number < replayed:
            return trials[number]
        run.tell("search", number, 0, f"latency at {share:.1%} of the MACs")
        ranking.set_to(Goal(macs=whole * share))
        key = network.dropped.tobytes()
        if budget_s == BUDGET_S and key in known:  # few filters make coarse steps
            trial = replace(known[key], share=share)
        else:
            with run.phase("measure"):
                reading = clock.read(network, budget_s)
            ratio, error = reading.ratio, reading.error
            trial = _Trial(share, ratio, reading.before_ms, reading.after_ms, error)
        known[key] = trial
        trials.append(trial)
        ranking.note(dict(vars(trial)))
        return trial

    confirmed: list[_Trial] = []
    low = tried(smallest, 0)
    if low.ratio <= wanted:
        number = 1
        while number < TRIALS and high.share - low.share >= 1e-3:
            trial = tried(_inner(low, high, wanted), number)
            number += 1
            if _is_close(trial, wanted, CLOSE):
                if clock.source == "table":
                    break
                trial = tried(trial.share, number, LONGER_S)
                confirmed.append(trial)
                number += 1
                if _is_close(trial, wanted, ACCEPTED):
                    break
            low, high = (trial, high) if trial.ratio < wanted else (low, trial)
    elif run.options.on_unreachable == "error":
        raise UnreachableTargetError(
            f"Target max_latency_ratio = {wanted:g} cannot be reached: the smallest model takes "
            f"{low.ratio:.1%} of the time. Lower min_filters, widen include, set channel_multiple "
            'to 8 or 16, or set on_unreachable to "best".',
            target="max_latency_ratio",
            wanted=wanted,
            best={"latency_ratio": low.ratio},
        )
    best = min(confirmed or trials, key=lambda t: abs(t.ratio - wanted))
    selection = ranking.set_to(Goal(macs=whole * best.share))
    ranking.note_round(selection)
    reason = "target_reached" if low.ratio <= wanted else "nothing_more_to_prune"
    return Course(reason, ranking.scores, None, _report(wanted, clock.source, best, trials))


def _is_close(trial: _Trial, wanted: float, within: float) -> bool:
    return abs(trial.ratio / wanted - 1) <= within


def _inner(low: _Trial, high: _Trial, wanted: float) -> float:
    """Where the latency would be the one that is wanted, were it linear; well inside."""
    width = high.share - low.share
    share = low.share + width * (wanted - low.ratio) / max(high.ratio - low.ratio, 1e-9)
    return float(np.clip(share, low.share + width / 10, high.share - width / 10))


def _report(wanted: float, source: str, best: _Trial, trials: list[_Trial]) -> dict[str, Any]:
    return {
        "kind": "max_latency_ratio",
        "wanted": wanted,
        "source": source,
        "ratio": best.ratio,
        "before_ms": best.before_ms,
        "after_ms": best.after_ms,
        "error": best.error,
        "trials": [dict(vars(t)) for t in trials],
    }
