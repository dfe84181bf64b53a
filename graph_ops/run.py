"""A run's frame: its clock and progress, and the model and bundle it opens.

What happens inside is `rounds.py` (which filters go), `goals/` (how far to go, where that is a
search) and `conclusion.py` (from what is left to a proven, measured result).
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir

from graph_ops.bundle import Bundle, BundleLimits, Dataset, ImageFacts, InputSpec, open_bundle
from graph_ops.errors import OptionsError
from graph_ops.graph import graph_inputs
from graph_ops.memory import give_back_memory
from graph_ops.model import ModelLimits, SourceModel, load_model
from graph_ops.network import TaylorPrunableNetwork
from graph_ops.options import PruneOptions
from graph_ops.prefetch import prefetched
from graph_ops.progress import PhaseCallback, PhaseTime, Progress, ProgressCallback
from graph_ops.rank_by import RankBy, rank_by
from graph_ops.recovery import Recovery, Sensitivity, measure_sensitivity
from graph_ops.score_shards import ShardExchange, score_together, split


@dataclass
class Run:
    """One run: its clock, its progress, its rounds.

    Attributes:
        options: What to reach and how.
        progress: Called as the run goes on.
        timing_s: Seconds spent, by phase.
        rounds: The report's entry of each round.
        engine: Who computed the gradients, as in the report; None for criteria without them.
        images: How the bundle's images were read; None for arrays.
        exchange: Shares out the scoring among processes; None to score alone.
        on_phase: Called at the end of each phase.
        rank_by: What layers are compared by.
    """

    options: PruneOptions
    progress: ProgressCallback = lambda _: None
    timing_s: dict[str, float] = field(default_factory=dict)
    rounds: list[dict[str, Any]] = field(default_factory=list)
    engine: dict[str, Any] | None = None
    images: ImageFacts | None = None
    exchange: ShardExchange | None = None
    on_phase: PhaseCallback = lambda _: None
    rank_by: RankBy = field(init=False)

    def __post_init__(self) -> None:
        self.rank_by = rank_by(self.options)

    def tell(self, phase: str, done: int, total: int, message: str = "") -> None:
        """Report progress."""
        self.progress(Progress(phase, done, total, message))

    @contextmanager
    def phase(self, name: str, number: int | None = None) -> Iterator[None]:
        """Count the time of a block, and give back what it leaves free.

        Args:
            name: Which phase it is.
            number: The round, where it is one's.
        """
        start, begin_s = time.perf_counter(), time.time()
        try:
            yield
        finally:
            give_back_memory()
            spent = time.perf_counter() - start
            self.timing_s[name] = self.timing_s.get(name, 0.0) + spent
            self.on_phase(PhaseTime(name, number, begin_s, begin_s + spent))

    def score(self, network: TaylorPrunableNetwork, dataset: Dataset, number: int) -> None:
        """Score the network as it is on the samples that are not held out."""
        with self.phase("score", number):
            sample = sample_of(dataset, self.options, number)
            total, done = len(sample.scored), 0

            def tell(samples: int) -> None:
                nonlocal done
                done += samples
                self.tell("score", done, total, f"round {number}")

            if self.exchange is not None:
                parts = split(sample, self.exchange.count)
                if len(parts) > 1:
                    facts = score_together(network, parts, number, self.exchange, tell)
                    shortages = (self.engine or {}).get("memory_shortages", 0)
                    self.engine = asdict(facts)
                    self.engine["memory_shortages"] += shortages
                    return
            for batch in prefetched(sample.batches("scored")):
                network.update_score(batch)
                tell(batch.size)
            self.note_engine(network)
            network.scorer.rest()

    def compare_layers(
        self, network: TaylorPrunableNetwork, dataset: Dataset, number: int
    ) -> Sensitivity | None:
        """What layers of the scored network are compared by; None for their scores.

        Raises:
            OptionsError: the options ask for measured errors, and there is nothing to measure by.
        """
        if not self.rank_by.measures:
            return None
        with self.phase("select", number):
            found = measure_sensitivity(
                network.classes,
                network.dropped,
                network.weights,
                dataset,
                network.selector.orders(np.nan_to_num(network.scores()), network.alive),
                self.options.recovery,
                seed=self.options.seed,
                tell=lambda done, total: self.tell("select", done, total, f"round {number}"),
            )
        if isinstance(found, Sensitivity):
            return found
        if self.rank_by.is_asked:
            raise OptionsError(
                f"Option 'rank_by': error_per_mac cannot be measured, because {found.reason}. "
                "Give score_per_mac.",
                field="rank_by",
            )
        self.rank_by = self.rank_by.unmeasured(found.reason)
        return None

    def note_round(
        self, network: TaylorPrunableNetwork, number: int, mean_loss: float | None
    ) -> None:
        """Append the report's entry of a round: what is left; metric and latency come later.

        Args:
            network: As the round left it.
            number: Of the round, from 1.
            mean_loss: Of the network that was scored; None where nothing was.
        """
        macs, parameters, _ = network.cost.totals(network.dropped)
        self.rounds.append(
            {
                "round": number,
                "filters": network.count_filters(),
                "macs": macs,
                "parameters": parameters,
                "mean_loss": mean_loss,
                "metric": None,
                "latency_ms": None,
            }
        )

    def note_engine(self, network: TaylorPrunableNetwork) -> None:
        """Take down who computed the gradients."""
        computed = network.scorer.engine_facts
        self.engine = self.engine if computed is None else asdict(computed)

    def recover(
        self, network: TaylorPrunableNetwork, dataset: Dataset, number: int, *, is_interim: bool
    ) -> Recovery | None:
        """Give back what was taken, and go on with the weights that came out."""
        if self.options.recovery == "none":
            return None

        def tell(stage: str, done: int, total: int) -> None:
            self.tell("recover", done, total, f"round {number}, {stage}")

        with self.phase("recover", number):
            return network.recover(dataset, tell, is_interim=is_interim)


@dataclass(frozen=True)
class Opened:
    """What a run works on.

    Attributes:
        network: The analysed network, nothing dropped yet.
        dataset: The bundle bound to its inputs.
        bundle_sha256: Digest of the bundle.
    """

    network: TaylorPrunableNetwork
    dataset: Dataset
    bundle_sha256: str


def input_specs(model: ir.Model) -> list[InputSpec]:
    """What a bundle has to hold for a model."""
    specs = []
    for value in graph_inputs(model.graph):
        dims = tuple(d if isinstance(d, int) else None for d in value.shape or ())
        dtype = value.dtype.numpy() if value.dtype is not None else np.dtype(np.float32)
        specs.append(InputSpec(str(value.name), dtype, dims))
    return specs


def bind(file: Bundle, specs: list[InputSpec], options: PruneOptions) -> Dataset:
    """A bundle's samples as the options want them.

    Args:
        file: The open bundle.
        specs: The model's inputs.
        options: Targets, batch size, samples, what is held out, seed.

    Raises:
        BundleError: any subclass: the bundle does not fit.
    """
    return Dataset.bind(
        file,
        specs,
        targets=options.targets,
        targets_required=options.loss not in ("auto", "unlabelled"),
        batch_size=options.batch_size,
        max_samples=options.max_samples,
        validation_fraction=options.held_out_share,
        seed=options.seed,
    )


@contextmanager
def opened(
    run: Run,
    model: str | Path | bytes | SourceModel,
    bundle: str | Path | bytes,
    model_limits: ModelLimits | None,
    bundle_limits: BundleLimits | None,
) -> Iterator[Opened]:
    """Load and check a model and a bundle; both are closed at the end."""
    options = run.options
    with run.phase("load"):
        run.tell("load", 0, 1)
        source = load_model(model, limits=model_limits)
    specs = input_specs(source.model)
    with open_bundle(
        bundle,
        limits=bundle_limits or BundleLimits(),
        preprocessing=options.preprocessing,
        inputs=specs,
    ) as file:
        run.images = file.images
        with run.phase("load"):
            dataset = bind(file, specs, options)
            sha256 = file.sha256
        with run.phase("analyse"):
            network = TaylorPrunableNetwork(
                source,
                options,
                sample_shapes=dataset.input_shapes,
                targets=dataset.target_info,
            )
            _check_labels(network, dataset)
        try:
            yield Opened(network, dataset, sha256)
        finally:
            network.close()


def options_as_text(options: PruneOptions) -> str:
    """The options in full, always in the same words."""
    return json.dumps(options.model_dump(mode="json"), sort_keys=True)


def sample_of(dataset: Dataset, options: PruneOptions, number: int) -> Dataset:
    """What a round scores on: everything, or as many batches as the options say, drawn anew."""
    if options.score_batches is None:
        return dataset
    count = options.score_batches * dataset.batch_size
    drawn = np.random.default_rng([options.seed, number]).permutation(dataset.scored)[:count]
    return replace(dataset, scored=np.sort(drawn))


def _check_labels(network: TaylorPrunableNetwork, dataset: Dataset) -> None:
    if not network.options.criterion.needs_gradients:
        return
    loss = network.scorer.loss
    if loss.targets == "class_ids" and not loss.is_unlabelled:
        dataset.check_labels(network.scorer.form.classes)
