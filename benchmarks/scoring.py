"""Time of scoring ResNet-50 at 224² divided by a plain ONNX Runtime inference of the same batch.

Both run in this process, interleaved in short bursts; the ratio of medians is printed with the
peak memory. The network is the `onnx` wheel's light ResNet-50 with random weights.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time

import numpy as np

from graph_ops.model import load_model
from graph_ops.network import TaylorPrunableNetwork
from graph_ops.runtime import Session
from tests.support.models import light_network

INPUT = "gpu_0/data_0"
GOAL = 2.8


def time_runs(run: object, count: int) -> list[float]:
    """Seconds of each of `count` calls."""
    times = []
    for _ in range(count):
        start = time.perf_counter()
        run()  # type: ignore[operator]
        times.append(time.perf_counter() - start)
    return times


def peak_mb() -> float:
    """Peak resident memory of this process, in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def measure(batch: int, repeats: int) -> dict[str, float]:
    """Medians of both, their ratio, and peak memory."""
    source = load_model(light_network("resnet50", batch=batch))
    rng = np.random.default_rng(0)
    images = rng.standard_normal((batch, 3, 224, 224)).astype(np.float32)
    labels = rng.integers(0, 1000, batch)
    plain = Session(source.model)
    time_runs(lambda: plain.run({INPUT: images}), 3)
    before = peak_mb()
    network = TaylorPrunableNetwork(source)
    feeds = {INPUT: images, "labels": labels}
    time_runs(lambda: network.update_score(feeds), 4)
    inference: list[float] = []
    scoring: list[float] = []
    for _ in range(repeats):
        inference += time_runs(lambda: plain.run({INPUT: images}), 4)[1:]
        scoring += time_runs(lambda: network.update_score(feeds), 3)[1:]
    a, b = statistics.median(inference), statistics.median(scoring)
    return {
        "batch": batch,
        "inference_s": round(a, 4),
        "scoring_s": round(b, 4),
        "ratio": round(b / a, 3),
        "peak_inference_mb": round(before),
        "peak_mb": round(peak_mb()),
    }


def main() -> None:
    """Print one line of JSON and a sentence."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=4)
    parser.add_argument("--inner", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if not arguments.inner:
        # A process of its own: peak memory is per process.
        command = [sys.executable, "-m", "benchmarks.scoring", "--inner", *sys.argv[1:]]
        sys.exit(subprocess.run(command, check=False).returncode)
    result = measure(arguments.batch, arguments.repeats)
    print(json.dumps(result))
    print(
        f"Scoring ResNet-50 takes {result['ratio']:.2f} times a plain inference "
        f"(goal: at most {GOAL}); peak {result['peak_mb']} MiB."
    )


if __name__ == "__main__":
    main()
