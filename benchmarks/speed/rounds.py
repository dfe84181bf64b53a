"""Seconds between two rounds of a job, and of analysing a large graph.

    python -m benchmarks.speed.rounds

Between rounds the cut network's scoring graph is built and loaded again; the goal is 1 s for
ResNet-50. The large graphs are those of `benchmarks.graph_scaling`, of 10,000 nodes; the goal is
5 s.
"""

from __future__ import annotations

import statistics
import time

import numpy as np

from benchmarks.graph_scaling import chain, densenet, measure
from benchmarks.speed.networks import exported, images
from graph_ops.model import load_model
from graph_ops.network import TaylorPrunableNetwork
from graph_ops.runtime import Array

NETWORK = "resnet50"
NODES = 10_000
FILTERS_A_ROUND = 64
ROUNDS = 4


def rebuilding() -> tuple[float, float]:
    """Median seconds that the first batch after a cut takes, and a later one."""
    path = exported(NETWORK)
    name, inputs = images(path, 1)
    feeds: dict[str, Array] = {name: inputs, "labels": np.zeros(1, np.int64)}
    network = TaylorPrunableNetwork(load_model(path))
    first: list[float] = []
    later: list[float] = []
    for number in range(ROUNDS):
        for times in (first, later):
            start = time.perf_counter()
            network.update_score(feeds)
            times.append(time.perf_counter() - start)
        if number < ROUNDS - 1:
            network.update_prunables(FILTERS_A_ROUND)
    return statistics.median(first[1:]), statistics.median(later[1:])


def main() -> None:
    """Print three lines."""
    first, later = rebuilding()
    print(
        f"{NETWORK}: the first batch after a cut takes {first:.2f} s, a later one {later:.2f} s: "
        f"{first - later:.2f} s to build and load the scoring graph again (goal: 1 s)."
    )
    for family in (chain, densenet):
        timing = measure(family(NODES), repeats=3)
        print(f"{family.__name__}, {timing.nodes} nodes: {timing.total_s:.2f} s (goal: 5 s).")


if __name__ == "__main__":
    main()
