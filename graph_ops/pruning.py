"""`prune`: load, score, select, cut, prove, recover, measure, write.

The loop scores the network as it is, drops towards the target, gives back what it can, and goes on
with what is left. The final model is cut from the original in one piece, so that the proof compares
like with like; recovery changes its weights after that.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir

from graph_ops.bundle import Batch, BundleLimits, Dataset, InputSpec, open_bundle
from graph_ops.checkpoint import Checkpoint, RoundState, SavedRun, run_key
from graph_ops.cost import latencies_ms
from graph_ops.equivalence import check_same_structure, prove
from graph_ops.errors import OptionsError
from graph_ops.graph import graph_inputs
from graph_ops.metric import measure
from graph_ops.model import ModelLimits, SourceModel, load_model
from graph_ops.network import TaylorPrunableNetwork
from graph_ops.options import PruneOptions, parse_options
from graph_ops.prefetch import prefetched
from graph_ops.profiling import operator_times
from graph_ops.recovery import Recovery
from graph_ops.report import Cost, RunFacts, build_report
from graph_ops.result import PruneResult, write_and_read_back
from graph_ops.runtime import Array, Session
from graph_ops.scores import ScoreState
from graph_ops.targets import goal_of, unreachable
from graph_ops.version import TOOL, VERSION

PROOF_SAMPLES = 32
ROUND_LATENCY_S = 0.1
"""Time that the latency of a round which is not the last may take (three runs are always made)."""


@dataclass(frozen=True)
class Progress:
    """How far a run is.

    Attributes:
        phase: `load`, `score`, `recover`, `cut`, `write`, `prove` or `measure`.
        done: Units done in the phase (samples while scoring, layers while recovering).
        total: Units of the phase.
        message: For people.
    """

    phase: str
    done: int
    total: int
    message: str = ""


ProgressCallback = Callable[[Progress], None]


def input_specs(model: ir.Model) -> list[InputSpec]:
    """What a bundle has to hold for a model."""
    specs = []
    for value in graph_inputs(model.graph):
        dims = tuple(d if isinstance(d, int) else None for d in value.shape or ())
        dtype = value.dtype.numpy() if value.dtype is not None else np.dtype(np.float32)
        specs.append(InputSpec(str(value.name), dtype, dims))
    return specs


def prune(
    model: str | Path | bytes | SourceModel,
    bundle: str | Path | bytes,
    options: PruneOptions | dict[str, Any] | str | None = None,
    *,
    progress: ProgressCallback | None = None,
    scores: ScoreState | None = None,
    checkpoint: Checkpoint | None = None,
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
        model_limits: Bounds on the model file.
        bundle_limits: Bounds on the bundle.

    Raises:
        PrunerError: any subclass; see `graph_ops.errors`.
    """
    run = _Run(parse_options(options), progress or (lambda _: None))
    with _opened(run, model, bundle, model_limits, bundle_limits) as (network, dataset, sha256):
        return run.finish(network, dataset, sha256, scores, checkpoint)


def score(
    model: str | Path | bytes | SourceModel,
    bundle: str | Path | bytes,
    options: PruneOptions | dict[str, Any] | str | None = None,
    *,
    progress: ProgressCallback | None = None,
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
        model_limits: Bounds on the model file.
        bundle_limits: Bounds on the bundle.

    Raises:
        PrunerError: any subclass; `OptionsError` when the criterion takes no scores from a bundle.
    """
    opts = parse_options(options)
    if not opts.criterion.needs_gradients:
        raise OptionsError(
            f"Criterion {opts.criterion.value!r} takes no scores from a bundle: use 'taylor' or "
            "'taylor_squared', which share one score state.",
            field="criterion",
            found=opts.criterion.value,
        )
    run = _Run(opts, progress or (lambda _: None))
    with _opened(run, model, bundle, model_limits, bundle_limits) as (network, dataset, _):
        run.score(network, dataset, 1)
        return network.state


@contextmanager
def _opened(
    run: _Run,
    model: str | Path | bytes | SourceModel,
    bundle: str | Path | bytes,
    model_limits: ModelLimits | None,
    bundle_limits: BundleLimits | None,
) -> Iterator[tuple[TaylorPrunableNetwork, Dataset, str]]:
    """The analysed network, the bundle bound to its inputs, and the bundle's sha256."""
    opts = run.options
    with run.phase("load"):
        run.tell("load", 0, 1)
        source = load_model(model, limits=model_limits)
    with open_bundle(bundle, limits=bundle_limits or BundleLimits()) as opened:
        with run.phase("load"):
            needs_targets = opts.loss not in ("auto", "unlabelled")
            dataset = Dataset.bind(
                opened,
                input_specs(source.model),
                targets=opts.targets,
                targets_required=needs_targets,
                batch_size=opts.batch_size,
                max_samples=opts.max_samples,
                validation_fraction=opts.validation_fraction,
                seed=opts.seed,
            )
            sha256 = opened.sha256
        with run.phase("analyse"):
            network = TaylorPrunableNetwork(
                source,
                opts,
                sample_shapes=dataset.input_shapes,
                targets=dataset.target_info,
            )
            _check_labels(network, dataset)
        try:
            yield network, dataset, sha256
        finally:
            network.close()


def _check_labels(network: TaylorPrunableNetwork, dataset: Dataset) -> None:
    if not network.options.criterion.needs_gradients:
        return
    loss = network.scorer.loss
    if loss.targets == "class_ids" and not loss.is_unlabelled:
        dataset.check_labels(network.scorer.form.classes)


class _Run:
    """One run: its clock, its progress, its rounds."""

    def __init__(self, options: PruneOptions, progress: ProgressCallback) -> None:
        self.options = options
        self.timing_s: dict[str, float] = {}
        self._progress = progress
        self.rounds: list[dict[str, Any]] = []
        self.engine: dict[str, Any] | None = None

    def tell(self, phase: str, done: int, total: int, message: str = "") -> None:
        self._progress(Progress(phase, done, total, message))

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        start = time.perf_counter()
        try:
            yield
        finally:
            spent = time.perf_counter() - start
            self.timing_s[name] = self.timing_s.get(name, 0.0) + spent

    def finish(
        self,
        network: TaylorPrunableNetwork,
        dataset: Dataset,
        bundle_sha256: str,
        scores: ScoreState | None,
        checkpoint: Checkpoint | None = None,
    ) -> PruneResult:
        """Drop to the target, prove, measure, report."""
        prunable_before = network.num_prunables
        key = run_key(network.digest, bundle_sha256, _as_text(self.options), VERSION)
        # Scores from elsewhere are no part of the key: such a run is short, and keeps nothing.
        kept_in = checkpoint if scores is None else None
        saved = SavedRun(kept_in, key, network.classes.count)
        stop_reason, first_state = self._drop_to_target(network, dataset, scores, saved)
        with self.phase("cut"):
            self.tell("cut", 0, 1)
            plain = network.to_plain_ir()
        with self.phase("write"):
            self.tell("write", 0, 1)
            metadata = self._metadata(network)
            proven = write_and_read_back(network.source, plain, metadata)
        with self.phase("prove"):
            self.tell("prove", 0, 1)
            cut_only = proven.reloaded.model
            proof = prove(network.classes, network.dropped, cut_only, _proof_batches(dataset))
        recovery = self._recover(network, dataset, len(self.rounds), is_interim=False)
        pruned, written = plain, proven
        if recovery is not None and recovery.weights:
            with self.phase("write"):
                pruned = network.to_ir()
                written = write_and_read_back(network.source, pruned, metadata)
                check_same_structure(cut_only, written.reloaded.model)
        returned = written.reloaded.model
        with self.phase("measure"):
            self.tell("measure", 0, 1)
            original, smaller = Session(network.source.model), Session(returned)
            metric = measure(original, smaller, _held_out(dataset), *network.judgement)
            unrecovered = metric
            if written is not proven:
                session = Session(cut_only, keep_memory=False)
                unrecovered = measure(original, session, _held_out(dataset), *network.judgement)
            batch, feeds = _latency_feeds(dataset)
            before_ms, after_ms = latencies_ms([original, smaller], feeds)
            operators_before = operator_times(network.source.model, feeds)
            operators_after = operator_times(returned, feeds)
        self.rounds[-1] |= {"metric": metric.after, "latency_ms": after_ms}
        nothing = np.zeros_like(network.dropped)
        facts = RunFacts(
            bundle_sha256=bundle_sha256,
            bundle_samples=dataset.samples,
            held_out=len(dataset.held_out),
            stop_reason=stop_reason,
            rounds=self.rounds,
            engine=self.engine,
            metric=metric,
            before=_cost(network, nothing, network.source.size_bytes, before_ms, batch),
            after=_cost(network, network.dropped, written.size_bytes, after_ms, batch),
            proof=proof,
            recovery=recovery,
            unrecovered=unrecovered,
            operators_before=operators_before,
            operators_after=operators_after,
            prunable_before=prunable_before,
            timing_s=self.timing_s,
        )
        report = build_report(network, facts)
        self.tell("measure", 1, 1)
        return PruneResult(report, first_state, network.source, pruned, metadata, written)

    def _drop_to_target(
        self,
        network: TaylorPrunableNetwork,
        dataset: Dataset,
        scores: ScoreState | None,
        saved: SavedRun,
    ) -> tuple[str, ScoreState | None]:
        """Rounds of score and drop; why they ended, and the scores of the whole network."""
        first_state: ScoreState | None = None
        number, dropped = 0, 0
        final = goal_of(network, self.options, 1.0, 0)
        state = saved.load()
        if state is not None:
            network.restore(state.dropped, state.last_scores, state.weights)
            first_state, number, dropped = state.first_scores, state.number, state.filters
            self.rounds, self.engine = state.rounds, state.engine
            self.timing_s |= state.timing_s
            if state.stop_reason is not None:
                return state.stop_reason, first_state
        rounds = self.options.steps or 1
        while True:
            number += 1
            if network.options.criterion.needs_gradients:
                with self.phase("score"):
                    if number == 1 and scores is not None:
                        network.load_scores(scores)
                    else:
                        self.score(network, dataset, number)
                first_state = first_state or network.state
                computed = network.scorer.engine_facts
                self.engine = self.engine if computed is None else asdict(computed)
            is_last = number >= rounds and self.options.filters_per_step is None
            share = min(1.0, number / rounds)
            if self.options.filters_per_step is None:
                goal = goal_of(network, self.options, share, dropped)
            else:
                whole = goal_of(network, self.options, 1.0, dropped)
                goal = replace(whole, at_most=self.options.filters_per_step)
            mean_loss = network.state.mean_loss
            with self.phase("select"):
                selection = network.select(goal)
            is_stuck = not selection.is_reached and (is_last or not selection.classes)
            if is_stuck and self.options.on_unreachable == "error":
                raise unreachable(network, selection, final)
            network.apply(selection)
            dropped += selection.filters
            macs, parameters, _ = network.cost.totals(network.dropped)
            self.rounds.append(
                {
                    "round": number,
                    "filters": network.count_filters(),
                    "macs": macs,
                    "parameters": parameters,
                    "mean_loss": mean_loss,
                }
            )
            stop_reason = None
            if is_stuck:
                stop_reason = "nothing_more_to_prune"
            elif selection.is_reached and (is_last or self.options.filters_per_step is not None):
                stop_reason = "target_reached"
            else:
                self._recover(network, dataset, number, is_interim=True)
                self.rounds[-1] |= self._measure_round(network, dataset)
            saved.save(
                RoundState(
                    number=number,
                    filters=dropped,
                    dropped=network.dropped,
                    last_scores=network.last_scores,
                    weights=network.weights,
                    first_scores=first_state,
                    rounds=self.rounds,
                    engine=self.engine,
                    stop_reason=stop_reason,
                    timing_s=self.timing_s,
                )
            )
            if stop_reason is not None:
                return stop_reason, first_state

    def score(self, network: TaylorPrunableNetwork, dataset: Dataset, number: int) -> None:
        """Score the network as it is on every sample that is not held out."""
        total = len(dataset.scored)
        done = 0
        for batch in prefetched(dataset.batches("scored")):
            network.update_score(batch)
            done += batch.size
            self.tell("score", done, total, f"round {number}")

    def _recover(
        self, network: TaylorPrunableNetwork, dataset: Dataset, number: int, *, is_interim: bool
    ) -> Recovery | None:
        """Give back what the rounds so far took, and go on with the weights that came out."""
        if self.options.recovery == "none":
            return None
        with self.phase("recover"):
            return network.recover(
                dataset,
                lambda done, total: self.tell("recover", done, total, f"round {number}"),
                is_interim=is_interim,
            )

    def _measure_round(
        self, network: TaylorPrunableNetwork, dataset: Dataset
    ) -> dict[str, float | None]:
        """Metric and latency of the network as it goes into the next round."""
        with self.phase("measure"):
            original = Session(network.source.model, keep_memory=False)
            current = Session(network.to_ir(), keep_memory=False)
            metric = measure(original, current, _held_out(dataset), *network.judgement)
            _, feeds = _latency_feeds(dataset)
            (latency_ms,) = latencies_ms([current], feeds, budget_s=ROUND_LATENCY_S)
        return {"metric": metric.after, "latency_ms": latency_ms}

    def _metadata(self, network: TaylorPrunableNetwork) -> dict[str, str]:
        return {
            "onnx_filter_pruner.version": f"{TOOL} {VERSION}",
            "onnx_filter_pruner.source_sha256": network.source.sha256,
            "onnx_filter_pruner.options": _as_text(self.options),
        }


def _as_text(options: PruneOptions) -> str:
    return json.dumps(options.model_dump(mode="json"), sort_keys=True)


def _proof_batches(dataset: Dataset) -> Iterator[tuple[dict[str, Array], int]]:
    seen = 0
    for batch in dataset.batches("scored"):
        yield batch.inputs, batch.size
        seen += batch.size
        if seen >= PROOF_SAMPLES:
            return


def _held_out(dataset: Dataset) -> Iterable[Batch]:
    return dataset.batches("held_out") if len(dataset.held_out) else ()


def _latency_feeds(dataset: Dataset) -> tuple[int, dict[str, Array]]:
    """One sample, or one batch of a model whose batch size is fixed."""
    batch: Batch = next(iter(dataset.batches("scored")))
    if dataset.has_fixed_batch:
        return dataset.batch_size, batch.inputs
    return 1, {n: a[:1] for n, a in batch.inputs.items()}


def _cost(
    network: TaylorPrunableNetwork,
    dropped: Any,
    size_bytes: int,
    milliseconds: float,
    batch: int,
) -> Cost:
    macs, parameters, _ = network.cost.totals(dropped)
    known = network.cost.are_macs_complete
    return Cost(macs if known else None, parameters, size_bytes, milliseconds, batch)


__all__ = ["Progress", "PruneResult", "input_specs", "prune", "score"]
