"""The goals of docs/goals.md on trained networks and on large ones: cost, sharpness, truth.

    python -m benchmarks.goals metric [NETWORK ...] [--samples N]     max_metric_drop 0.01
    python -m benchmarks.goals curve [NETWORK ...]      ten points against ten steps
    python -m benchmarks.goals latency MODEL [...]      max_latency_ratio 0.6 of ONNX files

Networks are those of the accuracy benchmark. `--samples` of a training set are sent, 30 % of which
are held out; what is called unseen (10,000 digits of MNIST's test set, 4,000 images of CIFAR-10's)
is never sent to `prune`. `latency` is measured again in another process and by other
code; with ORT_THREADS=1 both take processor time, which other programs disturb less.
"""

from __future__ import annotations

import argparse
import io
import itertools
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import onnxruntime as ort

from benchmarks.accuracy.networks import CALIBRATION, network
from benchmarks.tables import markdown_table
from benchmarks.tasks import EVERY_FILTER, Task
from graph_ops import prune
from graph_ops.checkpoint import SavedRun
from graph_ops.goals.drop_search import ROUNDING
from graph_ops.goals.ranking import Ranking
from graph_ops.metrics import Examiner, choose_metric
from graph_ops.options import parse_options
from graph_ops.providers import thread_count
from graph_ops.recovery import Originals
from graph_ops.result import PruneResult
from graph_ops.run import Run, opened
from graph_ops.scores import ScoreState
from graph_ops.selection import Goal

NETWORKS = ("digits", "cifar10_residual", "cifar10_depthwise", "vgg_cifar10", "vgg_cifar10_bn")
DROP = 0.01
GRID = (0.03, 0.045, 0.06, 0.075, 0.09, 0.12)
"""How much smaller, in shares of the MACs, the sizes are that should not be within the drop."""
SMALLEST_SHARE = 0.02
LATENCY_RATIO = 0.6
POINTS = 10
CURVE_END = 0.3
AGAIN_TURNS = 16
SAMPLES = 32
"""Random samples for networks that are only timed."""


def timed_prune(
    task: Task, options: dict[str, Any], scores: ScoreState | None = None
) -> tuple[PruneResult, float]:
    """A result and its processor time, which other programs disturb less than the clock."""
    start = time.process_time()
    result = prune(task.model, task.bundle(), {**EVERY_FILTER, **options}, scores=scores)
    return result, time.process_time() - start


def share_of(report: dict[str, Any]) -> float:
    """Share of the MACs that is left."""
    return float(report["cost"]["after"]["macs"] / report["cost"]["before"]["macs"])


def smaller_sizes(task: Task, share: float, scores: ScoreState | None) -> Iterator[str]:
    """What runs to smaller shares of the MACs come to, in points: drop / estimate (unseen).

    Layers are measured once for all of them. A run with `max_macs_ratio` cuts the same filters of
    the same ranking, refits them in the same way, and holds the same samples out.
    """
    whole = task.accuracy(task.model)
    run = Run(parse_options({**EVERY_FILTER, "target": {"max_metric_drop": DROP}}))
    with opened(run, task.model, task.bundle(), None, None) as parts:
        network, dataset = parts.network, parts.dataset
        metric = choose_metric(run.options, network.judgement)
        examiner = Examiner(network.source.model, dataset, metric)
        ranking = Ranking(run, network, dataset, SavedRun(None, "", 0), scores)
        network.originals = Originals()
        macs = network.cost.totals(np.zeros_like(network.dropped))[0]
        for number, step in enumerate(GRID, start=1):
            if share - step <= SMALLEST_SHARE:
                return
            ranking.set_to(Goal(macs=(share - step) * macs))
            run.recover(network, dataset, number, is_interim=False)
            model = network.to_ir()
            found = examiner.examine(model)
            drops = (found.drop, found.estimate_drop(DROP / 2))
            unseen = whole - task.accuracy(ir.to_proto(model).SerializeToString())
            cell = f"{100 * drops[0]:.2f} / {100 * drops[1]:.2f}"
            is_within = found.drop <= DROP + ROUNDING
            yield f"{f'**{cell}**' if is_within else cell} ({100 * unseen:.2f})"


def metric_row(name: str, samples: int) -> list[str]:
    """The search against a single run to its own size, and smaller sizes on a grid."""
    task = network(name, samples=samples)
    found, spent = timed_prune(task, {"target": {"max_metric_drop": DROP}})
    goal = found.report["goal"]
    print(name, json.dumps(goal["trials"]), file=sys.stderr, flush=True)
    (share,) = {t["share"] for t in goal["trials"] if is_returned(t, goal)}
    unseen = task.accuracy(task.model) - task.accuracy(found.model)
    single = {"validation_fraction": 0.3, "target": {"max_macs_ratio": share + 1e-9}}
    again, alone = timed_prune(task, single)
    assert again.report["metric"]["after"] == found.report["metric"]["after"]
    recoveries = sum(t["kind"] == "full" for t in goal["trials"])
    row = [
        name,
        f"{100 * share_of(found.report):.1f}",
        f"{100 * goal['drop']:.2f} [{100 * goal['drop_low']:.2f}, {100 * goal['drop_high']:.2f}]",
        f"{100 * goal['estimate']:.2f}",
        f"{100 * unseen:.2f}",
        str(recoveries),
        f"{spent / alone:.2f}",
    ]
    print(" | ".join(row), file=sys.stderr, flush=True)
    smaller = []
    for cell in smaller_sizes(task, share, found.scores):
        smaller.append(cell)
        print(name, cell, file=sys.stderr, flush=True)
    return [*row, ", ".join(smaller)]


def is_returned(trial: dict[str, Any], goal: dict[str, Any]) -> bool:
    """Whether a trial of a report is the one whose model was returned."""
    return trial["kind"] == "full" and all(trial[k] == goal[k] for k in ("drop", "estimate"))


def curve_row(name: str, samples: int) -> list[str]:
    """A curve of ten points against one run of ten steps to the same end."""
    task = network(name, samples=samples)
    options = {"target": {"max_macs_ratio": CURVE_END}, "on_unreachable": "best"}
    curve, spent = timed_prune(task, options | {"points": POINTS})
    _, steps = timed_prune(task, options | {"steps": POINTS})
    points = curve.report["curve"]
    unseen = [100 * task.accuracy(point.model) for point in curve.points]
    rises = [max(0.0, b - a) for a, b in itertools.pairwise(unseen)]
    return [
        name,
        f"{spent / steps:.2f}",
        f"{max(p['max_rel_diff'] for p in points):.1e}",
        " ".join(f"{value:.1f}" for value in unseen),
        f"{max(rises):.2f}",
    ]


def latency_row(path: Path) -> list[str]:
    """A share of the latency, and the same measured again in a process of its own."""
    session = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    feed = session.get_inputs()[0]
    del session
    rng = np.random.default_rng(0)
    stream = io.BytesIO()
    images = rng.standard_normal((SAMPLES, *feed.shape[1:])).astype(np.float32)
    np.savez(stream, allow_pickle=False, **{feed.name: images})
    options = {
        "target": {"max_latency_ratio": LATENCY_RATIO},
        "criterion": "magnitude_l2",
        "recovery": "none",
        "batch_size": 8,
        "validation_fraction": 0.0,
    }
    result = prune(path, stream.getvalue(), options)
    with tempfile.TemporaryDirectory() as folder:
        smaller = result.write_model(Path(folder) / "smaller.onnx")
        command = [sys.executable, "-m", "benchmarks.goals", "again", str(path), str(smaller)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    before, after = json.loads(done.stdout)
    goal = result.report["goal"]
    print(path.stem, json.dumps(goal["trials"]), file=sys.stderr, flush=True)
    return [
        path.stem,
        f"{goal['ratio']:.3f}",
        f"{before:.1f}",
        f"{after:.1f}",
        f"{after / before:.3f}",
        f"{100 * (after / before / LATENCY_RATIO - 1):+.1f}",
        f"{100 * share_of(result.report):.1f}",
        str(len(goal["trials"])),
    ]


def latency_again(paths: Sequence[str]) -> list[float]:
    """Milliseconds of a run of each model: lower quartile of blocks of runs, in turns."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = thread_count()
    clock = time.thread_time if thread_count() == 1 else time.perf_counter
    sessions = [
        ort.InferenceSession(path, options, providers=["CPUExecutionProvider"]) for path in paths
    ]
    feed = sessions[0].get_inputs()[0]
    sample = np.random.default_rng(1).standard_normal((1, *feed.shape[1:])).astype(np.float32)
    times: list[list[float]] = [[] for _ in sessions]
    for _ in range(AGAIN_TURNS):
        for session, own in zip(sessions, times, strict=True):
            session.run(None, {feed.name: sample})
            for _ in range(2):
                start = clock()
                session.run(None, {feed.name: sample})
                own.append((clock() - start) * 1e3)
    return [float(np.quantile(own, 0.25)) for own in times]


TABLES = {
    "metric": (
        [
            "network",
            "MACs left, %",
            "drop on the hold-out, points [95 %]",
            "estimated drop, points",
            "drop on unseen data, points",
            "recoveries",
            "cost, in single runs",
            "drop / estimate (unseen) at 3, 4.5, 6, 7.5, 9, 12 % of the MACs less",
        ],
        metric_row,
    ),
    "curve": (
        [
            "network",
            "cost, in ten-step runs",
            "largest proof difference",
            "accuracy of the ten points on unseen data, %",
            "largest rise, points",
        ],
        curve_row,
    ),
}


def main() -> None:
    """Print a table, a row as soon as it is there."""
    parser = argparse.ArgumentParser(prog="benchmarks.goals", description=__doc__)
    parser.add_argument("what", choices=[*TABLES, "latency", "again"])
    parser.add_argument("names", nargs="*")
    parser.add_argument("--samples", type=int, default=CALIBRATION)
    arguments = parser.parse_intermixed_args()
    if arguments.what == "again":
        print(json.dumps(latency_again(arguments.names)))
        return
    if arguments.what == "latency":
        header = [
            "network",
            "ratio in the report",
            "before, ms",
            "after, ms",
            "ratio again",
            "off the goal, %",
            "MACs left, %",
            "trials",
        ]
        rows = [latency_row(Path(name)) for name in arguments.names]
    else:
        header, row_of = TABLES[arguments.what]
        rows = []
        for name in arguments.names or NETWORKS:
            rows.append(row_of(name, arguments.samples))
            print(" | ".join(rows[-1]), flush=True)
    print(markdown_table(header, rows))


if __name__ == "__main__":
    main()
