"""A cut from saved scores alone: no bundle, so the proof is made on random inputs."""

from __future__ import annotations

from collections.abc import Mapping
from functools import reduce
from pathlib import Path
from typing import Any

import numpy as np

from graph_ops.bundle import ArrayInfo
from graph_ops.conclusion import Conclusion
from graph_ops.errors import OptionsError, ScoreStateError
from graph_ops.evidence import RandomEvidence
from graph_ops.model import ModelLimits, SourceModel, load_model
from graph_ops.network import TaylorPrunableNetwork
from graph_ops.options import PruneOptions, parse_options
from graph_ops.progress import ProgressCallback
from graph_ops.rank_by import ERROR_PER_MAC
from graph_ops.result import PruneResult
from graph_ops.rounds import Course
from graph_ops.run import Run, input_specs
from graph_ops.scores import ScoreState
from graph_ops.targets import goal_of, unreachable


def cut_from_scores(
    model: str | Path | bytes | SourceModel,
    scores: ScoreState,
    options: PruneOptions | dict[str, Any] | str | None = None,
    *,
    progress: ProgressCallback | None = None,
    model_limits: ModelLimits | None = None,
) -> PruneResult:
    """Cut a model by scores that were taken before, and prove the result on random inputs.

    Nothing is recovered and no metric is measured: both need a bundle, which `prune` takes
    together with scores.

    Args:
        model: Path, bytes or loaded model.
        scores: Scores of this model.
        options: The target, floors and ranking.
        progress: Called as the run goes on.
        model_limits: Bounds on the model file.

    Raises:
        OptionsError: the options ask for more than one round, or for what needs data.
        ScoreStateError: the scores belong to another model or another definition of the score.
        UnreachableTargetError: the target cannot be reached, and the options want no less.
    """
    asked = parse_options(options)
    _check_needs_no_data(asked)
    run = Run(asked.model_copy(update={"recovery": "none"}), progress or (lambda _: None))
    with run.phase("load"):
        source = load_model(model, limits=model_limits)
    with run.phase("analyse"):
        network = open_bound(source, run.options, scores.binding)
    try:
        specs = input_specs(source.model)
        evidence = RandomEvidence(specs, network.sample_shapes, asked.seed)
        conclusion = Conclusion(run, network, evidence, network.num_prunables)
        network.load_scores(scores)
        goal = goal_of(network, run.options, 1.0, 0)
        with run.phase("select"):
            selection = network.select(goal)
        if not selection.is_reached and asked.on_unreachable == "error":
            raise unreachable(network, selection, goal)
        network.apply(selection)
        reason = "target_reached" if selection.is_reached else "nothing_more_to_prune"
        return conclusion.result(Course(reason, scores))
    finally:
        network.close()


def open_bound(
    source: SourceModel, options: PruneOptions, binding: Mapping[str, Any]
) -> TaylorPrunableNetwork:
    """The network as it was when scores with this binding were taken.

    Raises:
        ScoreStateError: the binding is none.
    """
    try:
        shapes = {str(n): tuple(map(int, s)) for n, s in binding["sample_shapes"].items()}
        targets = binding["targets"]
        info = None
        if targets is not None:
            shape = (1, *map(int, targets["shape"]))
            info = ArrayInfo(options.targets, np.dtype(targets["dtype"]), shape)
    except (KeyError, TypeError, ValueError, AttributeError):
        raise ScoreStateError("The score state does not say what it was taken on.") from None
    return TaylorPrunableNetwork(source, options, sample_shapes=shapes, targets=info)


def merge_states(paths: list[Path]) -> ScoreState:
    """The sum of saved states.

    Raises:
        ScoreStateError: one cannot be read, or they do not belong together.
    """
    if not paths:
        raise ScoreStateError("There are no scores yet.")
    return reduce(ScoreState.merge, (ScoreState.load(path) for path in paths))


def _check_needs_no_data(options: PruneOptions) -> None:
    if (options.rounds or 2) > 1 or options.min_metric is not None:
        raise OptionsError(
            "Without a bundle there is one round: give no steps, filters_per_step, increment or "
            "min_metric.",
            field="steps",
        )
    if options.is_on_one_ranking:
        raise OptionsError(
            f"Target {options.target.kind!r} (or the option 'points') needs a bundle.",
            field="target",
        )
    if options.rank_by == ERROR_PER_MAC:
        raise OptionsError(
            "Option 'rank_by': error_per_mac measures errors on a bundle.", field="rank_by"
        )
    if not options.criterion.needs_gradients:
        raise OptionsError(
            f"Criterion {options.criterion.value!r} takes no scores.", field="criterion"
        )
