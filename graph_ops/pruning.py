"""`prune`: load, score, select, cut, prove, recover, measure, write.

The loop scores the network as it is, drops towards the target, gives back what it can, and goes on
with what is left (`rounds.py`); a goal that no count of filters expresses is searched for
(`goals/`). What comes out is proven and measured (`conclusion.py`).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from graph_ops.bundle import BundleLimits
from graph_ops.checkpoint import Checkpoint, SavedRun, run_key
from graph_ops.conclusion import Conclusion
from graph_ops.errors import OptionsError, StaleShardError
from graph_ops.evidence import BundleEvidence
from graph_ops.goals.curve import prune_along
from graph_ops.goals.latency import search_latency
from graph_ops.goals.metric_drop import search_metric_drop
from graph_ops.metrics import Examiner, choose_metric
from graph_ops.model import ModelLimits, SourceModel
from graph_ops.options import PruneOptions, parse_options
from graph_ops.progress import PhaseCallback, Progress, ProgressCallback
from graph_ops.result import PruneResult
from graph_ops.rounds import Course, drop_in_rounds
from graph_ops.run import Opened, Run, opened, options_as_text, sample_of
from graph_ops.score_shards import (
    HelperExchange,
    ShardExchange,
    SharedScoring,
    score_shard,
    split,
)
from graph_ops.scores import ScoreState
from graph_ops.version import VERSION


def prune(
    model: str | Path | bytes | SourceModel,
    bundle: str | Path | bytes,
    options: PruneOptions | dict[str, Any] | str | None = None,
    *,
    progress: ProgressCallback | None = None,
    scores: ScoreState | None = None,
    checkpoint: Checkpoint | None = None,
    exchange: ShardExchange | None = None,
    on_phase: PhaseCallback = lambda _: None,
    model_limits: ModelLimits | None = None,
    bundle_limits: BundleLimits | None = None,
) -> PruneResult:
    """Prune a model on a calibration bundle.

    Args:
        model: Path, bytes or loaded model.
        bundle: Path or bytes of a `.npz` or `.safetensors` bundle.
        options: What to reach and how.
        progress: Called as the run goes on.
        scores: A score state of the same model; the first round then needs no scoring.
        checkpoint: Where the run keeps what each round reached. A run with the same model, bundle
            and options goes on from there and ends with the same result. Not used with `scores`.
        exchange: Shares out the scoring among processes, which see the same checkpoint. Not used
            with `scores`.
        on_phase: Called at the end of each phase, with its times.
        model_limits: Bounds on the model file.
        bundle_limits: Bounds on the bundle.

    Raises:
        PrunerError: any subclass; see `graph_ops.errors`.
    """
    run = Run(parse_options(options), progress or (lambda _: None))
    run.exchange, run.on_phase = exchange if scores is None else None, on_phase
    with opened(run, model, bundle, model_limits, bundle_limits) as parts:
        network, dataset = parts.network, parts.dataset
        metric = choose_metric(run.options, network.judgement)
        examiner = Examiner(network.source.model, dataset, metric)
        evidence = BundleEvidence(dataset, parts.bundle_sha256, examiner)
        conclusion = Conclusion(run, network, evidence, network.num_prunables)
        saved = _saved_run(run, parts, checkpoint if scores is None else None)
        if run.options.points is not None:
            return prune_along(run, network, dataset, scores, saved, conclusion)
        return conclusion.result(_course(run, parts, scores, saved, evidence))


def score(
    model: str | Path | bytes | SourceModel,
    bundle: str | Path | bytes,
    options: PruneOptions | dict[str, Any] | str | None = None,
    *,
    progress: ProgressCallback | None = None,
    exchange: ShardExchange | None = None,
    on_phase: PhaseCallback = lambda _: None,
    model_limits: ModelLimits | None = None,
    bundle_limits: BundleLimits | None = None,
) -> ScoreState:
    """Take the scores of a whole model on a calibration bundle, and drop nothing.

    The state can be saved, added to the state of another bundle of the same model, and given to
    `prune` with any target.

    Args:
        model: Path, bytes or loaded model.
        bundle: Path or bytes of a `.npz` or `.safetensors` bundle.
        options: Loss, reduction, globs and samples; the target is not used.
        progress: Called as the run goes on.
        exchange: Shares out the scoring among processes.
        on_phase: Called at the end of each phase, with its times.
        model_limits: Bounds on the model file.
        bundle_limits: Bounds on the bundle.

    Raises:
        PrunerError: any subclass; `OptionsError` when the criterion takes no scores from a bundle.
    """
    asked = parse_options(options)
    if not asked.criterion.needs_gradients:
        raise OptionsError(
            f"Criterion {asked.criterion.value!r} takes no scores from a bundle: use 'taylor' or "
            "'taylor_squared', which share one score state.",
            field="criterion",
            found=asked.criterion.value,
        )
    run = Run(asked, progress or (lambda _: None), exchange=exchange, on_phase=on_phase)
    with opened(run, model, bundle, model_limits, bundle_limits) as parts:
        run.score(parts.network, parts.dataset, 1)
        return parts.network.state


def help_score(
    model: str | Path | bytes | SourceModel,
    bundle: str | Path | bytes,
    options: PruneOptions | dict[str, Any] | str | None,
    scoring: SharedScoring,
    *,
    exchange: HelperExchange,
    checkpoint: Checkpoint,
    on_phase: PhaseCallback = lambda _: None,
    model_limits: ModelLimits | None = None,
    bundle_limits: BundleLimits | None = None,
) -> None:
    """Score shards of a round for a run that goes on elsewhere, until there are no more.

    Args:
        model: The run's model.
        bundle: Its bundle.
        options: Its options.
        scoring: Which round, in how many shards.
        exchange: Names the shards, and takes what they come to.
        checkpoint: What the round before has left, where there was one; nothing is written.
        on_phase: Called at the end of each phase, with its times.
        model_limits: Bounds on the model file.
        bundle_limits: Bounds on the bundle.

    Raises:
        StaleShardError: the run is at another round by now, or has not so many shards.
        PrunerError: any other subclass.
    """
    run = Run(parse_options(options), on_phase=on_phase)
    with opened(run, model, bundle, model_limits, bundle_limits) as parts:
        network, number = parts.network, scoring.number
        if number > 1:
            state = _saved_run(run, parts, checkpoint).load()
            if state is None or state.number != number - 1:
                raise StaleShardError(f"Round {number} is not the run's next one.")
            network.restore(state.dropped, state.last_scores, state.weights)
        shards = split(sample_of(parts.dataset, run.options, number), scoring.count)
        if len(shards) != scoring.count:
            raise StaleShardError(f"The samples do not make {scoring.count} shards.")
        while not exchange.is_over():
            shard = exchange.claim()
            if shard is None:
                exchange.wait()
            else:
                with run.phase("score", number):
                    scored = score_shard(network, shards[shard])
                exchange.hand_in(shard, scored)


def _course(
    run: Run,
    parts: Opened,
    scores: ScoreState | None,
    saved: SavedRun,
    evidence: BundleEvidence,
) -> Course:
    """Drop what the target asks for, in the way that its kind asks for."""
    network, dataset, examiner = parts.network, parts.dataset, evidence.examiner
    match run.options.target.kind:
        case "max_metric_drop":
            return search_metric_drop(run, network, dataset, scores, saved, examiner)
        case "max_latency_ratio":
            _, feeds = evidence.latency_feeds()
            return search_latency(run, network, dataset, scores, saved, feeds)
        case _:
            return drop_in_rounds(run, network, dataset, scores, saved, evidence)


def _saved_run(run: Run, parts: Opened, checkpoint: Checkpoint | None) -> SavedRun:
    """The run's place in a checkpoint.

    Scores from elsewhere are no part of the key: such a run is short, and keeps nothing.
    """
    network = parts.network
    key = run_key(network.digest, parts.bundle_sha256, options_as_text(run.options), VERSION)
    return SavedRun(checkpoint, key, network.classes.count)


__all__ = ["Progress", "PruneResult", "prune", "score"]
