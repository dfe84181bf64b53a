"""A forecast is close to what the run comes to, and refuses what the run would refuse."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from graph_ops.errors import BundleError, FilterGlobError, UnreachableTargetError
from graph_ops.forecast import forecast
from graph_ops.pruning import prune
from tests.support import digits
from tests.support.bundles import write_npz

QUICK: dict[str, Any] = {"max_samples": 128, "batch_size": 64}


@pytest.mark.parametrize(
    ("target", "quantity"),
    [
        ({"filters": 12}, "filters"),
        ({"filter_ratio": 0.8}, "filters"),
        ({"max_macs_ratio": 0.7}, "macs"),
        ({"max_params_ratio": 0.9}, "parameters"),
    ],
)
def test_what_the_target_is_given_in_is_close_to_the_result(
    target: dict[str, Any], quantity: str
) -> None:
    found = forecast(digits.MODEL, digits.BUNDLE, QUICK | {"target": target})
    report = prune(digits.MODEL, digits.BUNDLE, QUICK | {"target": target}).report
    assert found["is_reachable"]
    cost = {
        side: {**report["cost"][side], "filters": report["filters"][side]}
        for side in ("before", "after")
    }
    assert found["before"] == {key: cost["before"][key] for key in found["before"]}
    assert found["after"][quantity] == pytest.approx(cost["after"][quantity], rel=0.1)
    assert found["samples"] + found["held_out"] == report["bundle"]["samples"]
    assert found["rounds"] == 1


def test_rounds_are_counted() -> None:
    steps = forecast(digits.MODEL, digits.BUNDLE, QUICK | {"steps": 5})
    assert steps["rounds"] == 5
    options = {"filters_per_step": 5, "target": {"filters": 12}}
    assert forecast(digits.MODEL, digits.BUNDLE, QUICK | options)["rounds"] == 3


def test_an_unreachable_target_is_refused_or_said() -> None:
    options = QUICK | {"target": {"filter_ratio": 0.01}}
    with pytest.raises(UnreachableTargetError):
        forecast(digits.MODEL, digits.BUNDLE, options)
    found = forecast(digits.MODEL, digits.BUNDLE, options | {"on_unreachable": "best"})
    assert found["is_reachable"] is False


def test_parts_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    with pytest.raises(FilterGlobError):
        forecast(digits.MODEL, digits.BUNDLE, {"include": ["nothing*"]})
    with pytest.raises(BundleError):
        forecast(digits.MODEL, write_npz(tmp_path / "b.npz", other=[[1.0]]))


@pytest.mark.parametrize("target", [{"max_metric_drop": 0.01}, {"max_latency_ratio": 0.6}])
def test_what_is_searched_for_is_not_foretold(target: dict[str, Any]) -> None:
    found = forecast(digits.MODEL, digits.BUNDLE, QUICK | {"target": target})
    assert found["after"] is None
    assert found["before"]["filters"] == 60
    assert found["held_out"] == (38 if "max_metric_drop" in target else 13)
