"""Check what a pruning run returned and print it as a table.

Nothing is taken on trust: file sizes and digests are compared with the report's, and both models
are run by ONNX Runtime on test data that the service never saw. Exits with status 1, and says why,
when anything is off.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime

MAX_REL_DIFF = 1e-4
MAX_ACCURACY_DROP = 0.02
BATCH = 250
NOTHING = {"method": "none"}
"""Stands for the report's recovery where the options ask for none."""


class DemoError(Exception):
    """Something about the result is off."""


@dataclass(frozen=True)
class Row:
    """A line of the table, as text."""

    name: str
    before: str
    after: str
    change: str


def main() -> None:
    """Print the table, or the reason there is none."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--before", type=Path, required=True, help="the model that was sent")
    parser.add_argument("--after", type=Path, required=True, help="the model that came back")
    parser.add_argument("--report", type=Path, required=True, help="the report of the run")
    parser.add_argument("--test", type=Path, required=True, help="test data with labels")
    arguments = parser.parse_args()
    try:
        report = read_report(arguments.report)
        check_report(report, arguments.before, arguments.after)
        before = test_accuracy(arguments.before, arguments.test)
        after = test_accuracy(arguments.after, arguments.test)
        if before - after > MAX_ACCURACY_DROP:
            raise DemoError(
                f"accuracy fell from {before:.4f} to {after:.4f} on {arguments.test}; "
                f"at most {MAX_ACCURACY_DROP} was expected"
            )
    except DemoError as error:
        sys.exit(f"demo: {error}.")
    rows = table(report, before, after, count_samples(arguments.test))
    print_result(report, rows, arguments.after, arguments.report)


def read_report(path: Path) -> dict[str, Any]:
    """The report as JSON.

    Raises:
        DemoError: it is missing or not JSON.
    """
    try:
        report: dict[str, Any] = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise DemoError(f"the report {path} cannot be read: {error}") from error
    return report


def check_report(report: dict[str, Any], before: Path, after: Path) -> None:
    """The report is about these files, and claims what it should.

    Raises:
        DemoError: it does not.
    """
    try:
        digest, proof, cost = report["model"]["sha256"], report["proof"], report["cost"]
        sizes = {"before": before.stat().st_size, "after": after.stat().st_size}
        if digest != hashlib.sha256(before.read_bytes()).hexdigest():
            raise DemoError(f"the report is about the model {digest}, not about {before}")
        if proof["samples"] < 1 or not 0 <= proof["max_rel_diff"] <= MAX_REL_DIFF:
            raise DemoError(f"the proof does not hold: {proof}")
        for side, size in sizes.items():
            if cost[side]["bytes"] != size:
                raise DemoError(
                    f"the model {side} has {size} bytes, its report says {cost[side]['bytes']}"
                )
        for figure in ("macs", "parameters", "bytes"):
            if not cost["after"][figure] < cost["before"][figure]:
                raise DemoError(f"{figure} did not shrink: {cost}")
        wanted = report["options"]["target"].get("max_macs_ratio")
        if wanted is not None and cost["after"]["macs"] > wanted * cost["before"]["macs"]:
            raise DemoError(f"the target, {wanted} of the MACs, was missed: {cost}")
        if not report["filters"]["after"] < report["filters"]["before"]:
            raise DemoError(f"no filter was removed: {report['filters']}")
    except KeyError as error:
        raise DemoError(f"the report has no {error}") from error


def test_accuracy(model: Path, test: Path) -> float:
    """Share of the test samples whose class ONNX Runtime gets right with the model.

    Raises:
        DemoError: the model is not valid, or does not load.
    """
    try:
        onnx.checker.check_model(str(model), full_check=True)
        session = onnxruntime.InferenceSession(str(model), providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime's errors have no common class of their own
        raise DemoError(f"the model {model} does not load: {error}") from error
    name = session.get_inputs()[0].name
    with np.load(test, allow_pickle=False) as arrays:
        images, labels = arrays[name], arrays["labels"]
    hits = 0
    for start in range(0, len(labels), BATCH):
        part = slice(start, start + BATCH)
        (scores,) = session.run(None, {name: images[part]})
        hits += int((np.asarray(scores).argmax(axis=1) == labels[part]).sum())
    return hits / len(labels)


def count_samples(test: Path) -> int:
    """Number of test samples."""
    with np.load(test, allow_pickle=False) as arrays:
        return len(arrays["labels"])


def table(report: dict[str, Any], before: float, after: float, samples: int) -> list[Row]:
    """The figures of the report, and the accuracy measured here."""
    cost, filters, metric = report["cost"], report["filters"], report["metric"]
    rows = [counted("filters", filters["before"], filters["after"])]
    rows += [
        counted(name, cost["before"][figure], cost["after"][figure])
        for name, figure in (("parameters", "parameters"), ("MACs", "macs"), ("bytes", "bytes"))
    ]
    latency = (cost["before"]["latency_ms"], cost["after"]["latency_ms"])
    if None not in latency:
        rows.append(
            Row(
                "latency, ms",
                f"{latency[0]:.3f}",
                f"{latency[1]:.3f}",
                percent(latency[1] / latency[0] - 1),
            )
        )
    if metric is not None:
        held_out = f"{metric['name']}, {report['bundle']['held_out']} held out of the bundle"
        rows.append(share(held_out, metric["before"], metric["after"]))
    rows.append(share(f"accuracy, {samples:,} digits never sent", before, after))
    return rows


def counted(name: str, before: int, after: int) -> Row:
    """A row of two counts."""
    return Row(name, f"{before:,}", f"{after:,}", percent(after / before - 1))


def share(name: str, before: float, after: float) -> Row:
    """A row of two shares; their difference is in points."""
    return Row(name, f"{before:.2%}", f"{after:.2%}", f"{100 * (after - before):+.2f} points")


def percent(change: float) -> str:
    """A relative change as text."""
    return f"{change:+.0%}"


def print_result(report: dict[str, Any], rows: list[Row], after: Path, report_path: Path) -> None:
    """The table, in Markdown, then the proof and the files."""
    header = Row("", "before", "after", "change")
    lines = [header, *rows]
    widths = [max(len(getattr(line, field)) for line in lines) for field in vars(header)]
    print()
    for index, line in enumerate(lines):
        cells = list(vars(line).values())
        padded = [cells[0].ljust(widths[0])]
        padded += [cell.rjust(width) for cell, width in zip(cells[1:], widths[1:], strict=True)]
        print(f"| {' | '.join(padded)} |")
        if index == 0:
            rules = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
            print(f"| {' | '.join(rules)} |")
    proof = report["proof"]
    print(
        f"\nproof: on {proof['samples']} samples the pruned model equals the original with"
        f"\nits removed filters masked, to a relative difference of {proof['max_rel_diff']:.1e};"
        f"\nwhat is left was refitted after that: {(report.get('recovery') or NOTHING)['method']}."
    )
    print(f"files: {after}, {report_path}")


if __name__ == "__main__":
    main()
