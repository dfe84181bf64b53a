"""Measured latency of pruned networks against their MACs, by `channel_multiple`.

    python -m benchmarks.speed.latency [NETWORK ...] [--multiples 1 8 default] [--ratios 0.7 0.5]

ONNX Runtime, batch 1, all threads; the pruned networks and the original take turns. Scores come
from noise: what is looked at is the shape of what is left.
"""

from __future__ import annotations

import argparse
import io
from collections.abc import Sequence
from functools import partial

import numpy as np
import onnxruntime as ort

from benchmarks.speed.networks import exported, images
from benchmarks.speed.timing import Burst, burst_of, in_turns
from benchmarks.tables import markdown_table
from graph_ops import prune

NETWORKS = ("resnet50", "mobilenet_v2", "vgg16")
SAMPLES = 8
RUNS = 8
DEFAULT = "default"
"""Stands for the product's own choice of a multiple."""


def table(name: str, ratios: Sequence[float], multiples: Sequence[int | None], rounds: int) -> str:
    """A row for each multiple: share of the MACs, and of the latency, at every ratio."""
    path = exported(name)
    input_name, inputs = images(path, SAMPLES)
    bundle = io.BytesIO()
    np.savez(bundle, allow_pickle=False, **{input_name: inputs})
    original = path.read_bytes()
    models, shares = {"original": original}, {}
    for multiple in multiples:
        for ratio in ratios:
            options = {
                "target": {"max_macs_ratio": ratio},
                "channel_multiple": multiple,
                "recovery": "none",
                "batch_size": 4,
            }
            result = prune(original, bundle.getvalue(), options)
            key = f"{multiple}/{ratio:g}"
            models[key] = result.model
            cost = result.report["cost"]
            shares[key] = cost["after"]["macs"] / cost["before"]["macs"]
    bursts: dict[str, Burst] = {}
    for key, model in models.items():
        session = ort.InferenceSession(model, providers=["CPUExecutionProvider"])
        bursts[key] = burst_of(partial(session.run, None, {input_name: inputs[:1]}))
    seconds = in_turns(bursts, rounds, size=RUNS)
    rows = []
    for multiple in multiples:
        cells = []
        for ratio in ratios:
            key = f"{multiple}/{ratio:g}"
            cells += [f"{shares[key]:.3f}", f"{seconds[key] / seconds['original']:.3f}"]
        rows.append([str(multiple or DEFAULT), *cells])
    header = [cell for r in ratios for cell in (f"MACs ({r:g})", f"latency ({r:g})")]
    one = f"{seconds['original'] * 1e3:.1f}"
    return f"{name}, original {one} ms:\n\n{markdown_table(['multiple', *header], rows)}\n"


def _multiple(text: str) -> int | None:
    return None if text == DEFAULT else int(text)


def main() -> None:
    """Print a table for each network."""
    parser = argparse.ArgumentParser(prog="benchmarks.speed.latency", description=__doc__)
    parser.add_argument("networks", nargs="*", default=list(NETWORKS))
    parser.add_argument("--multiples", nargs="+", type=_multiple, default=[1, 4, 8, 16, None])
    parser.add_argument("--ratios", nargs="+", type=float, default=[0.7, 0.5])
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    for name in arguments.networks:
        print(table(name, arguments.ratios, arguments.multiples, arguments.rounds), flush=True)


if __name__ == "__main__":
    main()
