"""Both gradient engines and a plain inference on ResNet-50 at 224², side by side.

All run in turns, in short bursts, on the same batch; the ratio of medians to plain inference is
printed, and how far the two engines' scores are apart. The network is the `onnx` wheel's light
ResNet-50 with random weights. `ort-training` computes in its child, with as many threads.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Callable

import numpy as np

from benchmarks.scoring import INPUT, time_runs
from graph_ops.engines.catalog import engine_statuses
from graph_ops.model import load_model
from graph_ops.network import TaylorPrunableNetwork
from graph_ops.runtime import Session
from tests.support.models import light_network

ENGINES = ("standard", "ort-training")


def measure(batch: int, repeats: int) -> dict[str, float]:
    """Median seconds of each, ratios to inference, and the largest difference of the scores.

    Args:
        batch: Images in the batch.
        repeats: Bursts of each.
    """
    source = load_model(light_network("resnet50", batch=batch))
    rng = np.random.default_rng(0)
    images = rng.standard_normal((batch, 3, 224, 224)).astype(np.float32)
    feeds = {INPUT: images, "labels": rng.integers(0, 1000, batch)}
    plain = Session(source.model)
    networks = {name: TaylorPrunableNetwork(source, {"engine": name}) for name in ENGINES}
    runs: dict[str, Callable[[], object]] = {
        "inference": lambda: plain.run({INPUT: images}),
        "standard": lambda: networks["standard"].update_score(feeds),
        "ort-training": lambda: networks["ort-training"].update_score(feeds),
    }
    times: dict[str, list[float]] = {name: [] for name in runs}
    for run in runs.values():
        time_runs(run, 3)
    for _ in range(repeats):
        for name, run in runs.items():
            times[name] += time_runs(run, 3)[1:]
    medians = {name: statistics.median(seconds) for name, seconds in times.items()}
    first, second = (networks[name].state.sum_abs for name in ENGINES)
    networks["ort-training"].close()
    return {
        "batch": batch,
        **{f"{name}_s": round(median, 4) for name, median in medians.items()},
        **{f"{name}_ratio": round(medians[name] / medians["inference"], 3) for name in ENGINES},
        "largest_difference": float(np.abs(first - second).max() / first.max()),
    }


def main() -> None:
    """Print one line of JSON and a sentence."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=4)
    arguments = parser.parse_args()
    training = next(s for s in engine_statuses() if s.name == "ort-training")
    if not training.works:
        print(f"The engine ort-training does not work here: {training.reason}")
        return
    result = measure(arguments.batch, arguments.repeats)
    print(json.dumps(result))
    print(
        f"Scoring ResNet-50 takes {result['standard_ratio']:.2f} times a plain inference with "
        f"standard, {result['ort-training_ratio']:.2f} times with ort-training; their scores are "
        f"{result['largest_difference']:.1e} of the largest apart."
    )


if __name__ == "__main__":
    main()
