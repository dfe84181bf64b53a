"""`rank_by: auto`: what layers are compared by, as the options, and then the bundle, say."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from graph_ops.checkpoint import Checkpoint
from graph_ops.options import parse_options
from graph_ops.pruning import prune
from graph_ops.rank_by import rank_by
from tests.support import digits
from tests.support.cutting import model_of
from tests.support.recovering import edited, random_inputs

MACS: dict[str, Any] = {"max_macs_ratio": 0.7}


@pytest.mark.parametrize(
    ("options", "kind"),
    [
        ({"target": {"filters": 8}}, "score"),
        ({"target": {"filter_ratio": 0.8}}, "score"),
        ({"target": MACS}, "error_per_mac"),
        ({"target": MACS, "steps": 1}, "error_per_mac"),
        ({"target": MACS, "points": 3}, "error_per_mac"),
        ({"target": MACS, "recovery": "distill"}, "error_per_mac"),
        ({"target": MACS, "criterion": "taylor_squared"}, "error_per_mac"),
        ({"target": {"max_params_ratio": 0.7}}, "error_per_mac"),
        ({"target": {"max_metric_drop": 0.01}}, "error_per_mac"),
        ({"target": {"max_latency_ratio": 0.7}}, "error_per_mac"),
        ({"target": MACS, "steps": 2}, "score_per_mac"),
        ({"target": MACS, "increment": 0.1}, "score_per_mac"),
        ({"target": MACS, "filters_per_step": 8}, "score_per_mac"),
        ({"target": MACS, "recovery": "none"}, "score_per_mac"),
        ({"target": MACS, "recovery": "bias"}, "score_per_mac"),
        ({"target": MACS, "criterion": "magnitude_l2"}, "score_per_mac"),
        ({"target": MACS, "criterion": "random"}, "score_per_mac"),
        ({"target": MACS, "normalization": "l2"}, "score_per_mac"),
        ({"target": MACS, "rank_by": "score"}, "score"),
        ({"target": MACS, "rank_by": "error_per_mac", "steps": 2}, "error_per_mac"),
    ],
)
def test_what_options_come_to(options: dict[str, Any], kind: str) -> None:
    found = rank_by(parse_options(options))
    assert found.kind == kind
    assert found.why.endswith(".")
    assert found.is_asked == ("rank_by" in options)


def test_the_report_says_what_was_compared_and_why() -> None:
    report = prune(digits.MODEL, digits.BUNDLE, {"target": MACS, "max_samples": 100}).report
    assert report["score"]["rank_by"] == "error_per_mac"
    assert "refitted" in report["score"]["rank_by_why"]
    assert report["options"]["rank_by"] == "auto"


def test_auto_goes_by_scores_where_a_bundle_is_too_small(tmp_path: Path) -> None:
    """And a run that goes on after its last round still says so."""
    options = {"target": MACS, "max_samples": 6, "validation_fraction": 0.0}
    first = prune(digits.MODEL, digits.BUNDLE, options, checkpoint=Checkpoint(tmp_path))
    assert first.report["score"]["rank_by"] == "score_per_mac"
    assert "too few" in first.report["score"]["rank_by_why"]
    again = prune(digits.MODEL, digits.BUNDLE, options, checkpoint=Checkpoint(tmp_path))
    assert again.report["score"] == first.report["score"]
    asked = options | {"rank_by": "score_per_mac"}
    assert _weights(prune(digits.MODEL, digits.BUNDLE, asked).model) == _weights(first.model)


def test_auto_goes_by_scores_where_outputs_cannot_be_compared() -> None:
    """All zeros differ from nothing by a share of themselves."""
    body = "a = Conv<pads=[1,1,1,1]>(x, wa)\nr = Relu(a)\ng = GlobalAveragePool(r)\nf = Flatten(g)"
    still = model_of(f"{body}\ny = MatMul(f, wc)", "float[16,3,3,3] wa, float[16,4] wc")
    still = edited(still, wc=np.zeros((16, 4), dtype=np.float32))
    stream = io.BytesIO()
    np.savez(stream, allow_pickle=False, **random_inputs(still, 40))
    report = prune(still, stream.getvalue(), {"target": MACS, "loss": "unlabelled"}).report
    assert report["score"]["rank_by"] == "score_per_mac"
    assert "other than zero" in report["score"]["rank_by_why"]


def _weights(model: bytes) -> dict[str, bytes]:
    graph = onnx.load_from_string(model).graph
    return {t.name: onnx.numpy_helper.to_array(t).tobytes() for t in graph.initializer}
