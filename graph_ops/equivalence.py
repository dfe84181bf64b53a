"""The proof: the pruned model equals the original with the dropped channels masked.

Reference: the original graph, with the dropped channels multiplied by zero at the inputs of the
operators that sum over them (Conv, ConvTranspose, Gemm, MatMul, ReduceSum and its kin). There a
zero adds nothing, which is what deleting it does. Both models are run on real batches.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain, zip_longest
from typing import Protocol

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from graph_ops.channel_classes import ChannelClasses
from graph_ops.difference import difference, relative
from graph_ops.double_precision import answers_in_double
from graph_ops.errors import ModelRunError, ProofError
from graph_ops.float_shadow import is_half, widen_halves
from graph_ops.graph import is_root_constant, node_label, stored_value
from graph_ops.memory import give_back_memory
from graph_ops.model import lift_constants
from graph_ops.runtime import Array, Session
from graph_ops.sharing import stored_root
from graph_ops.stepwise import largest_step

TOLERANCE = 1e-4
"""Largest difference accepted, relative to the largest magnitude of the output."""
DOUBLE_TOLERANCE = 1e-6
"""The same in float64, which rounds 5e8 times less."""

Batches = Iterable[tuple[dict[str, Array], int]]
"""Feeds, and how many of their rows count."""


class Runnable(Protocol):
    """A loaded model."""

    @property
    def output_names(self) -> list[str]:
        """Names of its outputs."""
        ...

    def run(self, feeds: Mapping[str, Array], outputs: Sequence[str] | None = None) -> list[Array]:
        """Outputs for the feeds."""


@dataclass(frozen=True)
class Proof:
    """How far the pruned model is from the masked original.

    Attributes:
        max_abs_diff: Largest absolute difference over all outputs; of an output of integers (the
            positions of maxima, say), the share of elements that differ.
        max_rel_diff: Largest difference divided by the output's largest magnitude.
        samples: Samples compared.
        tolerance: Limit on `max_rel_diff`.
        float32_rel_diff: `max_rel_diff` in float32, where it was over the tolerance there and the
            figures are those of float64; else None.
        float64_rel_diff: The same in float64, where the figures are those of the node that differs
            most; else None.
    """

    max_abs_diff: float
    max_rel_diff: float
    samples: int
    tolerance: float = TOLERANCE
    float32_rel_diff: float | None = None
    float64_rel_diff: float | None = None

    @property
    def compared(self) -> str:
        """What was compared: the models' `outputs`, or what each of their `nodes` does."""
        return "outputs" if self.float64_rel_diff is None else "nodes"

    @property
    def precision(self) -> str:
        """What the figures were computed in."""
        return "float32" if self.float32_rel_diff is None else "float64"

    @property
    def holds(self) -> bool:
        """Whether the difference is within the tolerance."""
        return bool(self.max_rel_diff <= self.tolerance)


def masked_model(classes: ChannelClasses, dropped: NDArray[np.bool_]) -> ir.Model:
    """A copy of the analysed model that multiplies dropped channels by zero where they are read."""
    model = classes.channels.model.clone()
    counterpart = dict(zip(classes.channels.model.graph, model.graph, strict=True))
    taken = {str(o.name) for node in model.graph for o in node.outputs} | set(
        model.graph.initializers
    )
    for node, index, axis in classes.channels.consumers:
        value = node.inputs[index]
        labels = classes.channels.axis(value, axis)
        if value is None or labels is None:
            continue
        kept = classes.kept(labels, dropped)
        if kept.all():
            continue
        rank = classes.channels.rank(value)
        shape = [1] * rank
        shape[axis] = kept.size
        dtype = value.dtype.numpy() if value.dtype is not None else np.dtype(np.float32)
        name = f"{node_label(node)}/mask_{len(taken)}"
        while name in taken:
            name += "_"
        taken |= {name, f"{name}/out"}
        mask = stored_value(name, kept.astype(dtype).reshape(shape))
        model.graph.initializers.add(mask)
        if model.ir_version < 4:
            model.graph.inputs.append(mask)
        copy = counterpart[node]
        multiply = ir.node("Mul", [copy.inputs[index], mask], name=name)
        multiply.outputs[0].name = f"{name}/out"
        copy.prepend(multiply)
        copy.replace_input_with(index, multiply.outputs[0])
    return model


def compare(reference: Runnable, candidate: Runnable, batches: Batches) -> Proof:
    """Largest difference between two models' outputs.

    Args:
        reference: The masked original.
        candidate: The pruned model; its outputs have the same names and shapes.
        batches: Feeds, and how many of their rows count.

    Raises:
        ProofError: an output's shape differs.
    """
    samples = 0
    scale: dict[str, float] = {}
    worst: dict[str, float] = {}
    for feeds, size in batches:
        expected = reference.run(feeds)
        found = candidate.run(feeds, reference.output_names)
        samples += size
        for name, a, b in zip(reference.output_names, expected, found, strict=True):
            if a.shape != b.shape:
                raise ProofError(
                    f"Output {name!r} has shape {b.shape} after pruning; expected {a.shape}.",
                    output=name,
                    expected=list(a.shape),
                    found=list(b.shape),
                )
            gap, magnitude = difference(b, a)
            worst[name] = max(worst.get(name, 0.0), gap)
            scale[name] = max(scale.get(name, 0.0), magnitude)
    largest = max(worst.values(), default=0.0)
    share = max((relative(gap, scale[name]) for name, gap in worst.items()), default=0.0)
    return Proof(largest, share, samples)


def check_same_structure(proven: ir.Model, returned: ir.Model) -> None:
    """Check that recovery changed nothing but numbers, and added nothing but biases.

    Args:
        proven: The model that was proven.
        returned: The same model with other weights.

    Raises:
        ProofError: nodes, attributes or connections differ otherwise.
    """
    pairs = list(zip_longest(proven.graph, returned.graph))
    for a, b in pairs:
        if a is None or b is None or not _is_same_node(a, b):
            name = node_label(a if a is not None else b)
            raise ProofError(
                f"Recovery changed more than weights at node {name!r}; the model is not returned.",
                node=name,
            )


def _is_same_node(a: ir.Node, b: ir.Node) -> bool:
    """Same operator, attributes and values; stored tensors may differ and a bias may be new.

    A tensor that came through an Identity, because another node had an equal one, is stored too:
    once recovery has changed it, the node reads its own.
    """
    computed = [
        [v.name for v in n.inputs if v is not None and stored_root(v) is None] for n in (a, b)
    ]
    added = len(b.inputs) - len(a.inputs)
    is_bias = added == 1 and len(b.inputs) == 3 and is_root_constant(b.inputs[2] or b.outputs[0])
    if a.op_type == "Constant":
        return b.op_type == "Constant" and a.outputs[0].name == b.outputs[0].name
    return (
        (a.domain, a.op_type) == (b.domain, b.op_type)
        and computed[0] == computed[1]
        and [o.name for o in a.outputs] == [o.name for o in b.outputs]
        and (added == 0 or is_bias)
        and set(a.attributes) == set(b.attributes)
        and all(_is_same_attribute(a.attributes[n], b.attributes[n]) for n in a.attributes)
    )


def _is_same_attribute(a: ir.Attr, b: ir.Attr) -> bool:
    """Plain attributes by value; graphs and tensors, which recovery never touches, by type."""
    if a.type in (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS, ir.AttributeType.TENSOR):
        return a.type == b.type
    return a.type == b.type and bool(a.value == b.value)


def prove(
    classes: ChannelClasses,
    dropped: NDArray[np.bool_],
    pruned: ir.Model,
    batches: Batches,
) -> Proof:
    """Check that the pruned model equals the masked original on real batches.

    A network may carry the rounding of its first layers to large differences at its end, between
    any two orders of summation. Where the difference is over the tolerance, one sample is computed
    in float64: an error of the surgery stays as large there, and rounding goes. Where even that
    carries too far, what each node does is compared (`stepwise.py`).

    Args:
        classes: Channel classes of the original.
        dropped: [classes] which were dropped.
        pruned: The model that was cut.
        batches: Feeds, and how many of their rows count.

    Raises:
        ProofError: the difference is over the tolerance.
    """
    pair = [masked_model(classes, dropped), pruned]
    if is_half(pruned):
        # Half precision rounds more than the tolerance; the structure is what is proven.
        pair = [pair[0], pruned.clone()]
        for model in pair:
            lift_constants(model)
            widen_halves(model)
    iterator = iter(batches)
    first = next(iterator, None)
    if first is None:
        raise ProofError("There is no sample to prove the pruned model on.")
    reference, candidate = (Session(model, keep_memory=False) for model in pair)
    proof = compare(reference, candidate, chain([first], iterator))
    if not proof.holds:
        del reference, candidate
        give_back_memory()
        proof = _without_rounding(classes, dropped, pair, first, proof)
    if not proof.holds:
        raise ProofError(
            f"The pruned model differs from the masked original by {proof.max_rel_diff:.3g} "
            f"(relative, {proof.precision}, {proof.compared}); at most {proof.tolerance:g} is "
            "accepted.",
            max_rel_diff=proof.max_rel_diff,
            max_abs_diff=proof.max_abs_diff,
            tolerance=proof.tolerance,
            precision=proof.precision,
            compared=proof.compared,
            samples=proof.samples,
        )
    return proof


def _without_rounding(
    classes: ChannelClasses,
    dropped: NDArray[np.bool_],
    pair: Sequence[ir.Model],
    batch: tuple[dict[str, Array], int],
    proof: Proof,
) -> Proof:
    """The figures of one sample in float64; those of float32 where that cannot be computed."""
    feeds, size = batch
    is_open = all(
        not isinstance(value.shape[0], int)
        for value in pair[0].graph.inputs
        if str(value.name) in feeds and value.shape is not None and value.shape.rank()
    )
    if is_open:
        feeds, size = {name: array[:1] for name, array in feeds.items()}, 1
    try:
        reference, candidate = (answers_in_double(model, feeds) for model in pair)
        found = compare(reference, candidate, [(feeds, size)])
    except ModelRunError:
        return proof
    exact = replace(found, tolerance=DOUBLE_TOLERANCE, float32_rel_diff=proof.max_rel_diff)
    if exact.holds:
        return exact
    try:
        largest, share = largest_step(classes, dropped, pair[0], pair[1], feeds)
    except ModelRunError:
        return exact
    return replace(
        exact,
        max_abs_diff=largest,
        max_rel_diff=share,
        float64_rel_diff=exact.max_rel_diff,
    )
