"""What the charts draw: the report's numbers, counted and sorted so that a page stays small.

Scores become histograms per layer on one logarithmic axis, which a page of hundreds of layers can
hold and one look can compare. Plain Python: the service makes the page in a process that never
loads native model code.
"""

from __future__ import annotations

from bisect import bisect_right
from typing import Any

SCORE_BINS = 32
SCORE_DECADES = 9.0
"""Scores further below the largest count as the lowest bin."""


def figures_of(report: dict[str, Any]) -> dict[str, Any]:
    """Data of every chart, JSON-ready."""
    return {
        "layers": [_layer(c) for c in report["convolutions"]],
        "scores": _scores(report),
        "steps": _steps(report),
        "metric": report["metric"]["name"],
        "refits": _refits(report),
        "operators": [
            {"name": o["op_type"], "before": o["before"]["ms"], "after": o["after"]["ms"]}
            for o in report["operators"]
        ],
        "graph": report["graph"],
    }


def _layer(convolution: dict[str, Any]) -> dict[str, Any]:
    return {
        "name": convolution["name"],
        "before": convolution["filters_before"],
        "after": convolution["filters_after"],
        "frozen": convolution["frozen"],
        "depthwise": convolution["depthwise"],
        "blocks": convolution["blocks"],
    }


def score_range(report: dict[str, Any]) -> tuple[float, float] | None:
    """Ends of the score axis, positive; None where nothing was scored."""
    values = [v for c in report["convolutions"] for v in c["scores"] or () if v]
    if not values:
        return None
    high = max(values)
    low = max(min(values), high / 10**SCORE_DECADES)
    return (low, high) if low < high else (low / 2, high * 2)


def _scores(report: dict[str, Any]) -> dict[str, Any] | None:
    """Histograms per scored layer over bins of equal width in the logarithm."""
    ends = score_range(report)
    if ends is None:
        return None
    low, high = ends
    edges = [low * (high / low) ** (step / SCORE_BINS) for step in range(SCORE_BINS)] + [high]
    layers = []
    for index, convolution in enumerate(report["convolutions"]):
        if convolution["scores"] is None or convolution["depthwise"]:
            continue
        kept = set(convolution["kept"])
        scored = [(n in kept, s) for n, s in enumerate(convolution["scores"]) if s is not None]
        cut = [score for is_kept, score in scored if not is_kept]
        layers.append(
            {
                "layer": index,
                "kept": _counts([score for is_kept, score in scored if is_kept], edges),
                "dropped": _counts(cut, edges),
                "cut": max(*cut, low) if cut else None,
            }
        )
    return {"edges": edges, "layers": layers}


def _counts(scores: list[float], edges: list[float]) -> list[int]:
    """[SCORE_BINS] scores in each bin; those below the first edge are in the first one."""
    counts = [0] * SCORE_BINS
    for score in scores:
        counts[min(max(bisect_right(edges, score) - 1, 0), SCORE_BINS - 1)] += 1
    return counts


def _steps(report: dict[str, Any]) -> list[dict[str, Any]]:
    """The original, what each round left, and the last one without its recovery."""
    before = report["cost"]["before"]
    steps = [
        {
            "label": "original",
            "kind": "round",
            "macs": before["macs"],
            "latency_ms": before["latency_ms"],
            "metric": report["metric"]["before"],
        }
    ]
    steps += [
        {
            "label": f"round {entry['round']}",
            "kind": "round",
            "macs": entry["macs"],
            "latency_ms": entry["latency_ms"],
            "metric": entry["metric"],
        }
        for entry in report["rounds"]
    ]
    if report["recovery"] is not None and report["recovery"]["method"] != "none":
        label = f"{steps[-1]['label']}, before recovery"
        metric = report["recovery"]["metric"]["before"]
        steps.append({**steps[-1], "label": label, "kind": "unrecovered", "metric": metric})
    return steps


def _refits(report: dict[str, Any]) -> list[dict[str, Any]]:
    """Layers whose error was measured, in graph order."""
    recovery = report["recovery"]
    return [
        {
            "name": layer["name"],
            "before": layer["error_before"],
            "after": layer["error_after"],
            "method": layer["method"],
        }
        for layer in (recovery["layers"] if recovery is not None else ())
        if layer["error_before"] is not None and layer["error_after"] is not None
    ]
