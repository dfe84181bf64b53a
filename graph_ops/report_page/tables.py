"""What the tables of the page say, as rows of ready texts."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator
from typing import Any

from graph_ops.options import PruneOptions

UNKNOWN = "unknown"
METRIC_WORDS = {
    "accuracy": "accuracy",
    "agreement": "agreement with the original",
    "relative_error": "relative error of the output",
    "bce": "binary cross-entropy",
    "mse": "mean squared error",
    "l1": "mean absolute error",
}
SHARES = frozenset({"accuracy", "agreement"})
"""Metrics that are a share of samples: shown in percent."""


def as_count(value: float | None) -> str:
    """A whole number with its thousands apart."""
    return UNKNOWN if value is None else f"{value:,.0f}"


def as_number(value: float | None, digits: int = 4) -> str:
    """A number at so many significant digits."""
    if value is None:
        return UNKNOWN
    return f"{value:,.0f}" if abs(value) >= 10**digits else f"{value:.{digits}g}"


def as_percent(value: float | None) -> str:
    """A share in percent."""
    return UNKNOWN if value is None else f"{value:.1%}"


def page_tables(report: dict[str, Any]) -> dict[str, Any]:
    """Every table of the page by the name the template knows it by."""
    return {
        "summary": _summary(report),
        "headline": _headline(report),
        "layers": list(_layers(report)),
        "trained": list(_trained(report)),
        "rounds": list(_rounds(report)),
        "operators": list(_operators(report)),
        "left_alone": _left_alone(report),
        "blocks": _blocks(report),
        "provenance": list(_provenance(report)),
        "options": list(_options(report)),
        "without_recovery": _without_recovery(report),
        "metric_name": METRIC_WORDS.get(report["metric"]["name"], report["metric"]["name"]),
    }


def metric_text(name: str, value: float | None) -> str:
    """A metric as people read it."""
    if value is None:
        return "not measured"
    return f"{value:.2%}" if name in SHARES else f"{value:.4g}"


def _without_recovery(report: dict[str, Any]) -> str:
    recovery = report["recovery"]
    value = None if recovery is None else recovery["metric"]["before"]
    return metric_text(report["metric"]["name"], value)


def _summary(report: dict[str, Any]) -> str:
    filters, cost, metric = report["filters"], report["cost"], report["metric"]
    dropped = filters["before"] - filters["after"]
    parts = [f"{dropped:,} of {filters['before']:,} filters dropped"]
    before, after = cost["before"]["macs"], cost["after"]["macs"]
    if before and after is not None:
        parts.append(f"{after / before:.1%} of the multiply-accumulates left")
    if metric["before"] is not None:
        name = METRIC_WORDS.get(metric["name"], metric["name"])
        values = [metric_text(metric["name"], metric[side]) for side in ("before", "after")]
        parts.append(f"{name} {values[0]} before and {values[1]} after")
    return "; ".join(parts) + "."


def _headline(report: dict[str, Any]) -> list[tuple[str, str, str, str]]:
    """Quantity, before, after, and what is left of it."""
    before, after = report["cost"]["before"], report["cost"]["after"]
    metric, filters = report["metric"], report["filters"]
    rows = [
        _change("filters", filters["before"], filters["after"]),
        _change("parameters", before["parameters"], after["parameters"]),
        _change("multiply-accumulates", before["macs"], after["macs"]),
        _change("file size, bytes", before["bytes"], after["bytes"]),
        (
            f"latency, ms per {before['latency_batch']} "
            f"sample{'' if before['latency_batch'] == 1 else 's'}",
            as_number(before["latency_ms"]),
            as_number(after["latency_ms"]),
            as_percent(after["latency_ms"] / before["latency_ms"]),
        ),
    ]
    name = METRIC_WORDS.get(metric["name"], metric["name"])
    started, ended = (metric_text(metric["name"], metric[side]) for side in ("before", "after"))
    rows.append((f"{name}, {metric['samples']:,} held out", started, ended, _difference(metric)))
    return rows


def _change(name: str, before: int | None, after: int | None) -> tuple[str, str, str, str]:
    left = as_percent(after / before) if before and after is not None else ""
    return name, as_count(before), as_count(after), left


def _difference(metric: dict[str, Any]) -> str:
    if metric["before"] is None:
        return ""
    gap = metric["after"] - metric["before"]
    return f"{gap * 100:+.2f} points" if metric["name"] in SHARES else f"{gap:+.3g}"


def _layers(report: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """One row per convolution: filters, scores, the cut, the refit."""
    recovery = report["recovery"] or {"layers": []}
    refits = {layer["name"]: layer for layer in recovery["layers"]}
    for number, convolution in enumerate(report["convolutions"], 1):
        kept = set(convolution["kept"])
        scores = dict(enumerate(convolution["scores"] or ()))
        known = sorted(s for s in scores.values() if s is not None)
        dropped = [s for i, s in scores.items() if i not in kept and s is not None]
        refit = refits.get(convolution["name"], {})
        yield {
            "number": number,
            "name": convolution["name"],
            "op_type": "depthwise" if convolution["depthwise"] else convolution["op_type"],
            "before": as_count(convolution["filters_before"]),
            "after": as_count(convolution["filters_after"]),
            "blocks": ", ".join(str(b + 1) for b in convolution["blocks"]),
            "scores": [as_number(known[i], 3) for i in (0, len(known) // 2, -1)] if known else None,
            "cut": as_number(max(dropped), 3) if dropped else "",
            "error_before": _optional(refit.get("error_before")),
            "error_after": _optional(refit.get("error_after")),
        }


def _trained(report: dict[str, Any]) -> Iterator[tuple[str, ...]]:
    """One row per block that was to be trained: its end, its layers, errors, whether it is kept."""
    recovery = report["recovery"] or {}
    for block in recovery.get("blocks", ()):
        yield (
            block["name"],
            as_count(len(block["layers"])),
            _optional(block["error_before"]),
            _optional(block["error_after"]),
            "yes" if block["kept"] else f"no: {block['reason']}",
        )


def _optional(value: float | None) -> str:
    return "" if value is None else as_number(value, 3)


def _rounds(report: dict[str, Any]) -> Iterator[tuple[str, ...]]:
    name = report["metric"]["name"]
    before = report["cost"]["before"]
    yield (
        "original",
        as_count(report["filters"]["before"]),
        as_count(before["macs"]),
        as_number(before["latency_ms"]),
        metric_text(name, report["metric"]["before"]),
    )
    for entry in report["rounds"]:
        yield (
            f"round {entry['round']}",
            as_count(entry["filters"]),
            as_count(entry["macs"]),
            as_number(entry["latency_ms"]),
            metric_text(name, entry["metric"]),
        )


def _operators(report: dict[str, Any]) -> Iterator[tuple[str, ...]]:
    for entry in report["operators"]:
        before, after = entry["before"], entry["after"]
        yield (
            entry["op_type"],
            as_count(before["nodes"]),
            as_count(after["nodes"]),
            as_number(before["ms"], 3),
            as_number(after["ms"], 3),
        )


def _left_alone(report: dict[str, Any]) -> list[tuple[str, list[str]]]:
    """Reasons, and the convolutions that each holds for."""
    names: dict[str, list[str]] = defaultdict(list)
    for convolution in report["convolutions"]:
        if convolution["frozen"] is not None:
            names[convolution["frozen"]].append(convolution["name"])
    return list(names.items())


def _blocks(report: dict[str, Any]) -> list[tuple[int, list[str]]]:
    """Number, from 1, and convolutions of each block that binds more than one."""
    names: dict[int, list[str]] = defaultdict(list)
    for convolution in report["convolutions"]:
        for block in convolution["blocks"]:
            names[block + 1].append(convolution["name"])
    return [(block, found) for block, found in sorted(names.items()) if len(found) > 1]


def _provenance(report: dict[str, Any]) -> Iterator[tuple[str, str]]:
    model, bundle = report["model"], report["bundle"]
    yield "made by", f"{report['tool']['name']} {report['tool']['version']}"
    yield "model, sha256", model["sha256"]
    yield (
        "model",
        (
            f"{as_count(model['bytes'])} bytes, opset {model['opset']}, IR version "
            f"{model['ir_version']}, inputs {', '.join(model['inputs'])}, outputs "
            f"{', '.join(model['outputs'])}"
        ),
    )
    yield "bundle, sha256", bundle["sha256"]
    images = bundle["images"]
    if images is not None:
        used = {name: v for name, v in images["preprocessing"].items() if v not in (None, [])}
        yield "images read with", json.dumps(used)
        if images["skipped"]:
            yield "images skipped", ", ".join(images["skipped"])
    yield "samples", f"{as_count(bundle['samples'])}, of which {bundle['held_out']:,} held out"
    score = report["score"]
    yield "score", ", ".join(f"{key.replace('_', ' ')} {value}" for key, value in score.items())
    if report["loss"] is not None:
        loss = report["loss"]
        yield "loss", f"{loss['name']} on output {loss['output']}: {loss['why']}"
    engine = report["engine"]
    if engine is not None:
        yield (
            "gradients",
            (
                f"{engine['name']} {engine['version']}, {engine['provider']}, {engine['device']}: "
                f"{engine['why']}"
            ),
        )
    if report["recovery"] is not None:
        yield "recovery", " ".join([report["recovery"]["method"], *report["recovery"]["notes"]])
    yield "stopped", report["stop_reason"].replace("_", " ")
    times = ", ".join(f"{phase} {spent:.1f}" for phase, spent in report["timing_s"].items())
    yield "time, s", f"{times}; {sum(report['timing_s'].values()):.1f} in all"


def _options(report: dict[str, Any]) -> Iterator[tuple[str, str, bool]]:
    """Name, value, and whether it is not the default."""
    defaults = PruneOptions().model_dump(mode="json")
    for name, value in report["options"].items():
        shown = value
        if isinstance(value, dict):
            shown = {k: v for k, v in value.items() if v is not None}
        text = shown if isinstance(shown, str) else json.dumps(shown)
        yield name, text, value != defaults.get(name)
