"""The smallest model whose held-out metric stays within a drop.

`drop_search.py` chooses the sizes to try along one ranking; here they are cut, recovered and
measured.

On a few hundred samples, accuracy moves in jumps by chance, and whoever tries several sizes picks
the lucky one. The probability that is given to the right class moves smoothly on the same samples,
so the drop is also estimated with its help (`Comparison.estimate_drop`). A size holds where the
drop is within what is allowed and the estimate does not say that this is luck. The confidence
interval of the drop says whether so many samples could decide it.
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
from graph_ops.goals.drop_search import DropSearch, Trial
from graph_ops.goals.ranking import Ranking
from graph_ops.metrics import Comparison, Examiner, Interval
from graph_ops.network import TaylorPrunableNetwork
from graph_ops.recovery import Originals, Recovery, RefittedWeights
from graph_ops.rounds import Course
from graph_ops.run import Run
from graph_ops.scores import ScoreState
from graph_ops.selection import Goal, Selection

PLAIN_SAMPLES = 400
"""What cuts cost before recovery is measured on so many samples at most: it is far more than what
is allowed, and only says where to look."""


@dataclass(frozen=True)
class _Found:
    """The network as a trial left it."""

    selection: Selection
    recovery: Recovery | None
    comparison: Comparison
    dropped: NDArray[np.bool_]
    last_scores: NDArray[np.float64]
    weights: RefittedWeights


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
        is_guide = run.options.recovery != "none"
        self._glance = examiner.on_fewer(PLAIN_SAMPLES) if is_guide else examiner
        wanted = run.options.target.max_metric_drop
        assert wanted is not None
        self._wanted = wanted
        self._trials = [Trial(**finding) for finding in ranking.findings]
        self._replayed = 0
        self._held: _Found | None = None
        ranking.network.originals = Originals()
        self._smallest = self._share_left(ranking.set_to(Goal()))
        self._search = DropSearch(
            wanted,
            self._smallest,
            run.options.recovery,
            len(dataset.held_out),
            is_bounded=examiner.metric.is_higher_better,
            are_layers_measured=run.rank_by.measures,
            attempt=self._attempt,
        )

    def find(self) -> Course:
        """Run the trials; the network is left at the one that holds.

        Raises:
            UnreachableTargetError: every model that was tried is worse than that.
        """
        best = self._search.find()
        if best is not None:
            return self._course(best)
        mildest = self._search.failed[0]
        raise UnreachableTargetError(
            f"Target max_metric_drop = {self._wanted:g} cannot be reached: the mildest cut that "
            f"was tried lost {mildest.drop:.4g} of {self._examiner.metric.name}. Allow a "
            "larger drop, or give more samples.",
            target="max_metric_drop",
            wanted=self._wanted,
            best={"drop": mildest.drop, "share": mildest.share},
        )

    def _estimate(self, comparison: Comparison) -> float:
        return comparison.estimate_drop(self._wanted / 2)

    def _attempt(self, kind: str, share: float) -> Trial:
        """Try a size; what an earlier run of the same search found is taken over."""
        if self._replayed < len(self._trials):
            trial, found = self._trials[self._replayed], None
        else:
            self._run.tell("search", len(self._trials), 0, f"{kind} trial at {share:.1%}")
            found = self._carry_out(kind, share)
            estimate = self._estimate(found.comparison)
            trial = Trial(kind, share, found.comparison.drop, estimate)
            self._trials.append(trial)
            self._ranking.note(dict(vars(trial)))
        self._replayed += 1
        if kind == "full" and self._search.holds(trial):
            self._held = found
        return trial

    def _carry_out(self, kind: str, share: float) -> _Found:
        run, network = self._run, self._ranking.network
        selection = self._ranking.set_to(self._goal(share))
        recovery = None
        if kind != "plain":
            number = len(self._trials) + 1
            recovery = run.recover(network, self._dataset, number, is_interim=False)
        with run.phase("measure"):
            examiner = self._glance if kind == "plain" else self._examiner
            comparison = examiner.examine(network.to_ir())
        return _Found(
            selection,
            recovery,
            comparison,
            network.dropped,
            network.last_scores,
            network.weights,
        )

    def _course(self, best: Trial) -> Course:
        """Set the network to the trial that holds; what was taken over is carried out again."""
        share = best.share
        found = self._held or self._carry_out("full", share)
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
