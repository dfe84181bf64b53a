"""Scores taken once, and the network cut anywhere along them.

The order in which a selection takes classes does not depend on where it stops, so that a smaller
network on the same ranking lacks all that a larger one lacks. That is what makes searching along
it sound: size falls steadily, and only the recovery and the metric have to be found out anew.
"""

from __future__ import annotations

from typing import Any

from graph_ops.bundle import Dataset
from graph_ops.checkpoint import RoundState, SavedRun
from graph_ops.network import TaylorPrunableNetwork
from graph_ops.run import Run
from graph_ops.scores import ScoreState
from graph_ops.selection import Goal, Selection


class Ranking:
    """A network that can be set to any size.

    Args:
        run: Options, clock, progress.
        network: Nothing dropped yet.
        dataset: The bundle bound to it.
        saved: Where scores and findings are kept.
        scores: Scores of the whole network; None to take them.
    """

    def __init__(
        self,
        run: Run,
        network: TaylorPrunableNetwork,
        dataset: Dataset,
        saved: SavedRun,
        scores: ScoreState | None,
    ) -> None:
        self._run, self.network, self._saved = run, network, saved
        self.findings: list[dict[str, Any]] = []
        """What was found so far, JSON-ready; survives a run that is cut short."""
        state = saved.load()
        self.scores = scores if state is None else state.first_scores
        if state is not None:
            assert state.goal is not None
            self.findings = list(state.goal["findings"])
            run.engine, run.rounds = state.engine, state.rounds
            run.timing_s |= state.timing_s
        elif network.options.criterion.needs_gradients:
            if scores is None:
                run.score(network, dataset, 1)
                self.scores = network.state
            self._save()
        if self.scores is not None:
            network.load_scores(self.scores)
        self._sensitivity = run.compare_layers(network, dataset, 1)

    def set_to(self, goal: Goal) -> Selection:
        """Drop what a goal asks for from the whole network."""
        network = self.network
        network.reset()
        if self.scores is not None:
            network.load_scores(self.scores)
        with self._run.phase("select"):
            selection = network.select(goal, self._sensitivity)
        network.apply(selection)
        return selection

    def note(self, finding: dict[str, Any]) -> None:
        """Keep a finding, on disk where the run has a checkpoint."""
        self.findings.append(finding)
        self._save()

    def note_round(self, selection: Selection) -> None:
        """The report's one round: the selection that the network is set to now."""
        mean_loss = None if self.scores is None else self.scores.mean_loss
        self._run.rounds = []
        self._run.note_round(self.network, 1, mean_loss)

    def _save(self) -> None:
        network = self.network
        self._saved.save(
            RoundState(
                number=len(self.findings) + 1,
                filters=0,
                dropped=network.dropped,
                last_scores=network.last_scores,
                weights=type(network.weights)(),
                first_scores=self.scores,
                rounds=self._run.rounds,
                rank_by=self._run.rank_by,
                engine=self._run.engine,
                timing_s=self._run.timing_s,
                goal={"findings": self.findings},
            )
        )
