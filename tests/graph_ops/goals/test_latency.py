"""`max_latency_ratio`: by a table, exactly; by the clock, as far as a clock can be tested."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from graph_ops.checkpoint import Checkpoint
from graph_ops.errors import OptionsError, UnreachableTargetError
from graph_ops.pruning import prune
from tests.support import digits

QUICK: dict[str, Any] = {"max_samples": 128, "batch_size": 64, "recovery": "none"}
COUNTS = (1, 10, 20)
TABLE: dict[str, Any] = {
    "device": "test",
    "overhead_ms": 2.0,
    "layers": {
        "conv1": {"outputs": [20], "ms": [[1.0]]},
        "conv2": {
            "inputs": [1, 20],
            "outputs": [1, 20],
            "ms": [[0.01, 0.2], [0.2, 4.0]],
        },
        "conv3": {"outputs": [4, 20], "ms": [[1.0, 5.0]]},
    },
}


def report_of(**options: Any) -> dict[str, Any]:
    merged = QUICK | {"target": {"max_latency_ratio": 0.7}} | options
    return prune(digits.MODEL, digits.BUNDLE, merged).report


def reckoned_ms(kept: list[int]) -> float:
    """The table's formula, by hand."""
    first, second, third = kept
    corner = np.asarray(TABLE["layers"]["conv2"]["ms"])
    x, y = (first - 1) / 19, (second - 1) / 19
    weights = np.outer([1 - x, x], [1 - y, y])
    return 2.0 + 1.0 + float((corner * weights).sum()) + 1.0 + (third - 4) / 4


def test_a_table_decides_as_it_says() -> None:
    report = report_of(latency_table=TABLE)
    goal = report["goal"]
    kept = [c["filters_after"] for c in report["convolutions"]]
    assert goal["source"] == "table"
    assert goal["after_ms"] == pytest.approx(reckoned_ms(kept))
    assert goal["before_ms"] == pytest.approx(reckoned_ms([20, 20, 20])) == pytest.approx(12.0)
    assert goal["ratio"] == pytest.approx(0.7, rel=0.05)


@pytest.mark.parametrize(
    ("layers", "says"),
    [
        ({"conv1": {"outputs": [20], "ms": [[1.0]]}}, "'conv2' may lose channels"),
        (TABLE["layers"] | {"conv9": {"outputs": [20], "ms": [[1.0]]}}, "no convolution 'conv9'"),
        ({"conv1": {"outputs": [20, 4], "ms": [[1.0, 2.0]]}}, "ascend"),
        ({"conv1": {"outputs": [4, 20], "ms": [[1.0]]}}, "entries"),
    ],
)
def test_a_table_that_does_not_fit_says_why(layers: dict[str, Any], says: str) -> None:
    with pytest.raises(OptionsError, match=says):
        report_of(latency_table=TABLE | {"layers": layers})


def test_what_no_model_reaches_is_an_error_or_the_nearest() -> None:
    target = {"max_latency_ratio": 0.1}
    with pytest.raises(UnreachableTargetError) as caught:
        report_of(target=target, latency_table=TABLE)
    best = caught.value.details["best"]
    assert isinstance(best, dict)
    assert best["latency_ratio"] > 0.3
    nearest = report_of(target=target, latency_table=TABLE, on_unreachable="best")
    assert nearest["stop_reason"] == "nothing_more_to_prune"
    assert nearest["goal"]["ratio"] == pytest.approx(best["latency_ratio"])


def test_the_clock_is_read_and_its_readings_are_told(tmp_path: Path) -> None:
    options = QUICK | {"target": {"max_latency_ratio": 0.9}, "on_unreachable": "best"}
    first = prune(digits.MODEL, digits.BUNDLE, options, checkpoint=Checkpoint(tmp_path))
    goal = first.report["goal"]
    assert goal["source"] == "measured"
    assert 1 <= len(goal["trials"]) <= 13
    # Another size may have been read at the very same ratio.
    taken = next(t["share"] for t in reversed(goal["trials"]) if t["ratio"] == goal["ratio"])
    readings = [t for t in goal["trials"] if t["share"] == taken]
    assert goal["ratio"] == readings[-1]["ratio"] == goal["after_ms"] / goal["before_ms"]
    assert goal["error"] == readings[-1]["error"] >= 0
    # A run that goes on reads no clock again, and so finds the same size.
    again = prune(digits.MODEL, digits.BUNDLE, options, checkpoint=Checkpoint(tmp_path))
    assert again.report["goal"] == goal
    assert again.model == first.model
