"""Rounds of score and drop, each on what the last one left.

Where the target is a search (`graph_ops.goals`), rounds are not what leads to it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from graph_ops.bundle import Dataset
from graph_ops.checkpoint import RoundState, SavedRun
from graph_ops.cost import latencies_ms
from graph_ops.errors import OptionsError
from graph_ops.evidence import BundleEvidence
from graph_ops.network import TaylorPrunableNetwork
from graph_ops.recovery import Recovery
from graph_ops.run import Run
from graph_ops.runtime import Session
from graph_ops.scores import ScoreState
from graph_ops.selection import Goal, Selection
from graph_ops.targets import goal_of, unreachable

ROUND_LATENCY_S = 0.1
"""Time that the latency of a round which is not the last may take (three runs are always made)."""


@dataclass(frozen=True)
class Course:
    """How a run came to the filters it dropped.

    Attributes:
        stop_reason: Why it went no further.
        first_scores: Scores of the whole network; None for criteria without gradients.
        recovery: What was given back to the network as it is now, where that was done on the way;
            None where it is still to be done.
        goal: The report's entry on a goal that was searched for; None for other targets.
    """

    stop_reason: str
    first_scores: ScoreState | None
    recovery: Recovery | None = None
    goal: dict[str, Any] | None = None


def drop_in_rounds(
    run: Run,
    network: TaylorPrunableNetwork,
    dataset: Dataset,
    scores: ScoreState | None,
    saved: SavedRun,
    evidence: BundleEvidence,
) -> Course:
    """Score and drop until the target is reached or nothing more may go.

    Args:
        run: Options, clock, progress.
        network: Nothing dropped yet.
        dataset: The bundle bound to it.
        scores: Scores of the whole network for the first round; None to take them.
        saved: What each round reached, to go on from.
        evidence: What a round is measured on.

    Raises:
        UnreachableTargetError: the target cannot be reached, and the options want no less.
    """
    rounds = _Rounds(run, network, dataset, scores, saved, evidence)
    course = rounds.resume()
    while course is None:
        course = rounds.step()
    return course


class _Rounds:
    def __init__(
        self,
        run: Run,
        network: TaylorPrunableNetwork,
        dataset: Dataset,
        scores: ScoreState | None,
        saved: SavedRun,
        evidence: BundleEvidence,
    ) -> None:
        self._evidence = evidence
        self._run, self._network, self._dataset = run, network, dataset
        self._scores, self._saved = scores, saved
        self._first: ScoreState | None = None
        self._number = self._dropped = 0
        self._final = goal_of(network, run.options, 1.0, 0)

    def resume(self) -> Course | None:
        """Go on from what was saved; the course when that was the last round."""
        state = self._saved.load()
        if state is None:
            return None
        self._network.restore(state.dropped, state.last_scores, state.weights)
        self._first, self._number, self._dropped = state.first_scores, state.number, state.filters
        self._run.rounds, self._run.engine = state.rounds, state.engine
        self._run.rank_by = state.rank_by
        self._run.timing_s |= state.timing_s
        return None if state.stop_reason is None else Course(state.stop_reason, self._first)

    def step(self) -> Course | None:
        """One round; the course when it was the last."""
        run, network, options = self._run, self._network, self._run.options
        self._number += 1
        rounds = options.rounds
        if options.criterion.needs_gradients:
            self._score()
        is_last = rounds is not None and self._number >= rounds
        goal = self._goal(options.share_of(self._number))
        mean_loss = network.state.mean_loss
        sensitivity = run.compare_layers(network, self._dataset, self._number)
        with run.phase("select"):
            selection = network.select(goal, sensitivity)
        is_stuck = not selection.is_reached and (is_last or not selection.classes)
        if is_stuck and options.on_unreachable == "error":
            raise unreachable(network, selection, self._final)
        before = (network.dropped, network.last_scores, network.weights)
        self._drop(selection, mean_loss)
        stop_reason = None
        if is_stuck:
            stop_reason = "nothing_more_to_prune"
        elif selection.is_reached and (is_last or rounds is None):
            stop_reason = "target_reached"
        if stop_reason is None or options.min_metric is not None:
            run.recover(network, self._dataset, self._number, is_interim=True)
            self._measure()
        if options.min_metric is not None and not self._is_good_enough(options.min_metric):
            network.restore(*before)
            self._dropped -= selection.filters
            stop_reason = "metric_threshold"
        self._save(stop_reason)
        return None if stop_reason is None else Course(stop_reason, self._first)

    def _score(self) -> None:
        if self._number == 1 and self._scores is not None:
            self._network.load_scores(self._scores)
        else:
            self._run.score(self._network, self._dataset, self._number)
        self._first = self._first or self._network.state

    def _goal(self, share: float) -> Goal:
        options = self._run.options
        if options.filters_per_step is None:
            return goal_of(self._network, options, share, self._dropped)
        whole = goal_of(self._network, options, 1.0, self._dropped)
        return replace(whole, at_most=options.filters_per_step)

    def _drop(self, selection: Selection, mean_loss: float | None) -> None:
        self._network.apply(selection)
        self._dropped += selection.filters
        self._run.note_round(self._network, self._number, mean_loss)

    def _measure(self) -> None:
        """Metric and latency of the network as it goes into the next round."""
        with self._run.phase("measure"):
            model = self._network.to_ir()
            metric = self._evidence.examiner.examine(model).result
            _, feeds = self._evidence.latency_feeds()
            session = Session(model, keep_memory=False)
            (latency_ms,) = latencies_ms([session], feeds, budget_s=ROUND_LATENCY_S)
        self._run.rounds[-1] |= {"metric": metric.after, "latency_ms": latency_ms}

    def _is_good_enough(self, bound: float) -> bool:
        """Whether the metric of what is left is on the right side of its bound."""
        after = self._run.rounds[-1]["metric"]
        if after is None:
            raise OptionsError(
                "Option 'min_metric': nothing is held out to measure on; give a larger "
                "validation_fraction.",
                field="min_metric",
            )
        is_higher_better = self._evidence.examiner.metric.is_higher_better
        return bool(after >= bound if is_higher_better else after <= bound)

    def _save(self, stop_reason: str | None) -> None:
        network = self._network
        self._saved.save(
            RoundState(
                number=self._number,
                filters=self._dropped,
                dropped=network.dropped,
                last_scores=network.last_scores,
                weights=network.weights,
                first_scores=self._first,
                rounds=self._run.rounds,
                rank_by=self._run.rank_by,
                engine=self._run.engine,
                stop_reason=stop_reason,
                timing_s=self._run.timing_s,
            )
        )
