"""The smallest model whose held-out metric stays within a drop.

A search along one ranking, over the share x of what is to be small (MACs, parameters, bytes) that
is left. Two kinds of trials:

1. *plain*: the cut alone. Costs a run over the hold-out. A few of them find where the cut costs so
   much that recovery should just be able to give it back; that is the first guess.
2. *full*: with the recovery that the result gets. Nearly the whole cost of a run, so three at most
   as long as one of them holds. The next size is where the logarithm of the drop, which is nearly
   linear in x, would be the one that is allowed.

On a few hundred samples, accuracy moves in jumps by chance, and whoever tries several sizes picks
the lucky one. The probability that is given to the right class moves smoothly on the same samples,
so the drop is also estimated with its help (`Comparison.estimate_drop`). A size holds where the
drop and its estimate are both within what is allowed; the next size is chosen by the estimate. The
confidence interval of the drop says whether so many samples could decide it.
"""

from __future__ import annotations

import itertools
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

PLAIN_TRIALS = {"none": 6}
"""Without recovery plain trials are all that there is."""
FEW_PLAIN_TRIALS = 4
FULL_TRIALS = 3
GAIN = {"none": 1.0, "bias": 2.0, "reconstruct": 8.0, "distill": 8.0}
"""How much smaller recovery is taken to make a drop, for the first guess. `reconstruct` did by 4.5
to 18 on the networks of benchmarks/goals.py."""
LARGEST_GUESS = 0.3
"""No plain drop of an accuracy beyond this is taken to be given back."""
FINE = 0.02
"""Shares closer than this are not told apart."""
STEP = 0.03
"""How much larger the next full trial is at least when none has held."""
LAST_AIM = 0.75
"""Part of the drop that is aimed at where no trial can follow."""
ROUNDING = 1e-9
REACH = 0.15
"""How much smaller it is at most when none has failed."""


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
        kind: `plain` or `full`.
        share: What is left of the quantity that is made small.
        drop: By how much the metric is worse.
        estimate: The same as other samples would show it, so far as these can tell.
    """

    kind: str
    share: float
    drop: float
    estimate: float


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
        """Run the trials; the network is left at the one that holds.

        Raises:
            UnreachableTargetError: every model that was tried is worse than that.
        """
        share, high = self._guess()
        low = Trial("none", self._smallest, math.inf, math.inf)
        best: Trial | None = None
        found: _Found | None = None
        for number in itertools.count(1):
            trial = self._trial("full", share)
            if self._holds(trial):
                best, found, high = trial, self._found, trial
            else:
                low = trial
            if best is None:
                if share >= 1 - FINE:
                    break
                share = self._larger(low, high, number)
                continue
            share = self._smaller(low, best, number)
            if number >= FULL_TRIALS or best.share - share < FINE / 2:
                return self._course(best, found)
        raise UnreachableTargetError(
            f"Target max_metric_drop = {self._wanted:g} cannot be reached: the mildest cut that "
            f"was tried lost {low.drop:.4g} of {self._examiner.metric.name}. Allow a "
            "larger drop, or give more samples.",
            target="max_metric_drop",
            wanted=self._wanted,
            best={"drop": low.drop, "share": low.share},
        )

    def _holds(self, trial: Trial) -> bool:
        # Three of 300 samples are 0.01, however the difference of two means was rounded.
        return max(trial.drop, trial.estimate) <= self._wanted + ROUNDING

    def _estimate(self, comparison: Comparison) -> float:
        return comparison.estimate_drop(self._wanted / 2)

    def _guess(self) -> tuple[float, Trial]:
        """Where full trials begin, and the smallest size that holds by the cut alone."""
        method = self._run.options.recovery
        bound = GAIN[method] * self._wanted
        if self._examiner.metric.is_higher_better:
            bound = max(self._wanted, min(bound, LARGEST_GUESS))
        low, high = Trial("none", self._smallest, math.inf, math.inf), Trial("none", 1.0, 0.0, 0.0)
        holds = high
        for _ in range(PLAIN_TRIALS.get(method, FEW_PLAIN_TRIALS)):
            if high.share - low.share <= 2 * FINE:
                break
            trial = self._trial("plain", self._inner(low, high, bound))
            low, high = (low, trial) if trial.estimate <= bound else (trial, high)
            if self._holds(trial) and trial.share < holds.share:
                holds = trial
        return min(self._between(low, high, bound), holds.share), holds

    def _inner(self, low: Trial, high: Trial, wanted: float) -> float:
        """A share well inside a bracket, by interpolation where both ends are known."""
        width = high.share - low.share
        if math.isinf(low.drop):
            return low.share + width / 2
        inside = self._between(low, high, wanted)
        return min(max(inside, low.share + width / 4), high.share - width / 4)

    def _between(self, low: Trial, high: Trial, wanted: float) -> float:
        """Where the drop would be `wanted`, if its logarithm were linear; the ends included."""
        if math.isinf(low.drop):
            return low.share
        a, b, c = (self._logarithm(d) for d in (low.estimate, high.estimate, wanted))
        if a <= b:
            return high.share
        share = low.share + (high.share - low.share) * (a - c) / (a - b)
        return float(np.clip(share, low.share + FINE / 2, high.share))

    def _logarithm(self, drop: float) -> float:
        """Of a drop, which may be nothing: below what half a sample is worth all are alike."""
        return math.log(max(drop, 0.0) + self._wanted / 4 + 0.5 / len(self._dataset.held_out))

    def _larger(self, low: Trial, high: Trial, failed: int) -> float:
        """The next size after full trials that all failed; the last of them should be safe."""
        wanted = self._wanted if failed + 1 < FULL_TRIALS else self._wanted / 2
        if high.share <= low.share:  # the cut alone held, and with recovery it did not
            high = Trial("none", 1.0, 0.0, 0.0)
        step = STEP * 2 ** max(0, failed - FULL_TRIALS)
        share = max(self._between(low, high, wanted), low.share + step)
        return float(min(share, 1 - FINE / 2))

    def _smaller(self, low: Trial, best: Trial, tried: int) -> float:
        """The next size after one that holds; `low` is the largest that failed, if one did."""
        if not math.isinf(low.drop):
            if low.estimate <= self._wanted:  # it failed by the drop alone, which jumps
                return (low.share + best.share) / 2
            # What the last trial finds is lost if it fails, so it keeps off the line.
            is_last = tried + 1 >= FULL_TRIALS
            return self._between(low, best, self._wanted * (LAST_AIM if is_last else 1))
        rise = self._logarithm(best.estimate) - self._logarithm(0.0)
        room = self._logarithm(self._wanted) - self._logarithm(best.estimate)
        reach = REACH if rise <= 0 else min(REACH, room * (1 - best.share) / rise)
        return max(best.share - reach, self._smallest)

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
        comparison = self._found.comparison
        trial = Trial(kind, share, comparison.drop, self._estimate(comparison))
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
            recovery = run.recover(network, self._dataset, number, is_interim=False)
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

    def _course(self, best: Trial, found: _Found | None) -> Course:
        """Set the network to the trial that holds; what was taken over is carried out again."""
        share = best.share
        if found is None:
            found = self._carry_out("full", share)
        self._ranking.network.restore(found.dropped, found.last_scores, found.weights)
        self._ranking.note_round(found.selection)
        reason = "target_reached"
        if not found.selection.is_reached or share <= self._smallest + 1e-9:
            reason = "nothing_more_to_prune"
        minimized = self._run.options.minimize
        estimate = self._estimate(found.comparison)
        goal = _report(self._wanted, found.comparison, estimate, minimized, self._trials)
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
    wanted: float, comparison: Comparison, estimate: float, minimized: str, trials: list[Trial]
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
        "estimate": estimate,
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
