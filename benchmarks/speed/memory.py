"""Peak memory of scoring, beside the activations that must live until the backward pass.

    python -m benchmarks.speed.memory [NETWORK ...] [--batch 8]

What must live are the values that the forward part computes and the backward part reads, as the
scoring graph has them: of the whole batch, and of the samples that are scored side by side. What is
measured is how far the process grows from the loaded graph to its peak. Each network has a process
of its own.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx_ir as ir
import psutil

from benchmarks.speed.networks import exported, images
from benchmarks.speed.scoring import GOALS
from benchmarks.tables import markdown_table
from graph_ops.engines.backward import append_backward
from graph_ops.engines.base import ScoringGraph
from graph_ops.engines.reduction import plan_reduction, values_by_name
from graph_ops.engines.standard import StandardEngine
from graph_ops.loss import TARGET_INPUT
from graph_ops.model import load_model
from graph_ops.network import TaylorPrunableNetwork
from graph_ops.providers import thread_count

MIB = 2**20
GOAL = 1.5


def living_bytes(graph: ScoringGraph, batch: int) -> int:
    """Bytes of the forward part's values that the backward part, or a score, reads."""
    plan = plan_reduction(graph)
    values = values_by_name(plan.model)
    forward = set(plan.model.graph)
    wanted = [values[name] for name in plan.wanted]
    append_backward(plan.model, plan.shapes, values[plan.loss], wanted)
    read = {
        value for node in plan.model.graph if node not in forward for value in node.inputs if value
    }
    living = {v for v in (*read, *wanted) if v.producer() in forward}
    return sum(_bytes(v, plan.shapes[str(v.name)], batch) for v in living)


def _bytes(value: ir.Value, dims: tuple[int | None, ...], batch: int) -> int:
    itemsize = 4 if value.dtype is None else value.dtype.itemsize
    return int(math.prod(batch if d is None else d for d in dims) * itemsize)


def measure(name: str, batch: int) -> dict[str, float]:
    """MiB that live, and that the process grew by."""
    path = exported(name)
    input_name, inputs = images(path, batch)
    labels = np.zeros(batch, np.int64)
    network = TaylorPrunableNetwork(load_model(path))
    network.update_score({input_name: inputs[:1], "labels": labels[:1]})
    graph = network.scorer.graph
    assert graph is not None
    session = StandardEngine().open(graph)
    session.load(batch)
    together = min(batch, thread_count() * session.piece_length(batch))
    before = resident()
    session.contributions({input_name: inputs, TARGET_INPUT: labels})
    grown = peak() - before
    sample = living_bytes(graph, 1)
    return {
        "batch": sample * batch / MIB,
        "together": sample * together / MIB,
        "grown": grown / MIB,
    }


def resident() -> int:
    """Bytes in use now; the kernel's peak starts again from them."""
    ctypes.CDLL(None).malloc_trim(0)  # what loading left free would hide what scoring takes
    Path("/proc/self/clear_refs").write_text("5")
    return psutil.Process().memory_info().rss


def peak() -> int:
    """Bytes in use at most since `resident` was asked."""
    status = Path("/proc/self/status").read_text()
    line = next(line for line in status.splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(prog="benchmarks.speed.memory", description=__doc__)
    parser.add_argument("networks", nargs="*", default=list(GOALS))
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--inner", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.inner:
        print(json.dumps(measure(arguments.networks[0], arguments.batch)))
        return
    rows = []
    for name in arguments.networks:
        command = [sys.executable, "-m", "benchmarks.speed.memory", name, "--inner"]
        command += ["--batch", str(arguments.batch)]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        facts = json.loads(done.stdout)
        ratios = [f"{facts['grown'] / facts[of]:.2f}" for of in ("batch", "together")]
        rows.append([name, *(f"{facts[of]:.0f}" for of in facts), *ratios])
    header = ["must live, MiB", "side by side, MiB", "grown by, MiB"]
    header += [f"grown / must live (≤ {GOAL})", "grown / side by side"]
    print(markdown_table(["network", *header], rows))


if __name__ == "__main__":
    main()
