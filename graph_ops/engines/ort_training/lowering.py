"""Opset and IR lowered to what onnxruntime-training 1.19.2 reads: opset 21, IR 10.

Since opset 21 ONNX has given many operators a new version only to allow more element types; those
mean the same at opset 21. An operator whose newer version says something more is lowered only when
the node does not use it, and one that is new since then is not lowered at all.
"""

from __future__ import annotations

from collections.abc import Mapping

import onnx
import onnx_ir as ir

from graph_ops.graph import node_label

NEWEST_OPSET = 21
NEWEST_IR_VERSION = 10

ADDED_ATTRIBUTES: Mapping[str, frozenset[str]] = {
    "Cast": frozenset({"round_mode"}),
    "DequantizeLinear": frozenset({"output_dtype"}),
    "QuantizeLinear": frozenset({"precision"}),
    "Range": frozenset({"stash_type"}),
    "SpaceToDepth": frozenset({"mode"}),
}
"""Attributes that operators gained after opset 21."""

SAME_AS_OPSET_21 = frozenset(
    {
        "AveragePool",
        "BitShift",
        "Celu",
        "Constant",
        "ConstantOfShape",
        "Conv",
        "ConvTranspose",
        "Cos",
        "DepthToSpace",
        "Dropout",
        "Elu",
        "EyeLike",
        "Flatten",
        "GlobalAveragePool",
        "GlobalLpPool",
        "GlobalMaxPool",
        "GridSample",
        "HardSigmoid",
        "HardSwish",
        "Identity",
        "InstanceNormalization",
        "LpNormalization",
        "LpPool",
        "MaxPool",
        "Mish",
        "OneHot",
        "Pad",
        "RandomNormalLike",
        "RandomUniformLike",
        "ReduceLogSumExp",
        "Reshape",
        "Round",
        "Selu",
        "Shape",
        "Sin",
        "Size",
        "Softplus",
        "Softsign",
        "Squeeze",
        "ThresholdedRelu",
        "TopK",
        "Transpose",
        "Unsqueeze",
    }
    | set(ADDED_ATTRIBUTES)
)
"""Operators whose versions after opset 21 differ in element types (ADDED_ATTRIBUTES apart)."""


def lower(model: ir.Model) -> dict[str, str]:
    """Lower a scoring copy in place.

    Returns:
        What stands in the way, operator to reason; the model is then as it was.
    """
    opset = model.graph.opset_imports.get("", NEWEST_OPSET)
    if opset > NEWEST_OPSET:
        reasons: dict[str, str] = {}
        for node in model.graph.all_nodes():
            reason = _obstacle(node, opset)
            if reason is not None:
                reasons.setdefault(node.op_type, f"{node_label(node)!r} {reason}")
        if reasons:
            return reasons
        model.graph.opset_imports[""] = NEWEST_OPSET
    model.ir_version = min(model.ir_version, NEWEST_IR_VERSION)
    return {}


def _obstacle(node: ir.Node, opset: int) -> str | None:
    if node.domain not in ("", "ai.onnx"):
        return None
    newest = onnx.defs.get_schema(node.op_type, opset)
    try:
        oldest = onnx.defs.get_schema(node.op_type, NEWEST_OPSET)
    except onnx.defs.SchemaError:
        return f"is new since opset {NEWEST_OPSET}"
    if newest.since_version == oldest.since_version:
        return None
    if node.op_type not in SAME_AS_OPSET_21:
        return f"changed its meaning at opset {newest.since_version}"
    gained = sorted(ADDED_ATTRIBUTES.get(node.op_type, frozenset()) & set(node.attributes))
    return f"uses {', '.join(gained)}, new since opset {NEWEST_OPSET}" if gained else None
