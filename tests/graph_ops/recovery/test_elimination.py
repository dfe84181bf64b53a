"""The order in which channels go by what their readers cannot make up for."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from graph_ops.options import parse_options
from graph_ops.pruning import prune
from graph_ops.recovery import elimination, moments
from graph_ops.recovery.elimination import Reader, eliminate
from graph_ops.recovery.judge import Judge
from graph_ops.recovery.samples import RefitSamples
from graph_ops.recovery.trials import Trials
from graph_ops.recovery.weights import RefittedWeights
from graph_ops.run import Run, opened
from tests.support.cutting import model_of
from tests.support.models import random_weights
from tests.support.recovering import edited, random_inputs

Array = NDArray[np.float64]
CHANNELS, TAPS = 5, 2


def left_over(rows: Array, weight: Array, gone: Sequence[int]) -> float:
    """Mean square of what a regression on the other inputs leaves of the outputs."""
    wanted = (rows - rows.mean(axis=0)) @ weight
    kept = np.delete(rows - rows.mean(axis=0), gone, axis=1)
    solved = np.linalg.lstsq(kept, wanted, rcond=None)[0]
    return float(np.square(wanted - kept @ solved).sum() / rows.shape[0])


def reader(rows: Array, weight: Array) -> tuple[Reader, float]:
    """A layer that reads `TAPS` inputs of every channel, and one input of nobody's."""
    covariance = np.cov(rows, rowvar=False, bias=True)
    variance = float(np.trace(weight.T @ covariance @ weight))
    columns = [np.arange(CHANNELS * TAPS).reshape(CHANNELS, TAPS)[c] for c in range(CHANNELS)]
    used = CHANNELS * TAPS
    precision = np.linalg.inv(covariance)[:used, :used]
    return Reader(precision, weight[:used], columns, variance), variance


def test_the_cheapest_goes_first_and_losses_are_those_of_regressions() -> None:
    """Of two readers, at every step, against least squares solved anew."""
    rng = np.random.default_rng(0)
    mixing = rng.normal(size=(11, 11))
    everything = [rng.normal(size=(300, 11)) @ mixing + 1.0 for _ in range(2)]
    weights = [rng.normal(size=(11, 3)), 5 * rng.normal(size=(11, 4))]
    pairs = [reader(r, w) for r, w in zip(everything, weights, strict=True)]
    found = eliminate([pair[0] for pair in pairs], CHANNELS)

    def lost(channels: Sequence[int]) -> float:
        gone = [TAPS * c + t for c in channels for t in range(TAPS)]
        parts = zip(everything, weights, pairs, strict=True)
        return sum(left_over(r, w, gone) / pair[1] for r, w, pair in parts)

    order = found.order.tolist()
    assert sorted(order) == list(range(CHANNELS))
    for step in range(CHANNELS):
        choices = {c: lost([*order[:step], c]) for c in order[step:]}
        assert min(choices, key=lambda c: choices[c]) == order[step]
        assert found.lost[step + 1] == pytest.approx(choices[order[step]], rel=1e-6)


def test_channels_nobody_reads_go_first_and_cost_nothing() -> None:
    rng = np.random.default_rng(1)
    columns = [np.asarray([0]), np.asarray([], dtype=np.int64), np.asarray([1, 2])]
    read = Reader(np.eye(3), rng.normal(size=(3, 2)), columns, 1.0)
    found = eliminate([read], 3)
    assert found.order[0] == 1
    assert found.lost[1] == 0.0


def test_wide_layers_lose_several_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(elimination, "PASSES", 4)
    weight = np.diag(np.arange(1.0, 11.0))
    read = Reader(np.eye(10), weight, [np.asarray([c]) for c in range(10)], 385.0)
    found = eliminate([read], 10)
    assert found.order.tolist() == list(range(10))
    np.testing.assert_allclose(found.lost, np.cumsum(np.arange(11.0) ** 2) / 385.0)


NETWORKS = {
    "taps": """
        a = Conv<pads=[1,1,1,1]>(x, wa)
        b = Relu(a)
        y = Conv<pads=[1,1,1,1]>(b, wb)
    """,
    "flattened": """
        a = Conv<pads=[1,1,1,1], strides=[2,2]>(x, wa)
        b = Relu(a)
        f = Flatten(b)
        y = MatMul(f, wb)
    """,
    "beside others": """
        a = Conv<pads=[1,1,1,1]>(x, wa)
        b = Relu(a)
        c = Concat<axis=1>(x, b)
        y = ConvTranspose(c, wb)
    """,
}
WEIGHTS = {
    "taps": "float[6,3,3,3] wa, float[4,6,3,3] wb",
    "flattened": "float[6,3,3,3] wa, float[54,5] wb",
    "beside others": "float[6,3,3,3] wa, float[9,4,2,2] wb",
}
OPTIONS = {"target": {"max_macs_ratio": 0.5}, "loss": "unlabelled", "channel_multiple": 1}


def bundle(network: bytes, samples: int) -> bytes:
    stream = io.BytesIO()
    np.savez(stream, allow_pickle=False, **random_inputs(network, samples))
    return stream.getvalue()


@pytest.mark.parametrize("form", sorted(NETWORKS))
def test_what_is_lost_is_what_a_trial_measures(form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The prediction from covariances, against the outputs of a cut and refitted network."""
    monkeypatch.setattr(moments, "NOISY_RIDGE", moments.RIDGE)
    network = model_of(NETWORKS[form], WEIGHTS[form])
    run = Run(parse_options(OPTIONS))
    with opened(run, network, bundle(network, 600), None, None) as work:
        classes = work.network.classes
        samples = RefitSamples.draw(work.dataset, 0)
        assert samples is not None
        judge = Judge(classes.channels.model, samples.checked, None)
        nothing = np.zeros(classes.count, dtype=np.bool_)
        trials = Trials(classes, nothing, RefittedWeights(), samples, judge, "reconstruct", 0)
        (layer,) = work.network.selector.orders(np.zeros(classes.count), ~nothing)
        channels = [c for unit in layer.units for c in unit]
        trials.observe(channels)
        found = trials.eliminated(channels)
        assert found is not None
        place = trials.place(channels[:1])
        for count in (1, 3, 5):
            going = [channels[i] for i in found.order[:count]]
            measured = trials.squared_error(going, place)
            assert measured == pytest.approx(found.lost[count], rel=0.25)


def twins() -> bytes:
    """Sixteen filters, each a multiple of one of eight, the stronger ones twice."""
    base = random_weights((8, 3, 3, 3), 0)
    wa = np.concatenate([base, 1.5 * base])
    body = "a = Conv<pads=[1,1,1,1]>(x, wa)\nr = Relu(a)\ny = Conv<pads=[1,1,1,1]>(r, wb)"
    return edited(model_of(body, "float[16,3,3,3] wa, float[6,16,3,3] wb"), wa=wa)


@pytest.mark.parametrize(("recovery", "is_known"), [("reconstruct", True), ("none", False)])
def test_one_of_two_channels_that_say_the_same_stays(recovery: str, is_known: bool) -> None:
    options: dict[str, Any] = OPTIONS | {"rank_by": "error_per_mac", "recovery": recovery}
    result = prune(twins(), bundle(twins(), 100), options)
    (entry,) = (e for e in result.report["convolutions"] if e["filters_before"] == 16)
    pairs = {index % 8 for index in entry["kept"]}
    assert (len(pairs) == 8) is is_known


def test_filters_that_go_in_bundles_keep_their_order() -> None:
    body = "a = Conv(x, wa)\nr = Relu(a)\nb = Conv<group=2>(r, wb)\ny = Conv(b, wc)"
    network = model_of(body, "float[8,3,1,1] wa, float[8,4,1,1] wb, float[4,8,1,1] wc")
    run = Run(parse_options(OPTIONS))
    with opened(run, network, bundle(network, 20), None, None) as work:
        count = work.network.classes.count
        layers = work.network.selector.orders(np.arange(count * 1.0), work.network.alive)
        assert {len(layer.units[0]) > 1 for layer in layers} == {True}
        assert not any(layer.is_free for layer in layers)
    options = OPTIONS | {"rank_by": "error_per_mac"}
    kept = prune(network, bundle(network, 100), options).report["convolutions"]
    assert all(entry["filters_after"] % 2 == 0 for entry in kept if entry["name"] != "y")
