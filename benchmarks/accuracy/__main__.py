"""Accuracy after pruning without training, at five sizes of six trained networks.

    make peers
    python -m benchmarks.accuracy [--networks NAME ...] [--parts methods peers defaults]

It takes an hour or more on two cores, so `python -m benchmarks` leaves it out. What was measured
is kept in `build/accuracy`, so that a rerun goes on where it stopped; `--no-runs` prints what is
there. docs/accuracy.md has the tables.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from benchmarks.accuracy import networks, ours, peers
from benchmarks.accuracy.results import FOLDER, Measured, Results
from benchmarks.tables import markdown_table
from benchmarks.tasks import Task

TARGETS = (0.9, 0.8, 0.7, 0.6, 0.5)
DEFAULTS_TARGETS = (0.7, 0.5)
ALLOWED_LOSS = {0.7: 0.01, 0.5: 0.03}
"""What `reconstruct` may lose against the original: the goal."""
PARTS = ("methods", "peers", "defaults")
NOT_MEASURED = "–"

Rows = dict[str, list[Measured | None]]


def method_rows(task: Task, results: Results) -> Rows:
    """This product's, at every target."""
    return {name: ours.row(task, name, TARGETS, results) for name in ours.METHODS}


def peer_rows(task: Task, results: Results) -> Rows:
    """The other pruners', at every target."""
    return {peer.label: peers.measured(task, peer, TARGETS, results) for peer in peers.PEERS}


def default_rows(task: Task, results: Results) -> Rows:
    """What defaults are chosen from, with `reconstruct`."""
    return {
        name: [ours.measured(task, options, t, results) for t in DEFAULTS_TARGETS]
        for name, options in ours.default_rows().items()
    }


def table(rows: Rows, targets: tuple[float, ...], first: str) -> str:
    """Accuracies in percent, a column a target."""
    cells = [
        [
            name,
            *(NOT_MEASURED if m is None else m.cell(t) for m, t in zip(row, targets, strict=True)),
        ]
        for name, row in rows.items()
    ]
    return markdown_table([first, *(f"MACs {t}" for t in targets)], cells)


def defaults_table(rows: Rows) -> str:
    """For every target the accuracy a default is chosen by, and beside it the hold-out's."""
    header = ["normalization, rank_by, steps"]
    for target in DEFAULTS_TARGETS:
        header += [f"MACs {target}, other training images", f"{target}, hold-out"]
    cells = [[name, *(c for m in row for c in choice_cells(m))] for name, row in rows.items()]
    return markdown_table(header, cells)


def choice_cells(found: Measured | None) -> list[str]:
    """Accuracy on the images to choose by, and on the hold-out, in percent."""
    shares = [None, None] if found is None else [found.to_choose_by, found.accuracy]
    return [NOT_MEASURED if share is None else f"{100 * share:.1f}" for share in shares]


def findings(original: float, rows: Rows, peer_results: Rows) -> list[str]:
    """Where the goals hold and where not: the loss at 0.7 and 0.5, and peers that are not beaten.

    A peer's network counts where it leaves no more MACs than asked for.
    """
    refitted = [name for name in (ours.RECONSTRUCT, ours.BY_SCORE) if name in rows]
    return [
        line
        for name in refitted
        for target, result in zip(TARGETS, rows[name], strict=True)
        if result is not None and result.accuracy is not None
        for line in findings_at(target, name, result.accuracy, original, peer_results)
    ]


def findings_at(
    target: float, name: str, accuracy: float, original: float, peer_results: Rows
) -> list[str]:
    """The same of one network."""
    lines = []
    if target in ALLOWED_LOSS:
        lost = original - accuracy
        verdict = "holds" if lost <= ALLOWED_LOSS[target] + 1e-9 else "does not hold"
        allowed = f"at most {100 * ALLOWED_LOSS[target]:.0f} {verdict}"
        lines.append(f"{name} at {target}: {100 * lost:.1f} points lost; {allowed}.")
    for label, row in peer_results.items():
        other = row[TARGETS.index(target)]
        if other is None or other.accuracy is None or not other.reaches(target):
            continue
        if other.accuracy >= accuracy:
            lines.append(
                f"{name} at {target}: {100 * accuracy:.1f}; {label} has {100 * other.accuracy:.1f}."
            )
    return lines


def print_network(task: Task, parts: list[str], results: Results) -> None:
    """The tables of one network."""
    original = task.accuracy(task.model)
    print(f"## {task.name}\n\nOriginal: {100 * original:.1f} % of {len(task.test_labels)}.\n")
    rows = method_rows(task, results) if "methods" in parts else {}
    others = peer_rows(task, results) if "peers" in parts else {}
    if rows or others:
        print(table({**rows, **others}, TARGETS, "method"), end="\n\n", flush=True)
    if rows:
        print("\n".join(f"* {line}" for line in findings(original, rows, others)), end="\n\n")
    if "defaults" in parts:
        whole = task.accuracy_to_choose_by(task.model)
        if whole is not None:
            print(f"Original on other training images: {100 * whole:.1f} %.\n")
        print(defaults_table(default_rows(task, results)), end="\n\n", flush=True)


def main() -> None:
    """Print the tables of every network."""
    parser = argparse.ArgumentParser(prog="benchmarks.accuracy", description=__doc__)
    parser.add_argument("--networks", nargs="+", choices=networks.NAMES, default=networks.NAMES)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--shared", type=Path, default=networks.SHARED, help="folder of the data")
    parser.add_argument("--results", type=Path, default=FOLDER, help="folder to keep results in")
    parser.add_argument("--no-runs", action="store_true", help="print only what was measured")
    arguments = parser.parse_args()
    results = Results(arguments.results, measures=not arguments.no_runs)
    is_complete = True
    for name in arguments.networks:
        try:
            task = networks.network(name, arguments.shared)
        except FileNotFoundError as error:
            print(f"## {name}\n\nNot measured: {error}\n", flush=True)
            is_complete = False
            continue
        print_network(task, list(arguments.parts), results)
    if not is_complete:
        sys.exit(
            "Some networks were not measured: see above; --shared names the folder of the data, "
            "and `make mnist` brings the digits'."
        )


if __name__ == "__main__":
    main()
