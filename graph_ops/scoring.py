"""Scoring: a scoring copy, its loss, an engine, and batches in; contributions per filter out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from graph_ops.bundle import ArrayInfo, Batch
from graph_ops.canonical import ScoringCopy, scoring_copy
from graph_ops.engines.base import (
    ActivationSession,
    Engine,
    EngineInfo,
    GradientSession,
    ScoringGraph,
    Tap,
)
from graph_ops.engines.catalog import ENGINES
from graph_ops.errors import MissingInputError, ScoresMissingError
from graph_ops.folding import fold_batch_normalization
from graph_ops.halving import HalvingRunner
from graph_ops.loss import TARGET_INPUT, LossChoice, OutputForm, attach_loss, choose_loss
from graph_ops.loss import output_form as find_output_form
from graph_ops.options import PruneOptions
from graph_ops.runtime import Array, Session


@dataclass(frozen=True)
class EngineFacts(EngineInfo):
    """Who computed the gradients, and how, for the report.

    Attributes:
        why: Why it was this engine.
        batch_limit: Most samples run at once after memory ran out; None as long as it did not.
        memory_shortages: How often memory ran out.
    """

    why: str
    batch_limit: int | None
    memory_shortages: int


class Scorer:
    """Takes scores on a model, and again on what is left of it.

    Args:
        original: The model before any cut; pseudo-labels come from it.
        sample_shapes: Shape of one sample by input name.
        options: Loss, output, reduction, engine.
        targets: The bundle's targets, or None.

    Raises:
        LossError: the loss does not fit.
    """

    def __init__(
        self,
        original: ir.Model,
        sample_shapes: Mapping[str, tuple[int, ...]],
        options: PruneOptions,
        targets: ArrayInfo | None,
    ) -> None:
        self._sample_shapes = sample_shapes
        self._options = options
        copy = scoring_copy(original, sample_shapes)
        self.form: OutputForm = find_output_form(copy.model, copy.shapes, options.output)
        self.loss: LossChoice = choose_loss(self.form, targets, options.loss)
        self.engine: Engine = ENGINES[options.engine]()
        self._labeller: Session | None = None
        self._original = original
        self._taps: tuple[Tap, ...] = ()
        self._names: list[str] = []
        self._graph: ScoringGraph | None = None
        self._session: GradientSession | None = None
        self._activations: ActivationSession | None = None
        self._origins: dict[str, Array] | None = None
        self._seen = 0
        self._halving = HalvingRunner()

    @property
    def graph(self) -> ScoringGraph | None:
        """What is differentiated (None before `open`)."""
        return self._graph

    @property
    def engine_facts(self) -> EngineFacts | None:
        """Who computed the gradients, and how (None before the first batch)."""
        return None if self._session is None else self._facts_of(self._session)

    def opened_facts(self) -> EngineFacts:
        """The same, before the first batch too."""
        return self._facts_of(self._opened())

    def _facts_of(self, session: GradientSession) -> EngineFacts:
        info = session.info
        return EngineFacts(
            name=info.name,
            version=info.version,
            provider=info.provider,
            device=info.device,
            why=self.engine.why,
            batch_limit=self._halving.limit,
            memory_shortages=self._halving.shortages,
        )

    def close(self) -> None:
        """Give back what the engine holds outside this process."""
        self.engine.close()
        self.rest()

    def rest(self) -> None:
        """Free what sessions hold in this process; the next batch loads them again.

        The weights are in a scoring session at least twice, forward and backward.
        """
        self._session = self._activations = self._labeller = None

    def barriers(
        self, model: ir.Model, outputs: Sequence[str], counts: Sequence[int]
    ) -> Mapping[str, str]:
        """Convolution outputs that cannot be scored, and why."""
        return self.engine.barriers(self._build(model, outputs, counts))

    def open(
        self,
        model: ir.Model,
        outputs: Sequence[str],
        counts: Sequence[int],
        names: Sequence[str],
    ) -> None:
        """Point at a model.

        Args:
            model: The network as it is now.
            outputs: Output names of the convolutions to be scored.
            counts: Their numbers of filters.
            names: What a person calls them.
        """
        self._graph = self._build(model, outputs, counts)
        self._taps = self._graph.taps
        self._names = list(names)
        self._session = self._activations = self._origins = None

    def as_batch(self, batch: Batch | Mapping[str, Array]) -> Batch:
        """A batch from plain arrays: inputs by name, targets under their name."""
        if isinstance(batch, Batch):
            return batch
        inputs = {n: np.asarray(a) for n, a in batch.items() if n != self._options.targets}
        size = next((a.shape[0] for a in inputs.values()), 0)
        targets = batch.get(self._options.targets)
        indices = np.arange(self._seen, self._seen + size, dtype=np.int64)
        self._seen += size
        return Batch(inputs, None if targets is None else np.asarray(targets), size, indices)

    def contributions(self, batch: Batch) -> tuple[Array, list[Array]]:
        """[n] losses, and [n, C] contributions of each scored convolution's filters.

        When memory runs out the batch is halved, and those that follow are as small.
        """
        session = self._opened()

        def run(batch: Batch) -> tuple[Array, list[Array]]:
            losses, parts = session.contributions(self._feeds(batch))
            return losses[: batch.size], [p[: batch.size] for p in parts]

        losses, parts = self._halving.run(batch, run)
        return losses, self._scale(parts)

    def _opened(self) -> GradientSession:
        if self._session is None:
            self._session = self.engine.open(self._require_graph())
        return self._session

    def forward_backward(self, batch: Batch) -> tuple[dict[str, Array], dict[str, Array]]:
        """Activations and gradients by convolution name."""
        if self._activations is None:
            self._activations = self.engine.open_activations(self._require_graph())
        _, activations, gradients = self._activations.run(self._feeds(batch))
        named = dict(zip((t.name for t in self._taps), self._names, strict=True))
        return (
            {named[t]: a[: batch.size] for t, a in activations.items()},
            {named[t]: g[: batch.size] for t, g in gradients.items()},
        )

    def reduce(
        self, activations: Mapping[str, Array], gradients: Mapping[str, Array]
    ) -> list[Array]:
        """[N, C] contributions from activations and gradients [N, C, …] by convolution name."""
        if self._origins is None:
            self._origins = self._find_origins()
        parts = []
        for name, tap in zip(self._names, self._taps, strict=True):
            if name not in activations or name not in gradients:
                raise MissingInputError(
                    f"Activations and gradients of convolution {name!r} are needed.", name=name
                )
            moved = activations[name].astype(np.float64)
            origin = self._origins.get(tap.name)
            if origin is not None:
                moved = moved - origin.reshape(1, -1, *[1] * (moved.ndim - 2))
            product = moved * gradients[name]
            parts.append(product.reshape(*product.shape[:2], -1).sum(axis=2))
        return self._scale(parts)

    def _find_origins(self) -> dict[str, Array]:
        """[C] by tap: what outputs move to when their filters are dropped, where that is not 0."""
        if self._options.gate != "batch_norm":
            return {}
        folded = fold_batch_normalization(self._require_graph().model.clone())
        return {name: f.origin for name, f in folded.items()}

    def _scale(self, parts: list[Array]) -> list[Array]:
        if self._options.reduction == "sum":
            return parts
        shapes = self._require_graph().shapes
        return [
            part / np.prod([int(d or 1) for d in shapes[tap.name][2:]])
            for part, tap in zip(parts, self._taps, strict=True)
        ]

    def _build(
        self, model: ir.Model, outputs: Sequence[str], counts: Sequence[int]
    ) -> ScoringGraph:
        copy: ScoringCopy = scoring_copy(model, self._sample_shapes)
        form = find_output_form(copy.model, copy.shapes, self._options.output)
        head = attach_loss(copy.model, copy.shapes, form, self.loss)
        taps = tuple(Tap(n, c) for n, c in zip(outputs, counts, strict=True))
        return ScoringGraph(copy.model, copy.shapes, str(head.loss.name), taps, self._options.gate)

    def _require_graph(self) -> ScoringGraph:
        if self._graph is None:
            raise ScoresMissingError("The scorer was not pointed at a model yet.")
        return self._graph

    def _feeds(self, batch: Batch) -> dict[str, Array]:
        rows = next(iter(batch.inputs.values())).shape[0]
        return {**batch.inputs, TARGET_INPUT: self._target(batch, rows)}

    def _target(self, batch: Batch, rows: int) -> Array:
        dims = self._require_graph().shapes[TARGET_INPUT]
        shape = (rows, *(int(d or 0) for d in dims[1:]))
        dtype = self.form.logits.dtype.numpy() if self.form.logits.dtype else np.float32
        if self.loss.name == "pseudo_labels":
            return self._pseudo_labels(batch).reshape(shape)
        if self.loss.name == "projection":
            rng = [np.random.default_rng([self._options.seed, int(i)]) for i in batch.indices]
            vectors = [r.standard_normal(shape[1:]) for r in rng]
            vectors += [np.zeros(shape[1:])] * (rows - len(vectors))
            return np.asarray(np.stack(vectors), dtype=dtype)
        if batch.targets is None:
            raise MissingInputError(
                f"The batch has no targets {self._options.targets!r}, which loss "
                f"{self.loss.name!r} needs.",
                name=self._options.targets,
            )
        wanted = np.int64 if self.loss.targets == "class_ids" else dtype
        return np.asarray(batch.targets.astype(wanted).reshape(shape))

    def _pseudo_labels(self, batch: Batch) -> Array:
        """[N, …] the original model's most likely class."""
        if self._labeller is None:
            self._labeller = Session(self._original, keep_memory=False)
        output = self._labeller.run(batch.inputs, [self.form.name])[0]
        return np.asarray(np.argmax(output, axis=1), dtype=np.int64)
