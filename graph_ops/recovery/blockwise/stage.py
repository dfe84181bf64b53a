"""Blocks of a cut network are trained one after the other, each towards the original's.

The regressions fit one layer at a time, each to the original's values behind it. What a layer
cannot give any more, others of its block can make up for, if they are moved together towards what
leaves the block (Li et al. 2021, "BRECQ"). A block reads what those before it, trained already,
give, and is fitted to that by regression before it is trained itself. A few dozen steps are enough.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import islice

import numpy as np
import onnx_ir as ir

from graph_ops.bundle import Batch, Dataset
from graph_ops.canonical import scoring_copy
from graph_ops.cost import CostModel
from graph_ops.graph import constant_array
from graph_ops.recovery.blockwise.partition import NetworkBlock, find_blocks, largest_numbers
from graph_ops.recovery.blockwise.passing import Feeds, Passing, piece_of
from graph_ops.recovery.cut_network import CutNetwork
from graph_ops.recovery.originals import Originals
from graph_ops.recovery.refit import Refitter, Tell
from graph_ops.recovery.samples import RefitSamples
from graph_ops.recovery.summary import BlockRecovery
from graph_ops.recovery.training.images import read_samples, training_batches
from graph_ops.recovery.training.muon import Muon
from graph_ops.recovery.training.parameters import Parameter, find_parameters, write
from graph_ops.recovery.training.student import Student
from graph_ops.recovery.training.teacher import mean_squares
from graph_ops.recovery.walk import computing_nodes, reads
from graph_ops.recovery.weights import RefittedWeights
from graph_ops.runtime import Array

STEP_SAMPLES = 64
"""Samples of a step, at most; smaller batches are summed up before each."""
LEAST_SAMPLES = 8
"""Samples of a step where each takes long."""
WORK = 2.5e12
"""MACs of all steps of all blocks, forward and backward, that a network of many MACs is given:
minutes on two cores."""
PASSES = 3
"""A step costs about as much as so many passes forward."""
STEP_FACTOR = 2.0
"""Steps beside those of `Parameter`: there are few of them."""
KEPT_BYTES = 1 << 30
"""Values kept at the ends of a block, at most; of larger ones fewer samples are drawn."""
CHECK_SHARE = 0.25
"""Most of it that samples set aside take."""
NOTHING = 1e-6
"""A block that errs by no more, relatively, has lost nothing yet."""


def train_blocks(
    network: CutNetwork,
    dataset: Dataset,
    samples: RefitSamples,
    iterations: int,
    seed: int,
    tell: Tell,
    originals: Originals | None = None,
) -> tuple[RefittedWeights, list[BlockRecovery]]:
    """Train a refitted cut model in place, block after block.

    Args:
        network: What was cut and refitted.
        dataset: The bundle bound to the model; its held-out part is not read.
        samples: Those set aside decide which blocks are kept, and are not trained on.
        iterations: Gradient steps of each block.
        seed: Of the batches.
        tell: Progress.
        originals: What the original computes, as refits before kept it.

    Returns:
        The weights as they are now, and what was done to each block; none where no float32 weight
        has a single reader, or the network cannot be run in blocks.

    Raises:
        ModelRunError: ONNX Runtime, or the version converter, refuses the network.
    """
    if not find_parameters(network.model.graph, frozenset(network.weights.biases)):
        return network.weights, []
    refitter = Refitter(network, samples, seed, originals)
    trainer = _Trainer(network, refitter, dataset, samples, iterations, seed, tell)
    done = trainer.train()
    return trainer.weights(), done


class _Wanted:
    """What a cut block should give, by batch: the original's values at what is left."""

    def __init__(self, block: NetworkBlock, passed: Sequence[Feeds]) -> None:
        self._block = block
        self._passed = passed

    def __getitem__(self, number: int) -> Feeds:
        passed = self._passed[number]
        return {c.value: c.of_original(passed[c.value]) for c in self._block.compared}


class _Trainer:
    def __init__(
        self,
        network: CutNetwork,
        refitter: Refitter,
        dataset: Dataset,
        samples: RefitSamples,
        iterations: int,
        seed: int,
        tell: Tell,
    ) -> None:
        shapes = dataset.input_shapes
        cut, original = (scoring_copy(m, shapes) for m in (network.model, network.original))
        self._network = network
        self._refitter = refitter
        self._shapes = shapes
        self._iterations = iterations
        self._tell = tell
        self._blocks = find_blocks(network.classes, network.dropped, cut, original)
        self._tensors: set[str] = set()
        self._biases: set[str] = set()
        macs = CostModel(network.classes).totals(network.dropped)[0]
        step = step_samples(macs, iterations)
        rows = dataset.batch_size if dataset.has_fixed_batch else min(dataset.batch_size, step)
        self._batches_per_step = -(-step // rows)
        each = 4 * largest_numbers(self._blocks, shapes)
        check = _checked(samples.checked, int(CHECK_SHARE * KEPT_BYTES) // max(1, each))
        room = KEPT_BYTES // max(1, each) - sum(b.size for b in check)
        wanted = iterations * self._batches_per_step
        self._count = max(1, min(wanted, room // rows))
        inputs = read_samples(dataset, samples)
        drawn = list(islice(training_batches(inputs, rows, seed), self._count))
        batches = [*drawn, *(b.inputs for b in check)]
        self._sizes = [b.size for b in check]
        self._checked = range(self._count, len(batches))
        self._ours, self._theirs = Passing(cut, batches), Passing(original, batches)

    def train(self) -> list[BlockRecovery]:
        """All blocks, in order."""
        done: list[BlockRecovery] = []
        total = self._iterations * len(self._blocks)
        for number, block in enumerate(self._blocks):
            wanted = _Wanted(block, self._theirs.go_on(block))
            begin = self._begin_of(block)
            entered = self._refitter.ours.move(begin)
            if self._tensors or self._biases:
                self._refit(block)
            done.append(self._block(block, wanted, number * self._iterations, total))
            del wanted
            self._refitter.ours.go_back(entered)
            if number + 1 < len(self._blocks):
                self._ours.go_on(block)
        self._tell(total, total)
        return done

    def weights(self) -> RefittedWeights:
        """The weights as they are now."""
        refitted = replace(self._network, weights=self._refitter.weights())
        return refitted.changed(self._tensors, self._biases)

    def _begin_of(self, block: NetworkBlock) -> int:
        """Index of the first node of the cut model that may read what enters a block."""
        if block.begin is None:
            return 0
        name = block.begin.value
        return 1 + next(
            i
            for i, n in enumerate(computing_nodes(self._network.model))
            if name in [o.name for o in n.outputs]
        )

    def _refit(self, block: NetworkBlock) -> None:
        """Fit its layers to what those before it give by now."""
        for layer in self._refitter.layers:
            if str(layer.node.outputs[0].name) in block.layers:
                self._refitter.refit(layer, "reconstruct")
        arrays = {
            str(value.name): array
            for node in self._network.model.graph
            for value in reads(node)
            if str(value.name) in block.weights or str(node.outputs[0].name) in block.layers
            if (array := constant_array(value)) is not None and array.dtype.kind == "f"
        }
        if not self._put(arrays):  # a layer was given a bias, or its tensors are stored otherwise
            self._ours.copy = scoring_copy(self._network.model, self._shapes)

    def _block(self, block: NetworkBlock, wanted: _Wanted, begun: int, total: int) -> BlockRecovery:
        before = self._error(block, wanted)
        plain = BlockRecovery(block.name, tuple(block.layers.values()))
        if before is None:
            reason = "its values, or the original's, are not finite, or all of those are zero"
            return replace(plain, reason=reason)
        plain = replace(plain, error_before=before)
        if before <= NOTHING:
            return replace(plain, reason="nothing is lost before its end")
        piece = piece_of(self._ours.copy, block)
        values = {str(v.name): v for v in piece.model.graph.outputs}
        given = frozenset(self._network.weights.biases)
        readers = [n for n in self._network.model.graph if _reads_any(n, block.weights)]
        parameters = {p.name: p for p in find_parameters(readers, given)}
        names = [n for n in parameters if n in block.weights]
        scales = mean_squares(wanted[i] for i in range(self._count))
        student = Student(piece, names, values, scales)
        if not student.parameters:
            reason = (
                "no weight of it can be trained: an operator between them and its end has no "
                "gradient, or they are shared or not float32"
            )
            return replace(plain, reason=reason)
        used = [parameters[n] for n in student.parameters]
        trained = {p.name: np.array(p.array) for p in used}
        size = sum(a.size for a in trained.values())
        if not self._learn(student, used, trained, wanted, begun, total):
            return replace(plain, trained=size, reason="the loss is not finite")
        self._put(trained)
        after = self._error(block, wanted)
        if after is None or after >= before:
            self._put({p.name: p.array for p in used})
            reason = "the error on the samples set aside is not lower"
            return replace(plain, trained=size, error_after=after, reason=reason)
        tensors, biases = write(used, trained)
        self._tensors.update(tensors)
        self._biases.update(biases)
        return replace(plain, trained=size, kept=True, error_after=after)

    def _learn(
        self,
        student: Student,
        parameters: Sequence[Parameter],
        trained: dict[str, Array],
        wanted: _Wanted,
        begun: int,
        total: int,
    ) -> bool:
        """All steps of one block; False where its loss is not finite."""
        steps = {p.name: STEP_FACTOR * p.step for p in parameters}
        groups = {p.name: p.groups for p in parameters if p.groups is not None}
        optimiser = Muon(trained, steps, groups, self._iterations)
        number = 0
        for step in range(self._iterations):
            self._tell(begun + step, total)
            gradients: dict[str, Array] = {}
            for _ in range(self._batches_per_step):
                place = number % self._count
                lesson = student.learn(self._ours.here[place], wanted[place], trained)
                if not np.isfinite(lesson.loss):
                    return False
                gradients = {
                    n: g + gradients[n] if n in gradients else g
                    for n, g in lesson.gradients.items()
                }
                number += 1
            optimiser.update(gradients)
        return True

    def _error(self, block: NetworkBlock, wanted: _Wanted) -> float | None:
        """On the samples set aside, the mean over what is compared; None where it is not finite."""
        found = self._ours.compared(block, self._checked)
        pairs = zip(found, (wanted[i] for i in self._checked), self._sizes, strict=True)
        gap: dict[str, float] = dict.fromkeys(block.outputs, 0.0)
        energy = dict(gap)
        for ours, theirs, size in pairs:
            for name in block.outputs:
                a, b = theirs[name][:size].astype(np.float64), ours[name][:size]
                gap[name] += float(np.square(a - b).sum())
                energy[name] += float(np.square(a).sum())
        errors = [gap[n] / energy[n] for n in block.outputs if energy[n] > 0]
        error = float(np.sqrt(errors).mean()) if errors else float("nan")
        return error if np.isfinite(error) else None

    def _put(self, arrays: Mapping[str, Array]) -> bool:
        """Into the copy that samples pass; False where it stores one otherwise, or not at all."""
        tensors = self._ours.copy.model.graph.initializers
        for name, array in arrays.items():
            before = constant_array(tensors.get(name))
            if before is None or (before.dtype, before.shape) != (array.dtype, array.shape):
                return False
            tensors[name].const_value = ir.tensor(array, name=name)
        return True


def _reads_any(node: ir.Node, names: frozenset[str]) -> bool:
    return any(str(v.name) in names for v in node.inputs if v is not None)


def step_samples(macs: int, iterations: int) -> int:
    """Samples of a step, so that all steps stay within `WORK` as far as that can be.

    Args:
        macs: Of the cut network, for one sample.
        iterations: Steps of each block.
    """
    affordable = WORK / (PASSES * max(1, macs) * iterations)
    return int(min(STEP_SAMPLES, max(LEAST_SAMPLES, affordable)))


def _checked(dataset: Dataset, limit: int) -> list[Batch]:
    """Batches of the samples set aside, as many as fit, one at least."""
    found: list[Batch] = []
    for batch in dataset.batches("scored"):
        if found and sum(b.size for b in (*found, batch)) > limit:
            break
        found.append(batch)
    return found
