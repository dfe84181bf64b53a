"""The commands: each reads its arguments, calls one function of the library, prints the result."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from functools import reduce
from pathlib import Path
from typing import Annotated

import typer

from graph_ops.by_hand import cut_channels
from graph_ops.cli import display
from graph_ops.cli.bundles import bundle_app
from graph_ops.cli.exits import exit_on_error
from graph_ops.cli.flags import read_object, with_option_flags
from graph_ops.cli.outputs import check_output
from graph_ops.engines.catalog import engine_statuses
from graph_ops.errors import OptionsError
from graph_ops.from_scores import cut_from_scores, merge_states
from graph_ops.inspection import describe_channels, inspect_model
from graph_ops.options import PruneOptions
from graph_ops.pruning import prune as prune_model
from graph_ops.pruning import score as score_model
from graph_ops.result import PruneResult
from graph_ops.scores import ScoreState
from graph_ops.version import TOOL, VERSION

app = typer.Typer(
    name=TOOL,
    help="Makes trained convolutional networks smaller: filter pruning of bare ONNX files.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)
app.add_typer(bundle_app, name="bundle")

ModelPath = Annotated[
    Path, typer.Argument(metavar="MODEL", help="`.onnx`, or a `.zip` of one and its data files.")
]
BundlePath = Annotated[
    Path, typer.Argument(metavar="BUNDLE", help="Calibration data: docs/bundles.md.")
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress bars.")]
ReadOptions = Callable[[], PruneOptions]


def _print_version(is_asked: bool) -> None:
    if is_asked:
        display.print_line(f"{TOOL} {VERSION}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print it and exit."
        ),
    ] = False,
) -> None:
    """Filter pruning of trained convolutional networks, on bare ONNX files."""


@app.command()
@with_option_flags
def prune(
    model: ModelPath,
    bundle: BundlePath,
    out: Annotated[Path, typer.Option("--out", "-o", help="Where the pruned model goes.")],
    report: Annotated[Path | None, typer.Option(help="Write the JSON report here.")] = None,
    report_html: Annotated[
        Path | None, typer.Option(help="Write the report as a page for a browser here.")
    ] = None,
    scores_out: Annotated[
        Path | None, typer.Option(help="Write the scores here, for another run.")
    ] = None,
    scores: Annotated[
        Path | None,
        typer.Option(help="Scores of an earlier run; the first round then needs no scoring."),
    ] = None,
    points_out: Annotated[
        Path | None, typer.Option(help="Folder for the models of a run with --points.")
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the JSON report instead of a table.")
    ] = False,
    quiet: Quiet = False,
    *,
    read_options: ReadOptions,
) -> None:
    """Drop the filters that matter least, prove the result, and write it."""
    with exit_on_error():
        options = read_options()
        check_output("--out", out, model, bundle, scores)
        check_output("--report", report, model, bundle, scores, out)
        check_output("--report-html", report_html, model, bundle, scores, out, report)
        check_output("--scores-out", scores_out, model, bundle, out, report, report_html)
        if scores_out is not None and not options.criterion.needs_gradients:
            raise OptionsError(
                f"--scores-out: criterion {options.criterion.value!r} takes no scores from a "
                "bundle, so there are none to write.",
                field="scores_out",
            )
        state = None if scores is None else ScoreState.load(scores)
        with display.progress_bars(is_quiet=quiet) as progress:
            result = prune_model(model, bundle, options, progress=progress, scores=state)
            written = result.write_model(out)
        if points_out is not None:
            _write_points(points_out, result)
        if scores_out is not None:
            result.write_scores(scores_out)
        if report is not None:
            report.write_text(json.dumps(result.report, indent=2) + "\n", encoding="utf-8")
        if report_html is not None:
            result.write_html(report_html, model.name)
        if as_json:
            display.print_json(result.report)
        else:
            display.print_result(result.report)
            display.print_line(f"wrote {written}")


@app.command()
@with_option_flags
def cut(
    model: ModelPath,
    out: Annotated[Path, typer.Option("--out", "-o", help="Where the smaller model goes.")],
    channels: Annotated[
        str | None,
        typer.Option(
            metavar="JSON|@FILE",
            help='`{"drop": {"conv1": [0, 3]}}` or `{"keep": {...}}`, by names of convolutions.',
        ),
    ] = None,
    replay: Annotated[
        Path | None, typer.Option(help="A report of a model of the same graph: keep what it kept.")
    ] = None,
    scores: Annotated[
        list[Path] | None,
        typer.Option(help="Saved scores to cut by, added up; may be given more than once."),
    ] = None,
    bundle: Annotated[
        Path | None, typer.Option(help="Samples for the proof, recovery and the metric.")
    ] = None,
    report: Annotated[Path | None, typer.Option(help="Write the JSON report here.")] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the JSON report instead of a table.")
    ] = False,
    *,
    read_options: ReadOptions,
) -> None:
    """Drop channels that you name, that a report dropped, or that saved scores rank lowest.

    Without a bundle the proof is made on random inputs and the weights stay as they are.
    """
    with exit_on_error():
        options = read_options()
        files = scores or []
        if sum((channels is not None, replay is not None, bool(files))) != 1:
            raise OptionsError("Give exactly one of --channels, --replay and --scores.")
        check_output("--out", out, model, bundle, replay, *files)
        check_output("--report", report, model, bundle, replay, out)
        if files:
            state = merge_states(files)
            result = (
                cut_from_scores(model, state, options)
                if bundle is None
                else prune_model(model, bundle, options, scores=state)
            )
        else:
            lists = (
                {"report": read_object(f"@{replay}")} if channels is None else read_object(channels)
            )
            result = cut_channels(model, lists, bundle, options)
        written = result.write_model(out)
        if report is not None:
            report.write_text(json.dumps(result.report, indent=2) + "\n", encoding="utf-8")
        if as_json:
            display.print_json(result.report)
        else:
            display.print_result(result.report)
            display.print_line(f"wrote {written}")


@app.command()
def inspect(
    model: ModelPath,
    channels: Annotated[
        bool,
        typer.Option("--channels", help="Also which filters go together, and what is frozen."),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")] = False,
) -> None:
    """Say what a model is and which of its filters can be dropped."""
    with exit_on_error():
        facts = inspect_model(model)
        described = describe_channels(model) if channels else None
        if as_json:
            display.print_json(facts if described is None else {**facts, "channels": described})
            return
        display.print_model(facts)
        if described is not None:
            display.print_channels(described)


@app.command()
@with_option_flags
def score(
    out: Annotated[Path, typer.Option("--out", "-o", help="Where the scores go, as `.npz`.")],
    model: Annotated[
        Path | None,
        typer.Argument(metavar="MODEL", help="`.onnx`, or a `.zip` of one and its data files."),
    ] = None,
    bundle: Annotated[
        Path | None,
        typer.Argument(metavar="BUNDLE", help="Calibration data: docs/bundles.md."),
    ] = None,
    merge: Annotated[
        list[Path] | None,
        typer.Option(help="Scores of the same model to add; may be given more than once."),
    ] = None,
    quiet: Quiet = False,
    *,
    read_options: ReadOptions,
) -> None:
    """Take scores without dropping anything, add scores taken elsewhere, and write the sum.

    `score MODEL BUNDLE -o S` takes scores; `score --merge A --merge B -o S` adds up two files of
    them; both together do both.
    """
    with exit_on_error():
        options = read_options()
        files = merge or []
        if (model is None) != (bundle is None):
            raise OptionsError("MODEL and BUNDLE go together: give both, or neither and --merge.")
        if model is None and not files:
            raise OptionsError("There is nothing to score: give MODEL and BUNDLE, or --merge.")
        check_output("--out", out, model, bundle)
        states = [ScoreState.load(path) for path in files]
        if model is not None and bundle is not None:
            with display.progress_bars(is_quiet=quiet) as progress:
                states.append(score_model(model, bundle, options, progress=progress))
        total = reduce(ScoreState.merge, states)
        total.save(out)
        display.print_line(
            f"wrote {out}: scores of {len(total.sum_abs)} filter classes over "
            f"{total.samples} samples"
        )


@app.command()
def engines(as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """Say which gradient engines work here, on which device, and why one does not."""
    with exit_on_error():
        statuses = engine_statuses()
        if as_json:
            display.print_json([asdict(status) for status in statuses])
        else:
            display.print_engines(statuses)


def _write_points(folder: Path, result: PruneResult) -> None:
    """Every point of a curve with its report: `01.onnx`, `01.json` and so on."""
    folder.mkdir(exist_ok=True)
    for number, point in enumerate(result.points, start=1):
        (folder / f"{number:02d}.onnx").write_bytes(point.model)
        text = json.dumps(point.report, indent=2) + "\n"
        (folder / f"{number:02d}.json").write_text(text, encoding="utf-8")
