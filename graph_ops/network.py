"""`TaylorPrunableNetwork`: score, drop, and read back the smaller network.

The reference API (MATLAB's `taylorPrunableNetwork`, `updateScore`, `updatePrunables`), on a bare
ONNX model:

    network = TaylorPrunableNetwork("model.onnx")
    for batch in batches:                               # {"image": x, "labels": y}
        network.update_score(batch)                     # reduced in the graph: the fast way
        # or: network.update_score(*network.forward_backward(batch))
    network.update_prunables(max_to_prune=8)
    smaller = network.to_model()
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from functools import cached_property
from pathlib import Path
from typing import overload

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from graph_ops.analysis import analyse
from graph_ops.bundle import ArrayInfo, Batch, Dataset
from graph_ops.canonical import bind_shapes, static_shapes
from graph_ops.channels import Convolution
from graph_ops.constant_weights import store_computed_weights
from graph_ops.cost import CostModel
from graph_ops.errors import NothingPrunableError, ScoresMissingError
from graph_ops.importance import ClassMap, magnitudes
from graph_ops.metrics.judgement import Judgement
from graph_ops.model import SourceModel, load_model, model_bytes
from graph_ops.options import Criterion, PruneOptions, parse_options
from graph_ops.prunability import Prunability
from graph_ops.recovery import Originals, Recovery, RefittedWeights, Sensitivity, recover
from graph_ops.recovery.cut_network import CutNetwork
from graph_ops.recovery.samples import INTERIM_SAMPLES, MAX_SAMPLES
from graph_ops.runtime import Array
from graph_ops.score_identity import binding, digest_of, loss_identity
from graph_ops.scores import ScoreState
from graph_ops.scoring import EngineFacts, Scorer
from graph_ops.selection import Goal, Selection, Selector
from graph_ops.sharing import reshare, unshare
from graph_ops.surgery import cut

CLASS_IDS = ArrayInfo("labels", np.dtype(np.int64), (1,))
"""Targets as expected when nothing else is said: one class id per sample."""


class TaylorPrunableNetwork:
    """A network whose filters can be scored and dropped.

    Args:
        model: Path, bytes or loaded model.
        options: Criterion, loss, floors and globs; the target is not used here.
        sample_shapes: Shape of one sample (no batch axis) by input name, where the model leaves
            axes open.
        targets: Dtype and shape [N, ...] of the targets; None when there are none. When not given
            at all, targets are expected to be class ids.

    Raises:
        ModelError: the model cannot be used.
        OptionsError: an option does not fit the model.
        NothingPrunableError: every filter is frozen or at its floor.
    """

    def __init__(
        self,
        model: str | Path | bytes | SourceModel,
        options: PruneOptions | dict[str, object] | str | None = None,
        *,
        sample_shapes: Mapping[str, tuple[int, ...]] | None = None,
        targets: ArrayInfo | None = CLASS_IDS,
    ) -> None:
        self.source = load_model(model)
        self.options = parse_options(options)
        self._targets = targets
        self.sample_shapes = dict(sample_shapes or static_shapes(self.source.model))
        self.original = self.source.clone()
        """The model as it came, every use of a shared vector with a copy of its own."""
        store_computed_weights(self.original)
        self.shared = unshare(self.original)
        """Those copies, to be joined again."""
        self._shapes = bind_shapes(self.original, self.sample_shapes)
        self.classes = analyse(self.original, self._shapes)
        self.cost = CostModel(self.classes)
        self.dropped: NDArray[np.bool_] = np.zeros(self.classes.count, dtype=np.bool_)
        self.weights = RefittedWeights()
        """What recovery changed, at the original's shapes; nothing without it."""
        self.originals: Originals | None = None
        """What recoveries keep of the original, where several are to come."""
        self.last_scores = np.full(self.classes.count, np.nan)
        self._prunability = Prunability(self.classes, self.options)
        self._scorer = (
            Scorer(self.original, self.sample_shapes, self.options, targets)
            if self.options.criterion.needs_gradients
            else None
        )
        self._prunability.set_barriers(self._find_barriers())
        self.prunable: NDArray[np.bool_] = self._prunability.mask
        """[classes] which may go."""
        self.selector = Selector(self.classes, self.prunable, self.options)
        if self.num_prunables == 0:
            raise NothingPrunableError(
                "No filter may be dropped: every convolution is frozen or at its floor of "
                f"{self.options.min_filters} filters.",
                convolutions={c.name: self.reason(c) for c in self.convolutions},
            )
        self.state = self._empty_state()

    def close(self) -> None:
        """Give back what the gradient engine holds outside this process (its child)."""
        if self._scorer is not None:
            self._scorer.close()

    # What there is -----------------------------------------------------------------------------

    @property
    def convolutions(self) -> list[Convolution]:
        """Every convolution of the model, depthwise ones included, in graph order."""
        return self.classes.channels.convolutions

    @property
    def alive(self) -> NDArray[np.bool_]:
        """[classes] which have not been dropped."""
        return ~self.dropped

    @property
    def num_prunables(self) -> int:
        """Filters that may still be dropped."""
        return self.selector.count_prunable(self.alive)

    @property
    def scorer(self) -> Scorer:
        """What takes the scores.

        Raises:
            ScoresMissingError: the criterion needs no gradients.
        """
        if self._scorer is None:
            raise ScoresMissingError(
                f"Criterion {self.options.criterion.value!r} is not taken from gradients."
            )
        return self._scorer

    def kept(self, convolution: Convolution) -> NDArray[np.int64]:
        """Indices of a convolution's filters that are left."""
        if convolution.filters is None:
            return np.arange(convolution.filter_count)
        return np.flatnonzero(self.alive[self.classes.of_filters(convolution)])

    def count_filters(self) -> int:
        """Filters left in all convolutions but depthwise ones, which follow their input."""
        return sum(self.selector.left(self.alive))

    def reason(self, convolution: Convolution) -> str | None:
        """Why no filter of a convolution may be dropped, or None."""
        return self._prunability.reason(convolution)

    # Scoring -----------------------------------------------------------------------------------

    def forward_backward(
        self, batch: Batch | Mapping[str, Array]
    ) -> tuple[dict[str, Array], dict[str, Array]]:
        """Activations and gradients of the scored convolutions.

        Args:
            batch: Inputs by name, and the targets under the name of the option `targets`.

        Returns:
            Two dicts by convolution name: outputs [N, C, …] and dL/doutput of the same shape,
            where L is the sum of the samples' losses.
        """
        self._refresh()
        return self.scorer.forward_backward(self.scorer.as_batch(batch))

    @overload
    def update_score(self, batch: Batch | Mapping[str, Array], /) -> None: ...

    @overload
    def update_score(
        self, activations: Mapping[str, Array], gradients: Mapping[str, Array], /
    ) -> None: ...

    def update_score(
        self,
        batch_or_activations: Batch | Mapping[str, Array],
        gradients: Mapping[str, Array] | None = None,
        /,
    ) -> None:
        """Add to the scores: from a batch, or from activations and gradients of one."""
        self._refresh()
        if gradients is not None:
            assert not isinstance(batch_or_activations, Batch)
            parts = self.scorer.reduce(batch_or_activations, gradients)
            losses = None
        else:
            losses, parts = self.scorer.contributions(self.scorer.as_batch(batch_or_activations))
        self.state.add(self._class_map.sum(parts), losses)

    def load_scores(self, state: ScoreState) -> None:
        """Take over scores of the same model.

        Raises:
            ScoreStateError: they belong to another model or definition.
        """
        state.require(self.digest)
        self.state = state

    def clear_scores(self) -> None:
        """Forget all samples that were added."""
        self.state = self._empty_state()

    def engine_facts(self) -> EngineFacts:
        """Who computes the gradients of the network as it is now."""
        self._refresh()
        return self.scorer.opened_facts()

    @property
    def digest(self) -> str:
        """Identifies the model, what is left of it, and the definition of the score."""
        parts = (
            self.source.sha256,
            digest_of(self.dropped),
            self.options.reduction,
            self.options.gate,
            loss_identity(self._scorer, self.options.seed),
            digest_of(self.prunable),
            str(sorted(self.sample_shapes.items())),
            *([self.weights.digest] if self.weights else []),
        )
        return hashlib.sha256("|".join(parts).encode()).hexdigest()

    def scores(self) -> NDArray[np.float64]:
        """[classes] importance by the criterion of the options; NaN where not prunable."""
        criterion = self.options.criterion
        if criterion is Criterion.RANDOM:
            scores = np.random.default_rng(self.options.seed).random(self.classes.count)
        elif criterion is Criterion.MAGNITUDE_L2:
            scores = magnitudes(self.classes, self.alive, self._current)
        else:
            scores = self.state.scores(criterion)
        return np.where(self.prunable & self.alive, scores, np.nan)

    def filter_scores(self, convolution: Convolution) -> NDArray[np.float64] | None:
        """[M] last score of each filter's class; None where nothing was scored."""
        if convolution.filters is None:
            return None
        scores = self.last_scores[self.classes.of_filters(convolution)]
        return None if np.isnan(scores).all() else scores

    # Dropping ----------------------------------------------------------------------------------

    def update_prunables(self, max_to_prune: int = 8) -> Selection:
        """Drop the least important filters, at most `max_to_prune` of them, ranked globally.

        Scores start again afterwards: they belonged to the larger network.
        """
        return self.drop(Goal(filters=max_to_prune))

    def drop(self, goal: Goal) -> Selection:
        """Drop filters until a goal is met, or nothing more may go."""
        selection = self.select(goal)
        self.apply(selection)
        return selection

    def select(self, goal: Goal, sensitivity: Sensitivity | None = None) -> Selection:
        """What `drop` would drop.

        Args:
            goal: Where to stop.
            sensitivity: What layers are compared by; the scores themselves without it.
        """
        scores = self.scores()
        self.last_scores = np.where(np.isnan(scores), self.last_scores, scores)
        ranked = np.nan_to_num(scores)
        if sensitivity is not None:
            ranked = sensitivity.as_scores(ranked)
        return self.selector.select(ranked, self.alive, goal, self.cost)

    def apply(self, selection: Selection) -> None:
        """Drop a selection."""
        dropped = np.zeros_like(self.dropped)
        dropped[list(selection.classes)] = True
        self.drop_classes(dropped)

    def drop_classes(self, dropped: NDArray[np.bool_]) -> None:
        """Drop classes [classes] without asking scores; scores start again."""
        self.dropped = self.dropped | dropped
        self.state = self._empty_state()
        self._forget()

    def recover(
        self,
        dataset: Dataset,
        tell: Callable[[str, int, int], None] = lambda stage, done, total: None,
        *,
        is_interim: bool = False,
    ) -> Recovery:
        """Give back accuracy by the option `recovery`; the network goes on with what came out.

        Scores start again: they belonged to the weights before.

        Args:
            dataset: The bundle bound to the model; its held-out part is not read.
            tell: Called with what is done (`refit`, `blocks` or `distill`), and how many layers,
                or gradient steps, of how many are.
            is_interim: Whether another round follows; fewer samples are then enough.
        """
        method = self.options.recovery
        if is_interim and method == "distill":
            method = "reconstruct"  # the next round drops more: only the last network is trained
        recovery = recover(
            self.classes,
            self.dropped,
            self.weights,
            dataset,
            method,
            classifier=self.judgement.classifier,
            seed=self.options.seed,
            limit=INTERIM_SAMPLES if is_interim else MAX_SAMPLES,
            block_iterations=0 if is_interim else self.options.steps_of_blocks,
            iterations=self.options.distill_iterations,
            tell=tell,
            originals=self.originals,
        )
        self.take_weights(recovery.weights)
        return recovery

    def take_weights(self, weights: RefittedWeights) -> None:
        """Go on with other weights, as recovery or a saved round has them; scores start again."""
        self.weights = weights
        self.state = self._empty_state()
        self._forget()

    def restore(
        self,
        dropped: NDArray[np.bool_],
        last_scores: NDArray[np.float64],
        weights: RefittedWeights,
    ) -> None:
        """Go on from what an earlier run of the same model and options reached.

        Args:
            dropped: [classes] which are gone.
            last_scores: [classes] last score of each; NaN where there is none.
            weights: What its rounds refitted.
        """
        self.dropped, self.last_scores, self.weights = dropped, last_scores, weights
        self.state = self._empty_state()
        self._forget()

    def reset(self) -> None:
        """Go back to the whole network with its own weights; scores start again."""
        nothing = np.zeros_like(self.dropped)
        self.restore(nothing, self.last_scores, RefittedWeights())

    def to_ir(self) -> ir.Model:
        """The network without the dropped filters, as an `onnx_ir` model.

        Its weights are those that recovery refitted, where it did.
        """
        model = CutNetwork.of(self.classes, self.dropped, self.weights).model
        reshare(model, self.shared)
        return model

    def to_plain_ir(self) -> ir.Model:
        """The network without the dropped filters, with the weights of the original."""
        model = cut(self.classes, self.dropped)
        reshare(model, self.shared)
        return model

    def to_model(self) -> bytes:
        """The network without the dropped filters, as a serialized ONNX model.

        It is not proven here: `graph_ops.prune` compares its result with the masked original.

        Raises:
            ModelTooLargeError: it is over 2 GB; write `to_ir()` with `graph_ops.model.write_model`.
        """
        return model_bytes(self.source, self.to_ir(), {})

    @cached_property
    def judgement(self) -> Judgement:
        """The output and the loss that say which metric fits."""
        if self._scorer is not None:
            return Judgement(self._scorer.form, self._scorer.loss)
        return Judgement.of(self.source.model, self.sample_shapes, self._targets, self.options)

    # Inside ------------------------------------------------------------------------------------

    @cached_property
    def _current(self) -> ir.Model:
        """The network as it is now, every use of a shared vector with a copy of its own."""
        if not self.dropped.any():
            return self.original
        return CutNetwork.of(self.classes, self.dropped, self.weights).model

    @cached_property
    def _class_map(self) -> ClassMap:
        return ClassMap(self.classes, self._prunability.scored(), self.alive)

    def _forget(self) -> None:
        self.__dict__.pop("_current", None)
        self.__dict__.pop("_class_map", None)
        self._is_fresh = False

    _is_fresh = False

    def _refresh(self) -> None:
        """Point the scorer at the network as it is now."""
        if not self._is_fresh:
            outputs = [str(c.node.outputs[0].name) for c in self._prunability.scored()]
            counts = [int(self.kept(c).size) for c in self._prunability.scored()]
            names = [c.name for c in self._prunability.scored()]
            self.scorer.open(self._current, outputs, counts, names)
            self._is_fresh = True

    def _empty_state(self) -> ScoreState:
        return ScoreState.empty(
            self.digest, self.classes.count, binding(self.sample_shapes, self._targets)
        )

    def _find_barriers(self) -> dict[str, str]:
        if self._scorer is None:
            return {}
        by_output = {str(c.node.outputs[0].name): c for c in self._prunability.scored()}
        counts = [c.filter_count for c in by_output.values()]
        found = self._scorer.barriers(self.original, list(by_output), counts)
        return {by_output[output].name: reason for output, reason in found.items()}
