"""Which operators a scoring spends its time in, beside those of a plain inference.

    python -m benchmarks.speed.operators [NETWORK ...]

By ONNX Runtime's profiler, of one sample in one thread, as samples are scored side by side. Each
type's share of one plain inference: 1.00 is as long as that takes. Names are those of the graph
that ONNX Runtime makes of the model.
"""

from __future__ import annotations

import argparse

import numpy as np

from benchmarks.speed.networks import exported, images
from benchmarks.speed.scoring import CLASSES, GOALS
from benchmarks.tables import markdown_table
from graph_ops.engines.batch_size import with_batch_size
from graph_ops.engines.standard import StandardEngine
from graph_ops.loss import TARGET_INPUT
from graph_ops.model import load_model
from graph_ops.network import TaylorPrunableNetwork
from graph_ops.profiling import operator_times
from graph_ops.runtime import Array

SHOWN = 8


def table(name: str) -> str:
    """The types that take longest in a scoring."""
    path = exported(name)
    input_name, inputs = images(path, 1)
    labels = np.random.default_rng(1).integers(0, CLASSES, 1)
    network = TaylorPrunableNetwork(load_model(path))
    network.update_score({input_name: inputs, "labels": labels})
    graph = network.scorer.graph
    assert graph is not None
    feeds: dict[str, Array] = {input_name: inputs}
    inference = with_batch_size(network.source.model, 1)
    scored = with_batch_size(StandardEngine().build(graph).model, 1)
    plain = {t.op_type: t for t in operator_times(inference, feeds, budget_s=3, threads=1)}
    scoring = operator_times(scored, {**feeds, TARGET_INPUT: labels}, budget_s=3, threads=1)
    whole = sum(t.ms for t in plain.values())
    rows = []
    for found in scoring[:SHOWN]:
        own = plain.get(found.op_type)
        before = ["–", "–"] if own is None else [str(own.nodes), f"{own.ms / whole:.2f}"]
        rows.append([found.op_type, *before, str(found.nodes), f"{found.ms / whole:.2f}"])
    rest = sum(t.ms for t in scoring[SHOWN:])
    rows.append(
        ["others", "", "", str(sum(t.nodes for t in scoring[SHOWN:])), f"{rest / whole:.2f}"]
    )
    total = f"{sum(t.ms for t in scoring) / whole:.2f}"
    rows.append(["all", str(sum(t.nodes for t in plain.values())), "1.00", "", total])
    header = ["operator", "in inference", "its time", "in scoring", "their time"]
    return f"{name}:\n\n{markdown_table(header, rows)}\n"


def main() -> None:
    """Print a table for each network."""
    parser = argparse.ArgumentParser(prog="benchmarks.speed.operators", description=__doc__)
    parser.add_argument("networks", nargs="*", default=list(GOALS))
    arguments = parser.parse_args()
    for name in arguments.networks:
        print(table(name), flush=True)


if __name__ == "__main__":
    main()
