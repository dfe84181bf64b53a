"""Analyse a model, drop random channel classes, and compare with the masked original."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import onnx
import onnx_ir as ir
from numpy.typing import NDArray

from graph_ops.analysis import analyse
from graph_ops.canonical import bind_shapes
from graph_ops.channel_classes import ChannelClasses
from graph_ops.channels import Convolution
from graph_ops.constant_weights import store_computed_weights
from graph_ops.equivalence import Proof, prove
from graph_ops.graph import graph_inputs
from graph_ops.model import load_model
from graph_ops.sharing import SharedUse, reshare, unshare
from graph_ops.surgery import cut


@dataclass(frozen=True)
class Analysis:
    """A model whose shared vectors were parted, and its channel classes."""

    classes: ChannelClasses
    uses: list[SharedUse]

    def convolution(self, name: str) -> Convolution:
        return next(c for c in self.classes.channels.convolutions if c.name == name)

    def is_prunable(self, name: str) -> bool:
        """Whether every filter of a convolution may go."""
        ids = self.classes.of_filters(self.convolution(name))
        return bool(ids.size) and not self.classes.is_frozen[ids].any()

    def class_count(self, name: str) -> int:
        """How many classes a convolution's filters form."""
        return int(np.unique(self.classes.of_filters(self.convolution(name))).size)

    def reasons(self, name: str) -> set[str]:
        """Why filters of a convolution are frozen."""
        ids = self.classes.of_filters(self.convolution(name))
        return {str(self.classes.reason(int(i))) for i in ids if self.classes.is_frozen[i]}


@dataclass(frozen=True)
class Cut:
    """What was dropped, what came out, and how far it is from the masked original."""

    analysis: Analysis
    dropped: NDArray[np.bool_]
    pruned: ir.Model
    proof: Proof

    @property
    def dropped_filters(self) -> dict[str, list[int]]:
        """Indices of the filters that went, by convolution; only those that lost some."""
        classes = self.analysis.classes
        lost = {
            c.name: np.flatnonzero(self.dropped[classes.of_filters(c)]).tolist()
            for c in classes.channels.convolutions
        }
        return {name: indices for name, indices in lost.items() if indices}


def analyse_bytes(
    model: bytes, sample_shapes: Mapping[str, tuple[int, ...]] | None = None
) -> Analysis:
    """Channel classes of a model file, each use of a shared vector parted."""
    copy = load_model(model).clone()
    store_computed_weights(copy)
    uses = unshare(copy)
    return Analysis(analyse(copy, bind_shapes(copy, sample_shapes or {})), uses)


def random_drop(
    classes: ChannelClasses, rng: np.random.Generator, share: float
) -> NDArray[np.bool_]:
    """[classes] a random share of those that may go; every labelled axis keeps an index.

    What grouped convolutions bind goes in balanced bundles.
    """
    ids = np.flatnonzero(classes.is_prunable)
    balances = classes.balances
    units = [[int(c)] for c in ids if not balances.is_bound[c]]
    for part in balances.components(ids):
        units += balances.bundles(part, rng.random(classes.count))
    unit_of = {c: unit for unit in units for c in unit}
    dropped = np.zeros(classes.count, dtype=bool)
    for unit in units:
        dropped[unit] = rng.random() < share
    members = [
        np.unique(classes.class_of[labels])
        for _, axes in classes.channels.labelled_values()
        for labels in axes
        if labels is not None
    ]
    for axis in members:
        if dropped[axis].all():
            dropped[unit_of[int(rng.choice(axis))]] = False
    return dropped


def random_feeds(
    classes: ChannelClasses,
    rng: np.random.Generator,
    batch: int,
    sample_shapes: Mapping[str, tuple[int, ...]] | None = None,
) -> dict[str, NDArray[np.generic]]:
    """Random numbers for every input; a symbolic axis 0 is the batch."""
    feeds: dict[str, NDArray[np.generic]] = {}
    for value in graph_inputs(classes.channels.model.graph):
        name = str(value.name)
        shape = [d if isinstance(d, int) else None for d in value.shape or ()]
        if sample_shapes is not None and name in sample_shapes:
            shape = [shape[0], *sample_shapes[name]]
        dims = [batch if d is None else d for d in shape]
        dtype = value.dtype.numpy() if value.dtype is not None else np.dtype(np.float32)
        if dtype.kind == "b":
            feeds[name] = rng.random(dims) < 0.5
        elif dtype.kind in "iu":
            feeds[name] = rng.integers(0, 5, dims).astype(dtype)
        else:
            feeds[name] = rng.standard_normal(dims).astype(dtype)
    return feeds


def assert_cut_is_exact(
    analysis: Analysis,
    dropped: NDArray[np.bool_],
    rng: np.random.Generator,
    batch: int = 2,
    sample_shapes: Mapping[str, tuple[int, ...]] | None = None,
) -> Cut:
    """Drop classes; the result passes the checker and equals the masked original.

    Raises:
        AssertionError: the pruned model is refused by the checker, or differs.
    """
    classes = analysis.classes
    pruned = cut(classes, dropped)
    reshare(pruned, analysis.uses)
    proto = ir.to_proto(pruned)
    onnx.checker.check_model(proto, full_check=True)
    feeds = random_feeds(classes, rng, batch, sample_shapes)
    result = Cut(analysis, dropped, pruned, prove(classes, dropped, pruned, [(dict(feeds), batch)]))
    assert_filters_left(result, proto)
    return result


def assert_filters_left(cut: Cut, proto: onnx.ModelProto) -> None:
    """Every convolution's output has the filters that were not dropped, by shape inference."""
    inferred = onnx.shape_inference.infer_shapes(proto, data_prop=True).graph
    shapes = {
        info.name: [d.dim_value for d in info.type.tensor_type.shape.dim]
        for info in (*inferred.value_info, *inferred.output)
    }
    lost = cut.dropped_filters
    for convolution in cut.analysis.classes.channels.convolutions:
        shape = shapes[str(convolution.node.outputs[0].name)]
        expected = convolution.filter_count - len(lost.get(convolution.name, ()))
        assert shape[1] == expected, convolution.name


def assert_masked_equals_pruned(
    model: bytes,
    rng: np.random.Generator,
    share: float = 0.4,
    batch: int = 2,
    sample_shapes: Mapping[str, tuple[int, ...]] | None = None,
) -> Cut:
    """Drop a random share of what may go, and prove the result."""
    analysis = analyse_bytes(model, sample_shapes)
    dropped = random_drop(analysis.classes, rng, share)
    return assert_cut_is_exact(analysis, dropped, rng, batch, sample_shapes)


def model_of(
    body: str,
    weights: str = "",
    inputs: str = "float[N,3,6,6] x",
    outputs: str = "y",
    opset: int = 17,
    seed: int = 0,
) -> bytes:
    """A model from node text: declared weights get random numbers, outputs inferred shapes.

    Args:
        body: Nodes in ONNX's text form.
        weights: Declarations (`float[8,3,3,3] w1, int64[2] s = {0, -1}`); those without a value
            and without a producer become random initializers.
        inputs: Declarations of the graph inputs.
        outputs: Names of the graph outputs.
        opset: Version of the default domain.
        seed: Of the random numbers.
    """
    ir_version = 4 if opset < 13 else 8 if opset < 19 else 10
    declared = ", ".join(f"float {name.strip()}" for name in outputs.split(","))
    model = onnx.parser.parse_model(
        f'<ir_version: {ir_version}, opset_import: ["" : {opset}, "test.ops" : 1]>\n'
        f"g ({inputs}) => ({declared}) <{weights}> {{\n{body}\n}}"
    )
    rng = np.random.default_rng(seed)
    produced = {name for node in model.graph.node for name in node.output}
    for info in list(model.graph.value_info):
        if info.name in produced:
            continue
        kind = info.type.tensor_type
        dims = [d.dim_value for d in kind.shape.dim]
        dtype = onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type)
        scale = 10 if dtype.kind in "iu" else 0.5
        array = (rng.standard_normal(dims) * scale).astype(dtype)
        if "var" in info.name:
            array = np.abs(array) + dtype.type(0.5)
        model.graph.initializer.append(onnx.numpy_helper.from_array(array, info.name))
    model.graph.ClearField("value_info")
    for output in model.graph.output:
        output.type.ClearField("value")
    inferred = onnx.shape_inference.infer_shapes(model, data_prop=True)
    known = {v.name: v for v in inferred.graph.output}
    for output in model.graph.output:
        output.CopyFrom(known[output.name])
    return bytes(model.SerializeToString())
