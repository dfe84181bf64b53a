"""The choice of sizes for `max_metric_drop`: few trials, and a result that is known to be sharp."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np
import pytest

from graph_ops.goals import drop_search
from graph_ops.goals.drop_search import FINE, SHARP, DropSearch, Trial

Curve = Callable[[float], float]
WANTED = 0.01
SMALLEST = 0.05


class Network:
    """What cuts of a network cost, and what was tried on it."""

    def __init__(self, plain: Curve, full: Curve, jump: float = 0.0) -> None:
        self._curves = {"plain": plain, "full": full}
        self._jump = jump
        self.tried: list[Trial] = []

    def attempt(self, kind: str, share: float) -> Trial:
        """A trial; what the samples happen to be like is the same each time a size is tried."""
        estimate = self._curves[kind](share)
        chance = np.random.default_rng(round(share * 1e6)).normal()
        self.tried.append(Trial(kind, share, estimate + self._jump * chance, estimate))
        return self.tried[-1]

    def count(self, kind: str) -> int:
        """How many trials of a kind there were."""
        return sum(trial.kind == kind for trial in self.tried)


def search(
    network: Network, recovery: str = "reconstruct", samples: int = 1200, *, measured: bool = False
) -> DropSearch:
    return DropSearch(
        WANTED,
        SMALLEST,
        recovery,
        samples,
        is_bounded=True,
        are_layers_measured=measured,
        attempt=network.attempt,
    )


def measured(shares: list[float], percent: list[float]) -> Curve:
    return lambda share: float(np.interp(share, shares, np.asarray(percent) / 100))


# As measured with 4,000 samples, layers by their errors: shares of the MACs, and in points what
# cuts cost by their estimate, and with recovery.
MEASURED = {
    "residual": (
        [0.64, 0.67, 0.7, 0.73, 0.76, 0.79, 0.82, 0.85, 0.88, 0.92, 1.0],
        [43.79, 41.19, 35.27, 32.15, 31.25, 26.61, 18.55, 14.5, 11.16, 4.61, 0.0],
        [2.83, 2.0, 1.5, 1.0, 0.75, 1.0, 0.42, 0.33, 0.17, 0.33, 0.0],
    ),
    "depthwise": (
        [0.49, 0.52, 0.55, 0.58, 0.61, 0.64, 0.67, 0.7, 0.74, 0.78, 0.85, 1.0],
        [71.38, 70.32, 66.36, 64.12, 61.14, 59.63, 56.34, 53.22, 49.92, 43.72, 31.48, 0.0],
        [1.75, 1.33, 1.33, 1.33, 0.58, 0.33, 0.17, 0.08, 0.42, 0.17, 0.08, 0.0],
    ),
    "vgg": (
        [0.56, 0.59, 0.62, 0.65, 0.68, 0.71, 0.74, 0.8, 0.86, 1.0],
        [62.98, 56.9, 50.61, 45.22, 41.89, 36.18, 31.92, 20.99, 9.81, 0.0],
        [1.92, 1.33, 1.25, 1.08, 0.58, 0.83, 0.75, 0.67, 0.25, 0.0],
    ),
    "vgg_bn": (
        [0.53, 0.56, 0.59, 0.62, 0.65, 0.68, 0.71, 0.74, 0.77, 0.8, 0.86, 1.0],
        [64.67, 61.05, 55.98, 48.23, 45.87, 39.68, 34.32, 31.84, 22.27, 19.29, 9.94, 0.0],
        [1.75, 1.58, 1.42, 1.42, 1.25, 0.75, 0.83, 0.5, 0.67, 0.42, 0.17, 0.0],
    ),
    "digits": (
        [0.09, 0.11, 0.13, 0.15, 0.17, 0.19, 0.22, 0.26, 0.32, 0.4, 1.0],
        [76.06, 71.83, 66.33, 65.04, 62.19, 51.32, 33.06, 20.94, 15.2, 6.73, 0.0],
        [2.42, 1.67, 1.17, 0.92, 0.83, 0.58, 0.83, 0.58, 0.67, 0.08, 0.0],
    ),
}


@pytest.mark.parametrize("name", MEASURED)
def test_hardly_anything_smaller_is_within_the_drop(name: str) -> None:
    shares, plain, full = MEASURED[name]
    lost = measured(shares, full)
    network = Network(measured(shares, plain), lost)
    found = search(network, measured=True)
    best = found.find()
    assert best is not None
    assert found.holds(best)
    assert best.drop <= WANTED + 1e-9
    smaller = [best.share - x for x in (0.03, 0.045, 0.06, 0.09)]
    assert all(lost(share) > WANTED for share in smaller if share > shares[0])
    assert network.count("full") <= 5
    assert network.count("plain") <= 8


def test_it_ends_where_a_size_three_percent_smaller_failed() -> None:
    network = Network(lambda s: 0.6 * (1 - s) ** 2, lambda s: 0.04 * (1 - s) ** 2)
    found = search(network)
    best = found.find()
    assert best is not None
    assert best.share - found.failed[0].share <= SHARP + 1e-6


def bumped(share: float) -> float:
    """A flat curve with its line at 0.3, and above that a bump by chance."""
    return 0.009 + 0.01 * (0.4 - share) + 0.0015 * float(abs(share - 0.37) < 0.02)


def test_below_a_size_that_failed_by_a_hair_it_looks_for_one_that_holds() -> None:
    network = Network(lambda s: 0.25 * (1 - s), bumped)
    best = search(network, measured=True).find()
    assert best is not None
    assert 0.3 <= best.share < 0.33
    assert network.count("full") <= 5


def test_below_a_size_that_failed_clearly_nothing_is_tried() -> None:
    network = Network(lambda s: 0.6 * (1 - s) ** 2, lambda s: 0.16 * (1 - s) ** 3)
    found = search(network, measured=True)
    assert found.find() is not None
    full = [trial for trial in network.tried if trial.kind == "full"]
    clear = [trial.share if trial.drop > 1.3 * WANTED else 0.0 for trial in full]
    assert max(clear) > 0
    assert all(trial.share > max(clear[:n]) for n, trial in enumerate(full) if n)


@pytest.mark.parametrize(("are_layers_measured", "most"), [(False, 4), (True, 5)])
def test_where_layers_are_measured_one_more_recovery_makes_the_result_sharp(
    are_layers_measured: bool, most: int
) -> None:
    network = Network(lambda s: 9 * (1 - s), lambda s: 0.0 if s > 0.8 else 0.02)
    found = search(network, measured=are_layers_measured)
    best = found.find()
    assert best is not None
    assert network.count("full") == most
    is_sharp = best.share - found.failed[0].share <= SHARP + 1e-9
    assert is_sharp is are_layers_measured


@pytest.mark.parametrize("gain", [2.0, 10.0, 40.0])
@pytest.mark.parametrize("line", [0.2, 0.45, 0.7, 0.9])
def test_it_comes_close_to_the_line_of_smooth_curves(line: float, gain: float) -> None:
    """A drop that rises as a power of what is gone, and recovery that makes it smaller."""

    def full(share: float) -> float:
        return float(WANTED * ((1 - share) / (1 - line)) ** 3)

    network = Network(lambda share: min(0.9, gain * full(share)), full)
    best = search(network).find()
    assert best is not None
    assert line - 1e-9 <= best.share <= line + 0.08
    assert network.count("full") <= 4


def test_a_result_is_within_the_drop_however_the_samples_jump() -> None:
    network = Network(lambda s: 0.6 * (1 - s) ** 2, lambda s: 0.03 * (1 - s) ** 2, jump=0.004)
    found = search(network, samples=300)
    best = found.find()
    assert best is not None
    assert found.holds(best)
    assert best.drop <= WANTED + 1e-9
    smaller = [t for t in network.tried if t.kind == "full" and t.share < best.share]
    assert not any(found.holds(t) for t in smaller)


@pytest.mark.parametrize(
    ("samples", "estimate", "holds"),
    [
        (1200, 0.0128, True),  # sqrt(0.01 / 1200) = 0.0029 beyond
        (1200, 0.0130, False),
        (90, 0.0149, True),  # half of what is allowed at most
        (90, 0.0151, False),
    ],
)
def test_an_estimate_beyond_the_drop_says_that_it_was_luck(
    samples: int, estimate: float, holds: bool
) -> None:
    found = search(Network(lambda s: 0.0, lambda s: 0.0), samples=samples)
    assert found.holds(Trial("full", 0.5, 0.009, estimate)) is holds
    assert not found.holds(Trial("full", 0.5, 0.0101, 0.0))


def test_trials_that_are_left_come_closer_by_a_step_worth_a_recovery(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(drop_search, "FULL_TRIALS", 8)
    network = Network(lambda s: 0.6 * (1 - s) ** 2, lambda s: 0.04 * (1 - s) ** 2)
    search(network).find()
    shares = sorted(trial.share for trial in network.tried if trial.kind == "full")
    assert min(b - a for a, b in itertools.pairwise(shares)) >= FINE / 4


def test_it_goes_on_until_one_holds() -> None:
    network = Network(lambda s: 0.2 * (1 - s), lambda s: 0.1 * (1 - s) ** 0.5)
    best = search(network).find()
    assert best is not None
    assert best.drop <= WANTED + 1e-9
    assert network.count("full") > 4


def test_none_is_found_where_the_mildest_cut_fails() -> None:
    network = Network(lambda s: 0.2, lambda s: 0.02)
    found = search(network)
    assert found.find() is None
    assert found.failed[0].share > 0.97


def test_a_network_that_bears_everything_ends_at_its_floor() -> None:
    network = Network(lambda s: 0.005, lambda s: 0.0)
    best = search(network, "none").find()
    assert best is not None
    assert best.share == SMALLEST
