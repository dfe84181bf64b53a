"""The choice of sizes for `max_metric_drop`: few trials, and a result that is known to be sharp."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from graph_ops.goals.drop_search import SHARP, DropSearch, Trial, full_trials

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
    network: Network, recovery: str = "reconstruct", samples: int = 1200, trials: int = 4
) -> DropSearch:
    return DropSearch(
        WANTED,
        SMALLEST,
        recovery,
        samples,
        is_bounded=True,
        full_trials=trials,
        attempt=network.attempt,
    )


def measured(shares: list[float], percent: list[float]) -> Curve:
    return lambda share: float(np.interp(share, shares, np.asarray(percent) / 100))


# As measured with 4,000 samples: shares of the MACs, plain drops and full ones in points.
MEASURED = {
    "residual": (
        [0.748, 0.776, 0.81, 0.839, 0.87, 0.899, 1.0],
        [28.5, 19.5, 14.5, 9.9, 6.7, 4.3, 0.0],
        [2.2, 1.8, 1.4, 0.99, 0.48, 0.74, 0.0],
    ),
    "depthwise": (
        [0.569, 0.599, 0.63, 0.659, 0.69, 0.716, 0.746, 1.0],
        [63.5, 58.7, 52.7, 44.2, 34.5, 27.9, 20.3, 0.0],
        [2.8, 2.51, 2.11, 1.11, 0.92, 0.41, 0.53, 0.0],
    ),
    "digits": (
        [0.06, 0.095, 0.136, 0.159, 0.174, 0.197, 0.234, 0.299, 0.342, 1.0],
        [76.9, 69.7, 57.8, 46.0, 34.0, 26.2, 20.9, 14.6, 11.5, 0.0],
        [3.35, 1.51, 1.28, 0.79, 0.9, 0.86, 0.85, 0.56, 0.32, 0.0],
    ),
}


@pytest.mark.parametrize("name", MEASURED)
def test_hardly_anything_smaller_is_within_the_drop(name: str) -> None:
    shares, plain, full = MEASURED[name]
    network = Network(measured(shares, plain), measured(shares, full))
    best = search(network).find()
    assert best is not None
    assert best.worst <= WANTED + 1e-9
    assert all(measured(shares, full)(best.share - x) > WANTED for x in (0.04, 0.06, 0.09))
    assert network.count("full") <= 4
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
    best = search(network, trials=5).find()
    assert best is not None
    assert 0.3 <= best.share < 0.33
    assert network.count("full") <= 5


def test_below_a_size_that_failed_clearly_nothing_is_tried() -> None:
    network = Network(lambda s: 0.6 * (1 - s) ** 2, lambda s: 0.16 * (1 - s) ** 3)
    found = search(network, trials=5)
    assert found.find() is not None
    full = [trial for trial in network.tried if trial.kind == "full"]
    clear = [trial.share if trial.worst > 1.3 * WANTED else 0.0 for trial in full]
    assert max(clear) > 0
    assert all(trial.share > max(clear[:n]) for n, trial in enumerate(full) if n)


@pytest.mark.parametrize(
    ("recovery", "are_layers_measured", "trials"),
    [("reconstruct", True, 5), ("reconstruct", False, 4), ("distill", True, 3), ("none", False, 4)],
)
def test_measured_layers_leave_time_for_more_recoveries(
    recovery: str, are_layers_measured: bool, trials: int
) -> None:
    assert full_trials(recovery, are_layers_measured=are_layers_measured) == trials


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
    assert best.worst <= WANTED + 1e-9
    smaller = [t for t in network.tried if t.kind == "full" and t.share < best.share]
    assert all(t.worst > WANTED for t in smaller)


def test_it_goes_on_until_one_holds() -> None:
    network = Network(lambda s: 0.2 * (1 - s), lambda s: 0.1 * (1 - s) ** 0.5)
    best = search(network).find()
    assert best is not None
    assert best.worst <= WANTED + 1e-9
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
