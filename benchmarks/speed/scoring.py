"""Scoring a batch, in plain ONNX Runtime inferences of the same batch, beside Torch-Pruning.

    python -m benchmarks.speed.scoring [NETWORK ...] [--batch 8] [--rounds 5] [--engines ...]

Everything takes turns in one run, with as many threads. Torch-Pruning runs in a process of its
own (`make peers`) on the same ONNX file: forward, backward to every weight. What its importance
costs on top is not counted.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np

from benchmarks.speed.networks import ROOT, exported, images
from benchmarks.speed.timing import Burst, burst_of, in_turns
from benchmarks.tables import markdown_table
from graph_ops.model import load_model
from graph_ops.network import TaylorPrunableNetwork
from graph_ops.providers import thread_count
from graph_ops.runtime import Array, Session

GOALS = {"resnet50": 2.3, "resnet18": 2.3, "mobilenet_v2": 3.0, "efficientnet_b0": 3.0}
PEER_GOAL = 1.6
CLASSES = 1000
PEER_PYTHON = ROOT / ".venv-peers" / "torch_pruning" / "bin" / "python"
HEADER = ["network", "inference, s", "`standard`", "goal", "`ort-training`", "Torch-Pruning"]


@contextmanager
def peer(model: Path, inputs: Array, labels: Array) -> Iterator[Burst | None]:
    """Torch-Pruning's backward pass on the same batch; None without it, or if it cannot."""
    if not PEER_PYTHON.exists():
        yield None
        return
    with tempfile.TemporaryDirectory() as folder:
        np.savez(Path(folder, "bundle.npz"), images=inputs, labels=labels)
        script = ROOT / "benchmarks" / "peers" / "time_torch_pruning.py"
        child = subprocess.Popen(
            [PEER_PYTHON, script, model, folder, str(thread_count())],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert child.stdin is not None
        assert child.stdout is not None
        requests, answers = child.stdin, child.stdout

        def burst(count: int) -> list[float]:
            print(count, file=requests, flush=True)
            return [float(seconds) for seconds in json.loads(answers.readline())]

        try:
            yield burst if answers.readline() == "ready\n" else None
        finally:
            requests.close()
            child.wait()


def row(name: str, batch: int, rounds: int, engines: Sequence[str]) -> list[str]:
    """Medians of a network, as multiples of inference."""
    path = exported(name)
    input_name, inputs = images(path, batch)
    labels = np.random.default_rng(1).integers(0, CLASSES, batch)
    feeds: dict[str, Array] = {input_name: inputs, "labels": labels}
    source = load_model(path)
    plain = Session(source.model)
    bursts: dict[str, Burst] = {"inference": burst_of(partial(plain.run, {input_name: inputs}))}
    networks = []
    for engine in engines:
        network = TaylorPrunableNetwork(source, {"engine": engine})
        networks.append(network)
        bursts[engine] = burst_of(partial(network.update_score, feeds))
    with peer(path, inputs, labels) as torch_pruning:
        if torch_pruning is not None:
            bursts["Torch-Pruning"] = torch_pruning
        seconds = in_turns(bursts, rounds)
    for network in networks:
        network.close()

    def ratio(what: str) -> str:
        return f"{seconds[what] / seconds['inference']:.2f}" if what in seconds else "–"

    goal = f"≤ {GOALS[name]:g}" if name in GOALS else ""
    one = f"{seconds['inference']:.3f}"
    return [name, one, ratio("standard"), goal, ratio("ort-training"), ratio("Torch-Pruning")]


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(prog="benchmarks.speed.scoring", description=__doc__)
    parser.add_argument("networks", nargs="*", default=list(GOALS))
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--engines", nargs="+", default=["standard", "ort-training"])
    arguments = parser.parse_args()
    rows = []
    for name in arguments.networks:
        rows.append(row(name, arguments.batch, arguments.rounds, arguments.engines))
        print(" | ".join(rows[-1]), flush=True)
    print(f"\nTorch-Pruning should take at least {PEER_GOAL} times `standard`.\n")
    print(markdown_table(HEADER, rows))


if __name__ == "__main__":
    main()
