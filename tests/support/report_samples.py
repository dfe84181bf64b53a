"""Reports of any number of layers, as a run writes them, for what has to show them."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np

WIDTH = 64
STAGE = 5
"""Convolutions whose filters a residual sum binds: every second one of so many pairs."""


def stretched(report: dict[str, Any], layers: int) -> dict[str, Any]:
    """A report with so many convolutions in residual stages in place of its own, scores drawn.

    Args:
        report: A real one, which says what else a report holds.
        layers: Convolutions; even.
    """
    rng = np.random.default_rng(0)
    result = copy.deepcopy(report)
    pairs = layers // 2
    convolutions, refits = [], []
    nodes: list[dict[str, Any]] = [{"name": "x", "op_type": "input", "convolution": None}]
    edges: list[list[int]] = []
    stream = 0
    for pair in range(pairs):
        stage = pair // STAGE
        for part, block in (("a", pairs + pair), ("b", stage)):
            name = f"/stage{stage}/unit{pair}/conv_{part}/Conv"
            scores = np.exp(rng.normal(-6, 1.2, WIDTH) + 0.004 * pair)
            kept = np.flatnonzero(scores > np.quantile(scores, 0.1 + 0.5 * rng.random()))
            frozen = "its channels reach the graph output 'y'" if pair == pairs - 1 else None
            convolutions.append(
                {
                    "name": name,
                    "op_type": "Conv",
                    "depthwise": False,
                    "filters_before": WIDTH,
                    "filters_after": WIDTH if frozen else int(kept.size),
                    "kept": list(range(WIDTH)) if frozen else kept.tolist(),
                    "scores": None if frozen else scores.tolist(),
                    "blocks": [] if frozen else [block],
                    "frozen": frozen,
                }
            )
            error = float(rng.uniform(0.05, 0.6))
            refits.append(
                {
                    "name": name,
                    "op_type": "Conv",
                    "method": "reconstruct",
                    "matched_to": "own output",
                    "equations": "normal",
                    "inputs": 576,
                    "rows": 4096,
                    "ridge": 0.01,
                    "error_before": error,
                    "error_after": error * float(rng.uniform(0.3, 0.9)),
                    "reason": None,
                }
            )
            nodes.append({"name": name, "op_type": "Conv", "convolution": 2 * pair + (part == "b")})
        edges += [[stream, len(nodes) - 2], [len(nodes) - 2, len(nodes) - 1]]
        nodes.append(
            {"name": f"/stage{stage}/unit{pair}/Add", "op_type": "Add", "convolution": None}
        )
        edges += [[len(nodes) - 2, len(nodes) - 1], [stream, len(nodes) - 1]]
        stream = len(nodes) - 1
    nodes.append({"name": "y", "op_type": "output", "convolution": None})
    edges.append([stream, len(nodes) - 1])
    result["convolutions"] = convolutions
    result["graph"] = {"nodes": nodes, "edges": edges}
    result["recovery"]["layers"] = refits
    for side in ("before", "after"):
        result["filters"][side] = sum(c[f"filters_{side}"] for c in convolutions)
    return result
