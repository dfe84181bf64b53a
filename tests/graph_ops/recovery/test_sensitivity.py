"""`rank_by: error_per_mac`: layers are compared by what the outputs lose without parts of them."""

from __future__ import annotations

import io
import itertools
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest

from graph_ops.errors import OptionsError
from graph_ops.from_scores import cut_from_scores
from graph_ops.pruning import Progress, PruneResult, prune, score
from graph_ops.recovery import sensitivity
from graph_ops.selection import DropOrder
from tests.support import digits
from tests.support.cutting import model_of
from tests.support.models import random_weights
from tests.support.recovering import edited, random_inputs

BODY = """
a = Conv<pads=[1,1,1,1]>(x, wa)
b = Conv<pads=[1,1,1,1]>(a, wb)
rb = Relu(b)
g = GlobalAveragePool(rb)
f = Flatten(g)
y = MatMul(f, wc)
"""
WEIGHTS = "float[16,3,3,3] wa, float[16,16,3,3] wb, float[16,4] wc"
TARGET: dict[str, Any] = {"target": {"max_macs_ratio": 0.5}, "loss": "unlabelled"}


@pytest.fixture(scope="module")
def network() -> bytes:
    """The 16 filters of `a` are mixtures of 6: any 10 may go, however large their scores are."""
    few = random_weights((6, 3, 3, 3), 0).reshape(6, -1)
    wa = (random_weights((16, 6), 1) @ few).reshape(16, 3, 3, 3)
    return edited(model_of(BODY, WEIGHTS), wa=wa)


def bundle(network: bytes, samples: int = 100) -> bytes:
    stream = io.BytesIO()
    np.savez(stream, allow_pickle=False, **random_inputs(network, samples))
    return stream.getvalue()


def error(network: bytes, result: PruneResult) -> float:
    """Of the outputs on samples that the run did not see, relative to the original's."""
    feeds = random_inputs(network, 200, seed=1)
    before, after = (
        ort.InferenceSession(m, providers=["CPUExecutionProvider"]).run(None, feeds)[0]
        for m in (network, result.model)
    )
    return float(np.sqrt(np.square(after - before).mean() / np.square(before).mean()))


def kept(result: PruneResult) -> dict[str, int]:
    return {e["name"]: e["filters_after"] for e in result.report["convolutions"]}


def test_filters_that_others_can_stand_in_for_go_whatever_they_score(network: bytes) -> None:
    by_score = prune(network, bundle(network), TARGET | {"rank_by": "score_per_mac"})
    by_error = prune(network, bundle(network), TARGET | {"rank_by": "error_per_mac"})
    assert kept(by_error)["b"] > kept(by_score)["b"]
    assert error(network, by_error) < 0.1 * error(network, by_score)
    assert by_error.report["score"]["rank_by"] == "error_per_mac"


def test_every_round_measures_what_is_left(network: bytes) -> None:
    told: list[Progress] = []
    options = TARGET | {"rank_by": "error_per_mac", "steps": 2, "recovery": "bias"}
    first = prune(network, bundle(network), options, progress=told.append)
    assert {p.message for p in told if p.phase == "select"} == {"round 1", "round 2"}
    assert prune(network, bundle(network), options).model == first.model


@pytest.mark.parametrize("recovery", ["none", "reconstruct"])
def test_a_curve_along_measured_errors_reaches_its_sizes(network: bytes, recovery: str) -> None:
    options = TARGET | {"rank_by": "error_per_mac", "points": 2, "recovery": recovery}
    result = prune(network, bundle(network), options)
    shares = [p.report["cost"]["after"]["macs"] for p in result.points]
    assert shares == sorted(shares, reverse=True)
    assert shares[-1] <= 0.5 * result.report["cost"]["before"]["macs"]


def test_counts_keep_their_multiples() -> None:
    options = {
        "target": {"max_macs_ratio": 0.6},
        "rank_by": "error_per_mac",
        "channel_multiple": 4,
        "max_samples": 100,
    }
    result = prune(digits.MODEL, digits.BUNDLE, options)
    assert all(count % 4 == 0 for count in kept(result).values())


def test_costs_rise_along_a_layer_and_pass_through_what_was_measured() -> None:
    order = sensitivity.Path.of_scores(DropOrder([[3], [1], [0, 2], [4, 5]], droppable=3))
    costs = np.full(7, np.nan)
    sensitivity.spread(order, {0: 0.0, 1: 0.01, 3: 0.04}, costs)
    ladder = [costs[list(unit)] for unit in order.units]
    assert all((a.max() <= b.min()) for a, b in itertools.pairwise(ladder))
    assert costs[3] == pytest.approx(0.01)
    assert costs[[3, 1, 0, 2]].sum() == pytest.approx(0.04, rel=0.35)
    assert np.isnan(costs[6])


def test_too_few_samples_say_so(network: bytes) -> None:
    with pytest.raises(OptionsError, match="too few") as caught:
        prune(network, bundle(network, 6), TARGET | {"rank_by": "error_per_mac"})
    assert caught.value.details["field"] == "rank_by"


def test_outputs_that_are_not_finite_say_so(network: bytes) -> None:
    wild = edited(network, wc=np.full((16, 4), np.inf, dtype=np.float32))
    options = TARGET | {"rank_by": "error_per_mac", "criterion": "magnitude_l2"}
    with pytest.raises(OptionsError, match="not finite"):
        prune(wild, bundle(wild), options)


def test_without_a_bundle_there_is_nothing_to_measure_on() -> None:
    scores = score(digits.MODEL, digits.BUNDLE, {"max_samples": 64})
    options = {"target": {"max_macs_ratio": 0.7}, "rank_by": "error_per_mac"}
    with pytest.raises(OptionsError, match="error_per_mac"):
        cut_from_scores(digits.MODEL, scores, options)
