"""The JSON report of a run; its names are what others may rely on (docs/report.md)."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graph_ops.channels import Convolution
from graph_ops.equivalence import Proof
from graph_ops.metrics import MetricResult
from graph_ops.model.source import CONVOLUTIONS
from graph_ops.network import TaylorPrunableNetwork
from graph_ops.outline import outline
from graph_ops.profiling import OperatorTime
from graph_ops.rank_by import RankBy
from graph_ops.recovery import Recovery
from graph_ops.version import TOOL, VERSION

SCHEMA = 1


@dataclass(frozen=True)
class Cost:
    """What a model costs.

    Attributes:
        macs: Multiply-accumulates per sample of convolutions and Gemm/MatMul; None where an axis
            is not static.
        parameters: Weights of the same operators.
        bytes: Size of the file.
        latency_ms: Median time of one run in ONNX Runtime here.
        latency_batch: Samples of that run.
    """

    macs: int | None
    parameters: int
    bytes: int
    latency_ms: float
    latency_batch: int


@dataclass(frozen=True)
class RunFacts:
    """What a run found out, besides the network itself."""

    bundle_sha256: str | None
    bundle_samples: int
    held_out: int
    proof_inputs: str
    images: dict[str, Any] | None
    stop_reason: str
    rounds: list[dict[str, Any]]
    rank_by: RankBy
    engine: dict[str, Any] | None
    metric: MetricResult
    before: Cost
    after: Cost
    proof: Proof
    recovery: Recovery | None
    unrecovered: MetricResult
    operators_before: list[OperatorTime]
    operators_after: list[OperatorTime]
    prunable_before: int
    timing_s: dict[str, float]
    goal: dict[str, Any] | None


def build_report(network: TaylorPrunableNetwork, facts: RunFacts) -> dict[str, Any]:
    """The report as JSON-ready dicts and lists."""
    scorer = network.scorer if network.options.criterion.needs_gradients else None
    loss = scorer.loss if scorer is not None else None
    blocks = _blocks_of_classes(network)
    convolutions = [_convolution(network, c, blocks) for c in network.convolutions]
    counted = [
        entry for entry, c in zip(convolutions, network.convolutions, strict=True) if c.is_producer
    ]
    graph = network.source.model.graph
    return {
        "schema": SCHEMA,
        "tool": {"name": TOOL, "version": VERSION},
        "model": {
            "sha256": network.source.sha256,
            "bytes": network.source.size_bytes,
            "opset": graph.opset_imports.get("", 0),
            "ir_version": network.source.model.ir_version,
            "inputs": [str(v.name) for v in graph.inputs if not v.is_initializer()],
            "outputs": [str(v.name) for v in graph.outputs],
        },
        "bundle": {
            "sha256": facts.bundle_sha256,
            "samples": facts.bundle_samples,
            "held_out": facts.held_out,
            "images": facts.images,
        },
        "options": network.options.model_dump(mode="json"),
        "engine": facts.engine,
        "score": {
            "criterion": network.options.criterion.value,
            "reduction": network.options.reduction,
            "gate": network.options.gate,
            "normalization": network.options.normalization,
            "rank_by": facts.rank_by.kind,
            "rank_by_why": facts.rank_by.why,
        },
        "loss": None
        if loss is None or scorer is None
        else {"name": loss.name, "why": loss.why, "output": scorer.form.name},
        "stop_reason": facts.stop_reason,
        "goal": facts.goal,
        "curve": None,
        "rounds": facts.rounds,
        "metric": asdict(facts.metric),
        "cost": {"before": asdict(facts.before), "after": asdict(facts.after)},
        "filters": {
            "before": sum(int(e["filters_before"]) for e in counted),
            "after": sum(int(e["filters_after"]) for e in counted),
            "prunable_before": facts.prunable_before,
            "prunable_after": network.num_prunables,
        },
        "proof": {
            "max_abs_diff": facts.proof.max_abs_diff,
            "max_rel_diff": facts.proof.max_rel_diff,
            "tolerance": facts.proof.tolerance,
            "precision": facts.proof.precision,
            "compared": facts.proof.compared,
            "float32_rel_diff": facts.proof.float32_rel_diff,
            "float64_rel_diff": facts.proof.float64_rel_diff,
            "samples": facts.proof.samples,
            "inputs": facts.proof_inputs,
        },
        "recovery": _recovery(facts),
        "operators": _operators(facts.operators_before, facts.operators_after),
        "convolutions": convolutions,
        "graph": _graph(network),
        "timing_s": {k: round(v, 4) for k, v in facts.timing_s.items()},
    }


def _recovery(facts: RunFacts) -> dict[str, Any] | None:
    """What was given back after the proof; None where nothing was asked for."""
    recovery = facts.recovery
    if recovery is None:
        return None
    return {
        "asked": recovery.asked,
        "method": recovery.method,
        "metric": {
            "name": facts.metric.name,
            "before": facts.unrecovered.after,
            "after": facts.metric.after,
            "samples": facts.metric.samples,
        },
        "output_error": {
            "before": recovery.output_error_before,
            "after": recovery.output_error_after,
        },
        "samples": {"fitted": recovery.fitted, "checked": recovery.checked},
        "seconds": round(facts.timing_s.get("recover", 0.0), 4),
        "notes": list(recovery.notes),
        "blocks": [block.as_json() for block in recovery.blocks],
        "distillation": recovery.distillation.as_json() if recovery.distillation else None,
        "layers": [layer.as_json() for layer in recovery.layers],
    }


def _convolution(
    network: TaylorPrunableNetwork, convolution: Convolution, blocks: NDArray[np.int64]
) -> dict[str, Any]:
    kept = network.kept(convolution)
    own = blocks[network.classes.of_filters(convolution)]
    return {
        "name": convolution.name,
        "op_type": convolution.node.op_type,
        "depthwise": not convolution.is_producer,
        "filters_before": convolution.filter_count,
        "filters_after": int(kept.size),
        "kept": kept.tolist(),
        "scores": _numbers(network.filter_scores(convolution)),
        "blocks": np.unique(own[own >= 0]).tolist(),
        "frozen": network.reason(convolution),
    }


def _blocks_of_classes(network: TaylorPrunableNetwork) -> NDArray[np.int64]:
    """[classes] number of the block a class belongs to; -1 where it may not go."""
    blocks = np.full(network.classes.count, -1, dtype=np.int64)
    for number, block in enumerate(network.selector.blocks):
        blocks[list(block.classes)] = number
    return blocks


def _graph(network: TaylorPrunableNetwork) -> dict[str, Any]:
    """The original graph in outline; a convolution names its entry in `convolutions`."""
    sketch = outline(network.classes.channels.model)
    positions = {c.name: i for i, c in enumerate(network.convolutions)}
    nodes = [
        {
            "name": node.name,
            "op_type": node.op_type,
            "convolution": positions.get(node.name) if node.op_type in CONVOLUTIONS else None,
        }
        for node in sketch.nodes
    ]
    return {"nodes": nodes, "edges": [list(edge) for edge in sketch.edges]}


def _operators(before: list[OperatorTime], after: list[OperatorTime]) -> list[dict[str, Any]]:
    """Time per type of operator in both models, by what it was before."""
    sides = {"before": before, "after": after}
    known = {side: {t.op_type: t for t in times} for side, times in sides.items()}
    order = dict.fromkeys(t.op_type for times in (before, after) for t in times)
    absent = OperatorTime("", 0, 0.0)
    return [
        {
            "op_type": op_type,
            **{
                side: {
                    "nodes": known[side].get(op_type, absent).nodes,
                    "ms": round(known[side].get(op_type, absent).ms, 6),
                }
                for side in sides
            },
        }
        for op_type in order
    ]


def _numbers(scores: NDArray[np.float64] | None) -> list[float | None] | None:
    """JSON has no NaN: a filter without a score is null."""
    if scores is None:
        return None
    return [None if np.isnan(s) else float(s) for s in scores]
