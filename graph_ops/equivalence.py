"""The proof: the pruned model equals the original with the dropped channels masked.

Reference: the original graph, with the dropped channels multiplied by zero at the inputs of the
operators that sum over them (Conv, ConvTranspose, Gemm, MatMul). There a channel's weights meet a
zero, which is what deleting both does. Both models are run on real batches.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import zip_longest

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from graph_ops.channels import ChannelClasses
from graph_ops.errors import ProofError
from graph_ops.float_shadow import is_half, widen_halves
from graph_ops.graph import is_root_constant, node_label, stored_value
from graph_ops.model import lift_constants
from graph_ops.runtime import Array, Session
from graph_ops.sharing import stored_root

TOLERANCE = 1e-4
"""Largest difference accepted, relative to the largest magnitude of the output."""


@dataclass(frozen=True)
class Proof:
    """How far the pruned model is from the masked original.

    Attributes:
        max_abs_diff: Largest absolute difference over all outputs; of an output of integers (the
            positions of maxima, say), the share of elements that differ.
        max_rel_diff: Largest difference divided by the output's largest magnitude.
        samples: Samples compared.
        tolerance: Limit on `max_rel_diff`.
    """

    max_abs_diff: float
    max_rel_diff: float
    samples: int
    tolerance: float = TOLERANCE

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


def compare(
    reference: Session, candidate: Session, batches: Iterable[tuple[dict[str, Array], int]]
) -> Proof:
    """Largest difference between two models' outputs.

    Args:
        reference: The masked original.
        candidate: The pruned model; its outputs have the same names and shapes.
        batches: Feeds, and how many of their rows count.

    Raises:
        ProofError: an output's shape differs, or is not finite where the reference is.
    """
    largest, relative, samples = 0.0, 0.0, 0
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
            if a.dtype.kind != "f":
                worst[name] = max(worst.get(name, 0.0), float(np.mean(a != b)))
                scale[name] = 1.0
                continue
            a, b = a.astype(np.float64), b.astype(np.float64)
            both = np.isfinite(a)
            if not np.array_equal(both, np.isfinite(b)):
                worst[name] = np.inf
                continue
            gap = np.abs(a[both] - b[both]).max(initial=0.0)
            worst[name] = max(worst.get(name, 0.0), float(gap))
            scale[name] = max(scale.get(name, 0.0), float(np.abs(a[both]).max(initial=0.0)))
    for name, gap in worst.items():
        largest = max(largest, gap)
        relative = max(relative, gap / scale[name] if scale.get(name) else gap)
    return Proof(largest, relative, samples)


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
    batches: Iterable[tuple[dict[str, Array], int]],
) -> Proof:
    """Check that the pruned model equals the masked original on real batches.

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
    reference, candidate = (Session(model, keep_memory=False) for model in pair)
    proof = compare(reference, candidate, batches)
    if not proof.holds:
        raise ProofError(
            f"The pruned model differs from the masked original by {proof.max_rel_diff:.3g} "
            f"(relative); at most {proof.tolerance:g} is accepted.",
            max_rel_diff=proof.max_rel_diff,
            max_abs_diff=proof.max_abs_diff,
            samples=proof.samples,
        )
    return proof
