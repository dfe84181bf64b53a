"""The smallest model whose held-out metric stays within a drop.

A search along one ranking, over the share x of what is to be small (MACs, parameters, bytes) that
is left. Three kinds of trials, each dearer and truer than the one before:

1. *plain*: the cut alone. Costs a run over the hold-out. The smallest x within the drop bounds the
   search from above: recovery is kept only where it helps.
2. *interim*: with the recovery that a round on the way gets, on few samples. At most
   `INTERIM_TRIALS` of them close in on the drop, by interpolating its logarithm, which is nearly
   linear in x.
3. *full*: with the recovery that the result gets. The first is where interim trials put the drop;
   if it passes, one that is smaller still. What fails is followed by larger ones.

The metric decides by its value on the hold-out; the confidence interval of the drop says whether
so many samples could decide it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graph_ops.bundle import Dataset
from graph_ops.checkpoint import SavedRun
from graph_ops.errors import OptionsError, UnreachableTargetError
from graph_ops.goals.ranking import Ranking
from graph_ops.metrics import Comparison, Examiner, Interval
from graph_ops.network import TaylorPrunableNetwork
from graph_ops.recovery import Recovery, RefittedWeights
from graph_ops.rounds import Course
from graph_ops.run import Run
from graph_ops.scores import ScoreState
from graph_ops.selection import Goal, Selection

PLAIN_TRIALS = 6
INTERIM_TRIALS = 3
FINE = 0.02
"""Shares closer than this are not told apart."""
STEP = 0.03
"""How much larger the next full trial is after the largest has failed."""


@dataclass(frozen=True)
class _Found:
    """The network as a trial left it."""

    selection: Selection
    recovery: Recovery | None
    comparison: Comparison
    dropped: NDArray[np.bool_]
    last_scores: NDArray[np.float64]
    weights: RefittedWeights


@dataclass(frozen=True)
class Trial:
    """One size that was tried.

    Attributes:
        kind: `plain`, `interim` or `full`.
        share: What is left of the quantity that is made small.
        drop: By how much the metric is worse.
    """

    kind: str
    share: float
    drop: float


def search_metric_drop(
    run: Run,
    network: TaylorPrunableNetwork,
    dataset: Dataset,
    scores: ScoreState | None,
    saved: SavedRun,
    examiner: Examiner,
) -> Course:
    """Set the network to the smallest size within the drop, its full recovery included.

    Raises:
        OptionsError: nothing is held out.
        UnreachableTargetError: every model is worse than that.
    """
    if not len(dataset.held_out):
        raise OptionsError(
            "Target 'max_metric_drop': nothing is held out to measure on; give more samples or a "
            "larger validation_fraction.",
            field="validation_fraction",
        )
    ranking = Ranking(run, network, dataset, saved, scores)
    return _Search(run, ranking, dataset, examiner).find()


class _Search:
    def __init__(self, run: Run, ranking: Ranking, dataset: Dataset, examiner: Examiner) -> None:
        self._run, self._ranking, self._dataset = run, ranking, dataset
        self._examiner = examiner
        wanted = run.options.target.max_metric_drop
        assert wanted is not None
        self._wanted = wanted
        self._trials = [Trial(**finding) for finding in ranking.findings]
        self._replayed = 0
        self._found: _Found | None = None
        self._smallest = self._share_left(ranking.set_to(Goal()))

    def find(self) -> Course:
        """Run the trials; the network is left at the one that holds."""
        low, high = self._bracket()
        guess = self._between(low, high)
        if self._full(guess):
            return self._course(self._bolder(low, guess))
        for share in self._larger(guess, high):
            if self._full(share):
                return self._course(share)
        raise UnreachableTargetError(
            f"Target max_metric_drop = {self._wanted:g} cannot be reached: the mildest cut that "
            f"was tried lost {self._last.drop:.4g} of {self._examiner.metric.name}. Allow a "
            "larger drop, or give more samples.",
            target="max_metric_drop",
            wanted=self._wanted,
            best={"drop": self._last.drop, "share": self._last.share},
        )

    def _bolder(self, low: Trial, share: float) -> float:
        """One more full trial, smaller: interim trials understate what full recovery gives back."""
        found = self._found
        smaller = self._between(low, self._last)
        if share - smaller < FINE or self._full(smaller):
            return smaller if share - smaller >= FINE else share
        self._found = found
        if found is not None:
            self._ranking.network.restore(found.dropped, found.last_scores, found.weights)
        return share

    def _bracket(self) -> tuple[Trial, Trial]:
        """The largest size that failed and the smallest that passed, as far as is known."""
        low, high = Trial("none", self._smallest, math.inf), Trial("none", 1.0, 0.0)
        guess: Trial | None = None
        for _ in range(PLAIN_TRIALS):
            if high.share - low.share <= 2 * FINE:
                break
            low, high = self._narrow(self._trial("plain", self._inner(low, high)), low, high)
        if self._run.options.recovery == "none":
            return low, high
        # Whatever failed plainly may hold with recovery.
        guess, low = low, Trial("none", self._smallest, math.inf)
        for number in range(INTERIM_TRIALS):
            if high.share - low.share <= 2 * FINE:
                break
            share = self._inner(low, high)
            if number == 0 and guess.drop < math.inf:
                share = (guess.share + low.share) / 2
            low, high = self._narrow(self._trial("interim", share), low, high)
        return low, high

    def _narrow(self, trial: Trial, low: Trial, high: Trial) -> tuple[Trial, Trial]:
        return (low, trial) if trial.drop <= self._wanted else (trial, high)

    def _inner(self, low: Trial, high: Trial) -> float:
        """A share well inside a bracket, by interpolation where both ends are known."""
        width = high.share - low.share
        if math.isinf(low.drop):
            return low.share + width / 2
        return min(max(self._between(low, high), low.share + width / 4), high.share - width / 4)

    def _between(self, low: Trial, high: Trial) -> float:
        """Where the drop would be the one that is allowed, if its logarithm were linear."""
        if math.isinf(low.drop):
            return low.share
        floor = self._wanted / 4 + 0.5 / len(self._dataset.held_out)
        a, b, wanted = (math.log(max(d, 0.0) + floor) for d in (low.drop, high.drop, self._wanted))
        if a <= b:
            return high.share
        share = low.share + (high.share - low.share) * (a - wanted) / (a - b)
        return float(np.clip(share, low.share + FINE / 2, high.share))

    def _larger(self, failed: float, passed: Trial) -> list[float]:
        """Sizes to try after a full trial failed: what passed before, then larger and larger."""
        shares = [passed.share] if failed + FINE / 2 < passed.share < 1 else []
        last = max([failed, *shares])
        while last + STEP < 1:
            last += STEP * 2 ** len(shares)
            shares.append(min(last, 1 - FINE / 2))
        return shares

    def _full(self, share: float) -> bool:
        return self._trial("full", share).drop <= self._wanted

    @property
    def _last(self) -> Trial:
        return self._trials[self._replayed - 1]

    def _trial(self, kind: str, share: float) -> Trial:
        """Try a size; what an earlier run of the same search found is taken over."""
        if self._replayed < len(self._trials):
            self._replayed += 1
            self._found = None
            return self._last
        self._run.tell("search", len(self._trials), 0, f"{kind} trial at {share:.1%}")
        self._found = self._carry_out(kind, share)
        trial = Trial(kind, share, self._found.comparison.drop)
        self._trials.append(trial)
        self._replayed += 1
        self._ranking.note(dict(vars(trial)))
        return trial

    def _carry_out(self, kind: str, share: float) -> _Found:
        run, network = self._run, self._ranking.network
        selection = self._ranking.set_to(self._goal(share))
        recovery = None
        if kind != "plain":
            number = len(self._trials) + 1
            recovery = run.recover(network, self._dataset, number, is_interim=kind == "interim")
        with run.phase("measure"):
            comparison = self._examiner.examine(network.to_ir())
        return _Found(
            selection,
            recovery,
            comparison,
            network.dropped,
            network.last_scores,
            network.weights,
        )

    def _course(self, share: float) -> Course:
        """The network is at this full trial, or set to it if that was taken over."""
        found = self._found or self._carry_out("full", share)
        self._ranking.note_round(found.selection)
        reason = "target_reached"
        if not found.selection.is_reached or share <= self._smallest + 1e-9:
            reason = "nothing_more_to_prune"
        minimized = self._run.options.minimize
        goal = _report(self._wanted, found.comparison, minimized, self._trials)
        return Course(reason, self._ranking.scores, found.recovery, goal)

    def _goal(self, share: float) -> Goal:
        macs, parameters, size = self._whole
        match self._run.options.minimize:
            case "parameters":
                return Goal(parameters=parameters * share)
            case "bytes":
                return Goal(size_bytes=size * share)
            case _:
                return Goal(macs=macs * share)

    def _share_left(self, selection: Selection) -> float:
        network = self._ranking.network
        index = {"parameters": 1, "bytes": 2}.get(self._run.options.minimize, 0)
        left = network.cost.totals(network.dropped)[index]
        return left / max(1, self._whole[index])

    @property
    def _whole(self) -> tuple[int, int, int]:
        network = self._ranking.network
        return network.cost.totals(np.zeros_like(network.dropped))


def _report(
    wanted: float, comparison: Comparison, minimized: str, trials: list[Trial]
) -> dict[str, Any]:
    """The report's entry: what was found, and whether the hold-out could decide it."""
    interval = comparison.drop_interval
    samples = int(comparison.after.size)
    decided, note, needed = _decision(wanted, interval, samples)
    return {
        "kind": "max_metric_drop",
        "wanted": wanted,
        "metric": comparison.metric.name,
        "minimized": minimized,
        "drop": comparison.drop,
        "drop_low": None if interval is None else interval.low,
        "drop_high": None if interval is None else interval.high,
        "samples": samples,
        "is_decided": decided,
        "samples_needed": needed,
        "note": note,
        "trials": [dict(vars(t)) for t in trials],
    }


def _decision(
    wanted: float, interval: Interval | None, samples: int
) -> tuple[bool, str, int | None]:
    """Whether the interval lies within the drop, in words, and the samples that might do."""
    if interval is None:
        return False, f"{samples} held-out samples cannot decide anything.", None
    if interval.high <= wanted:
        return True, f"The whole 95 % interval lies within the drop of {wanted:g}.", None
    reach = (interval.high - interval.low) / 2
    needed = math.ceil(samples * (reach / wanted) ** 2)
    note = (
        f"On {samples} held-out samples the drop lies between {interval.low:.4g} and "
        f"{interval.high:.4g} (95 %): they are too few to say that it is within {wanted:g}. "
        f"About {needed} would narrow the interval to ±{wanted:g}."
    )
    return False, note, needed
