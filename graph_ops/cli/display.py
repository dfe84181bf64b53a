"""Progress bars on stderr, tables on stdout."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.progress import Progress as Bars
from rich.table import Table

from graph_ops.engines.catalog import EngineStatus
from graph_ops.progress import Progress, ProgressCallback


@contextmanager
def progress_bars(*, is_quiet: bool) -> Iterator[ProgressCallback]:
    """A callback that draws one bar per phase; nothing when stderr is not a terminal."""
    console = Console(stderr=True)
    bars = Bars(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=console,
        disable=is_quiet or not console.is_terminal,
    )
    tasks: dict[str, TaskID] = {}

    def show(progress: Progress) -> None:
        phase = progress.phase
        if phase not in tasks:
            for task in bars.tasks:
                bars.update(task.id, completed=task.total)
            tasks[phase] = bars.add_task(phase, total=progress.total)
        label = f"{phase} ({progress.message})" if progress.message else phase
        bars.update(tasks[phase], completed=progress.done, total=progress.total, description=label)

    with bars:
        yield show


def print_json(document: dict[str, Any] | list[dict[str, Any]]) -> None:
    """A document on stdout, as JSON."""
    print(json.dumps(document, indent=2))


def print_result(report: dict[str, Any]) -> None:
    """What a pruning run changed, in a table."""
    filters, metric, proof = report["filters"], report["metric"], report["proof"]
    before, after = report["cost"]["before"], report["cost"]["after"]
    table = _table("", "before", "after", "left")
    table.add_row("filters", *_change(filters["before"], filters["after"]))
    table.add_row("parameters", *_change(before["parameters"], after["parameters"]))
    table.add_row("MACs", *_change(before["macs"], after["macs"]))
    table.add_row("bytes", *_change(before["bytes"], after["bytes"]))
    batch = before["latency_batch"]
    table.add_row(
        f"latency, ms at batch {batch}",
        *_change(before["latency_ms"], after["latency_ms"], digits=3),
    )
    if metric["name"] is not None:
        table.add_row(
            f"{metric['name']}, {metric['samples']} held out",
            *(_number(metric[side], 4) for side in ("before", "after")),
            "",
        )
    _console().print(table)
    print_line(
        f"proof: largest relative difference {proof['max_rel_diff']:.1e} from the masked original "
        f"(limit {proof['tolerance']:.0e}, {proof['samples']} "
        f"{'random inputs' if proof['inputs'] == 'random' else 'samples'})"
    )
    print_line(f"stopped: {report['stop_reason']}")
    if report["curve"] is not None:
        _console().print(_curve_table(report))
    elif report["goal"] is not None and report["goal"].get("note"):
        print_line(report["goal"]["note"])


def _curve_table(report: dict[str, Any]) -> Table:
    """The points of a curve."""
    columns = ("point", "MACs", "parameters", "bytes", "latency, ms", report["metric"]["name"])
    table = _table(*columns)
    for entry in report["curve"]:
        sizes = (_number(entry[name], 0) for name in ("macs", "parameters", "bytes"))
        table.add_row(
            str(entry["point"]),
            *sizes,
            _number(entry["latency_ms"], 3),
            _number(entry["metric"], 4),
        )
    return table


def print_model(facts: dict[str, Any]) -> None:
    """What a model is, in a table."""
    table = Table(show_header=False)
    for name in ("fact", "value"):
        table.add_column(name, overflow="fold")
    for name, value in facts.items():
        if name in ("inputs", "outputs"):
            for port in value:
                shape = " × ".join(str(d) for d in port["shape"])
                table.add_row(name[:-1], f"{port['name']}: {port['dtype']} [{shape}]")
        elif isinstance(value, dict):
            table.add_row(name.replace("_", " "), json.dumps(value))
        else:
            table.add_row(name.replace("_", " "), _number(value, 0))
    _console().print(table)


def print_bundle(facts: dict[str, Any]) -> None:
    """What a bundle was made of."""
    images = facts["images"]
    if images is not None:
        print_line(f"preprocessing: {json.dumps(images['preprocessing'])}")
        if images["classes"] is not None:
            print_line(f"classes: {', '.join(images['classes'])}")
        for name in images["skipped"]:
            print_line(f"skipped: {name}")
    for array in facts["arrays"]:
        shape = " × ".join(str(d) for d in array["shape"])
        print_line(f"{array['name']}: {array['dtype']} [{shape}]")
    print_line(f"wrote {facts['bundle']}")


def print_channels(channels: dict[str, Any]) -> None:
    """The classes of filters that go together, and what is frozen and why, in two tables."""
    console = _console()
    blocks = _table("convolutions", "classes", "MACs each", "parameters each")
    blocks.title, blocks.show_lines = "Prunable", True
    for block in channels["blocks"]:
        names = [c["name"] for c in block["convolutions"]] + block["followers"]
        saved = block["saves_per_class"]
        blocks.add_row(
            "\n".join(names),
            _number(block["classes"], 0),
            _number(saved["macs"], 0),
            _number(saved["parameters"], 0),
        )
    console.print(blocks)
    if channels["frozen"]:
        frozen = Table(title="Left alone", title_justify="left")
        for column in ("convolution", "filters", "why"):
            frozen.add_column(column, overflow="fold")
        for entry in channels["frozen"]:
            count = f"{entry['filters']} of {entry['of']}"
            frozen.add_row(entry["convolution"], count, "\n".join(entry["reasons"]))
        console.print(frozen)


def print_engines(statuses: Sequence[EngineStatus]) -> None:
    """The gradient engines, in a table."""
    table = Table()
    for column in ("engine", "works", "runtime", "device", "remarks"):
        table.add_column(column, overflow="fold")
    for status in statuses:
        works = "yes" if status.works else "no"
        runtime, device = status.version or "", status.device or ""
        table.add_row(status.name, works, runtime, device, status.reason or "")
    _console().print(table)


def print_line(text: str) -> None:
    """A line on stdout, neither wrapped nor coloured."""
    print(text)


def _console() -> Console:
    """Names in a model may look like rich's markup or emoji codes: they are printed as they are."""
    return Console(markup=False, emoji=False, highlight=False)


def _table(first: str, *numbers: str) -> Table:
    """A table whose first column is text and whose others are numbers."""
    table = Table(title_justify="left")
    table.add_column(first, overflow="fold")
    for column in numbers:
        table.add_column(column, justify="right")
    return table


def _change(before: float | None, after: float | None, digits: int = 0) -> tuple[str, str, str]:
    left = f"{after / before:.1%}" if before and after is not None else ""
    return _number(before, digits), _number(after, digits), left


def _number(value: Any, digits: int) -> str:
    if value is None:
        return "unknown"
    return f"{value:,.{digits}f}" if isinstance(value, int | float) else str(value)
