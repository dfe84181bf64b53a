"""The command line: flags are the options, output is the library's, exit codes hold."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from enum import Enum
from pathlib import Path
from typing import Literal, get_args, get_origin

import numpy as np
import onnx
import pytest
from pydantic import BaseModel
from typer.testing import CliRunner, Result

from graph_ops import errors
from graph_ops.cli import app, commands, exits
from graph_ops.cli.flags import Flag, flags
from graph_ops.options import LatencyTable, LayerLatency, PruneOptions, Target
from graph_ops.preprocessing import Preprocessing
from graph_ops.pruning import prune
from graph_ops.report_page import render_report
from graph_ops.scores import ScoreState
from service.client.commands import SERVICE_FAILED
from tests.support.digits import BUNDLE, MODEL

DOCS = Path(__file__).parents[2] / "docs" / "cli.md"
FEW = ("--max-samples", "100")
"""Keeps a run short."""


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, [str(a) for a in arguments])


def succeed(*arguments: str | Path) -> Result:
    result = run(*arguments)
    assert result.exit_code == 0, result.output
    return result


def read_options(*arguments: str) -> PruneOptions:
    """The options a run with these flags used, as its report says them."""
    found: list[PruneOptions] = []

    def spy(model: Path, bundle: Path, options: PruneOptions, **_: object) -> None:
        found.append(options)
        raise errors.PrunerError("seen")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(commands, "prune_model", spy)
        result = run("prune", MODEL, BUNDLE, "-o", "unwritten.onnx", *arguments)
    assert found, result.output
    return found[0]


def doc_table(first_column: str) -> list[list[str]]:
    """Rows of the table of docs/cli.md whose header starts with a word."""
    blocks = re.findall(r"(?:^\|.*\|\n)+", DOCS.read_text(encoding="utf-8"), re.MULTILINE)
    for block in blocks:
        rows = [[c.strip() for c in line.strip("|").split("|")] for line in block.splitlines()]
        if rows[0][: len(first_column.split())] == first_column.split():
            return rows[2:]
    raise AssertionError(f"docs/cli.md has no table that starts with {first_column}")


# Flags -------------------------------------------------------------------------------------------


def option_fields() -> Iterator[tuple[tuple[str, ...], object, str]]:
    """Path, default and description of every field, read from the two models."""
    options = PruneOptions()
    for name, field in Target.model_fields.items():
        yield ("target", name), getattr(options.target, name), str(field.description)
    for name, field in PruneOptions.model_fields.items():
        if name != "target":
            yield (name,), getattr(options, name), str(field.description)


@pytest.mark.parametrize(("path", "default", "description"), list(option_fields()))
def test_every_option_is_a_flag_with_the_same_default_and_help(
    path: tuple[str, ...], default: object, description: str
) -> None:
    [flag] = [f for f in flags() if f.path == path]
    assert flag.name == "--" + path[-1].replace("_", "-")
    assert flag.default == default
    assert flag.help == " ".join(description.split())
    given = flag.parameter.default
    assert (tuple(given) if isinstance(given, list) else given) == default


@pytest.mark.parametrize("command", ["prune", "score"])
def test_help_lists_every_flag_with_its_default(command: str) -> None:
    # Wide enough that no name is cut short.
    env = {"COLUMNS": "500", "TERMINAL_WIDTH": "500", "NO_COLOR": "1", "TERM": "dumb"}
    shown = CliRunner().invoke(app, [command, "--help"], env=env).stdout
    entries = {entry.split()[0]: entry for entry in re.split(r"│ [ *] {0,2}(?=--)|│ (?=--)", shown)}
    for flag in flags():
        value = flag.default
        if value in (None, ()):
            assert "[default:" not in entries[flag.name]
        else:
            default = ", ".join(value) if isinstance(value, tuple) else value
            assert f"[default: {default}]" in entries[flag.name]


def test_flags_have_names_of_their_own() -> None:
    names = [f.name for f in flags()]
    assert len(names) == len(set(names))


def test_without_flags_the_options_are_the_defaults() -> None:
    assert read_options() == PruneOptions()


def sample(annotation: object) -> object:
    """A value of a field's type, other than most defaults."""
    arguments = get_args(annotation)
    if get_origin(annotation) is Literal:
        return arguments[-1]
    if get_origin(annotation) is tuple:
        return ("a*", "b")
    if LatencyTable in arguments:
        return LatencyTable(layers={"conv1": LayerLatency(outputs=(4, 20), ms=((1.0, 2.0),))})
    if Preprocessing in arguments:
        return Preprocessing(crop=28, channels="gray")
    if arguments:  # Annotated, or Optional
        return sample(arguments[0])
    if isinstance(annotation, type) and issubclass(annotation, Enum):
        return list(annotation)[-1]
    return {int: 3, float: 0.25, str: "name", bool: True}[annotation]  # type: ignore[index]


def as_text(value: object) -> str:
    return value.model_dump_json() if isinstance(value, BaseModel) else str(value)


@pytest.mark.parametrize("flag", flags(), ids=lambda f: f.name)
def test_every_flag_reaches_its_field(flag: Flag) -> None:
    value = sample(flag.field.annotation)
    typed = value if isinstance(value, tuple) else (value,)
    found = read_options(*(word for v in typed for word in (flag.name, as_text(v))))
    if len(flag.path) == 1:
        assert found == PruneOptions(**{flag.path[0]: value})
    else:
        assert found == PruneOptions(target=Target(**{flag.path[1]: value}))


def test_flags_override_options_and_a_target_flag_replaces_the_target(tmp_path: Path) -> None:
    file = tmp_path / "options.json"
    file.write_text('{"target": {"filters": 20}, "min_filters": 2, "seed": 5}')
    from_file = read_options("--options", f"@{file}")
    assert from_file == PruneOptions(target=Target(filters=20), min_filters=2, seed=5)
    mixed = read_options("--options", file.read_text(), "--max-params-ratio", "0.5", "--seed", "0")
    assert mixed == PruneOptions(target=Target(max_params_ratio=0.5), min_filters=2, seed=0)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--options", "{"), "Invalid JSON"),
        (("--options", "[1]", "--seed", "1"), "options"),
        (("--options", "@missing.json"), "missing.json"),
        (("--options", '{"nonsense": 1}'), "nonsense"),
        (("--min-filters", "0"), "min_filters"),
        (("--max-macs-ratio", "nan"), "max_macs_ratio"),
        (("--filters", "1", "--filter-ratio", "0.5"), "exactly one"),
        (("--steps", "2", "--filters-per-step", "1"), "not both"),
        (("--criterion", "random", "--scores-out", "s.npz"), "random"),
        (("--include", "nothing*"), "matches no convolution"),
        (("--report", "no/such/folder/r.json"), "no/such/folder"),
        (("--report", str(BUNDLE)), "different one"),
        (("--report-html", str(MODEL)), "different one"),
        (("--scores-out", "."), "folder"),
    ],
)
def test_wrong_options_exit_2_and_write_nothing(
    tmp_path: Path, arguments: tuple[str, ...], says: str
) -> None:
    out = tmp_path / "out.onnx"
    result = run("prune", MODEL, BUNDLE, "-o", out, *arguments)
    assert result.exit_code == exits.USAGE
    assert result.stderr.startswith("error[options_")
    assert says in result.stderr
    assert not out.exists()


def test_the_parser_exits_2_too() -> None:
    assert run("prune", MODEL).exit_code == exits.USAGE
    assert run("prune", MODEL, BUNDLE, "-o", "x", "--loss", "guess").exit_code == exits.USAGE


# Commands ----------------------------------------------------------------------------------------


def test_prune_writes_the_model_the_report_and_the_scores(tmp_path: Path) -> None:
    out, report, scores = (tmp_path / n for n in ("pruned.onnx", "report.json", "scores.npz"))
    page = tmp_path / "report.html"
    files = ("-o", out, "--report", report, "--report-html", page, "--scores-out", scores)
    result = succeed("prune", MODEL, BUNDLE, *files, *FEW)

    expected = prune(MODEL, BUNDLE, {"max_samples": 100})
    assert out.read_bytes() == expected.model
    written = json.loads(report.read_text())
    assert written["filters"] == {
        "before": 60,
        "after": 52,
        "prunable_before": 48,
        "prunable_after": 40,
    }
    assert written["convolutions"] == expected.report["convolutions"]
    assert page.read_text() == render_report(written, MODEL.name)
    assert expected.scores is not None
    np.testing.assert_array_equal(ScoreState.load(scores).sum_abs, expected.scores.sum_abs)

    rows = {line.split("│")[1].strip(): line for line in result.stdout.splitlines() if "│" in line}
    assert [c.strip() for c in rows["filters"].split("│")[2:5]] == ["60", "52", "86.7%"]
    cost = written["cost"]
    for row, name in (("parameters", "parameters"), ("MACs", "macs"), ("bytes", "bytes")):
        cells = [c.strip() for c in rows[row].split("│")[2:4]]
        assert cells == [f"{cost[side][name]:,}" for side in ("before", "after")]
    assert any(row.startswith("latency") for row in rows)
    assert any(row.startswith("accuracy, 10 held out") for row in rows)
    assert f"{written['proof']['max_rel_diff']:.1e}" in result.stdout
    assert "stopped: target_reached" in result.stdout
    assert f"wrote {out}" in result.stdout
    assert result.stderr == ""


def test_json_is_all_of_stdout(tmp_path: Path) -> None:
    result = succeed("prune", MODEL, BUNDLE, "-o", tmp_path / "p.onnx", "--json", *FEW)
    assert json.loads(result.stdout)["stop_reason"] == "target_reached"


def test_scores_of_one_run_serve_another_target(tmp_path: Path) -> None:
    scores, out = tmp_path / "s.npz", tmp_path / "p.onnx"
    succeed("score", MODEL, BUNDLE, "-o", scores, *FEW)
    reused = succeed(
        "prune", MODEL, BUNDLE, "-o", out, "--scores", scores, "--filters", "12", "--json", *FEW
    )
    fresh = prune(MODEL, BUNDLE, {"max_samples": 100, "target": {"filters": 12}})
    assert json.loads(reused.stdout)["convolutions"] == fresh.report["convolutions"]
    assert out.read_bytes() == fresh.model


def test_scores_add_up(tmp_path: Path) -> None:
    a, b, both, again = (tmp_path / f"{n}.npz" for n in ("a", "b", "both", "again"))
    succeed("score", MODEL, BUNDLE, "-o", a, *FEW, "--seed", "1")
    succeed("score", MODEL, BUNDLE, "-o", b, *FEW, "--seed", "2")
    succeed("score", "--merge", a, "--merge", b, "-o", both)
    succeed("score", MODEL, BUNDLE, "-o", again, *FEW, "--seed", "2", "--merge", a)
    one, two, total = (ScoreState.load(p) for p in (a, b, both))
    assert total.samples == one.samples + two.samples == 180
    np.testing.assert_allclose(total.sum_abs, one.sum_abs + two.sum_abs, rtol=1e-14)
    np.testing.assert_allclose(ScoreState.load(again).sum_abs, total.sum_abs, rtol=1e-6)


@pytest.mark.parametrize(
    "arguments", [(), (MODEL,), (MODEL, BUNDLE, "--criterion", "magnitude_l2")]
)
def test_score_with_nothing_to_score_exits_2(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    assert run("score", *arguments, "-o", tmp_path / "s.npz").exit_code == exits.USAGE


def test_inspect_says_what_the_library_says() -> None:
    result = succeed("inspect", MODEL, "--channels", "--json")
    facts = json.loads(result.stdout)
    assert facts["prunable_filters"] == 48
    assert [b["convolutions"][0]["name"] for b in facts["channels"]["blocks"]] == [
        "conv1",
        "conv2",
        "conv3",
    ]
    shown = succeed("inspect", MODEL, "--channels").stdout
    assert "4,550,400" in shown
    assert "image: float [batch × 1 × 28 × 28]" in shown
    assert re.search(r"conv2 +│ +20 │", shown)


def test_names_that_look_like_markup_are_printed_as_they_are(tmp_path: Path) -> None:
    model = onnx.load(MODEL)
    for node in model.graph.node:
        if node.op_type == "Conv":
            node.name = f"[bold]{node.name}[/nothing]:smile:"
    path = tmp_path / "named.onnx"
    onnx.save(model, path)
    assert "[bold]conv1[/nothing]:smile:" in succeed("inspect", path, "--channels").stdout


# Exit codes --------------------------------------------------------------------------------------


ERROR_CLASSES = [
    value
    for value in vars(errors).values()
    if isinstance(value, type) and issubclass(value, errors.PrunerError)
]


def test_the_documented_exit_codes_are_those_of_the_code() -> None:
    documented = {
        name: int(code)
        for code, _, classes in doc_table("code when")
        for name in re.findall(r"`(\w+)`", classes)
    }
    assert documented == {cls.__name__: code for cls, code in exits.EXIT_CODES.items()}
    codes = {int(row[0]) for row in doc_table("code when")}
    named = {exits.OK, exits.FAILED, exits.USAGE, exits.INTERRUPTED, SERVICE_FAILED}
    assert codes == {*exits.EXIT_CODES.values(), *named}


def test_the_documented_flags_and_defaults_are_those_of_the_code() -> None:
    def shown(value: object) -> str:
        values = value if isinstance(value, tuple) else () if value is None else (value,)
        return " ".join(f"`{v}`" for v in values)

    assert doc_table("flag default") == [[f"`{f.name}`", shown(f.default)] for f in flags()]


@pytest.mark.parametrize("cls", ERROR_CLASSES, ids=lambda c: c.__name__)
def test_an_error_of_any_class_exits_with_the_code_of_its_family(
    cls: type[errors.PrunerError], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise cls("It went wrong.", node="conv1", found=[1, 2])

    monkeypatch.setattr(commands, "prune_model", fail)
    result = run("prune", MODEL, BUNDLE, "-o", tmp_path / "p.onnx")
    family = next((base for base in cls.__mro__ if base in exits.EXIT_CODES), None)
    assert result.exit_code == (exits.EXIT_CODES[family] if family else exits.FAILED)
    expected = f"error[{cls.code}]: It went wrong.\n  node: conv1\n  found: [1, 2]\n"
    assert result.stderr == expected
    assert result.stdout == ""


def test_real_failures_exit_with_their_codes(tmp_path: Path) -> None:
    garbage, out, scores = (tmp_path / n for n in ("garbage", "p.onnx", "s.npz"))
    garbage.write_bytes(b"not a model, nor a bundle, nor scores")
    succeed("score", MODEL, BUNDLE, "-o", scores, *FEW)
    other = tmp_path / "other.onnx"
    model = onnx.load(MODEL)
    model.doc_string = "another digest"
    onnx.save(model, other)

    def code_of(*arguments: str | Path) -> int:
        return run("prune", *arguments, "-o", out, *FEW).exit_code

    assert code_of(garbage, BUNDLE) == 3
    assert code_of(tmp_path / "missing.onnx", BUNDLE) == 3
    assert code_of(MODEL, garbage) == 4
    assert code_of(MODEL, tmp_path / "missing.npz") == 4
    assert code_of(MODEL, BUNDLE, "--scores", garbage) == 5
    assert code_of(MODEL, BUNDLE, "--scores", tmp_path / "missing.npz") == 5
    assert code_of(other, BUNDLE, "--scores", scores) == 5
    assert code_of(MODEL, BUNDLE, "--filters", "49") == 6
    assert not out.exists()
    assert run("inspect", garbage).exit_code == 3
    assert code_of(MODEL, BUNDLE, "--filters", "49", "--on-unreachable", "best") == 0


def test_interruption_exits_130(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(commands, "prune_model", interrupt)
    result = run("prune", MODEL, BUNDLE, "-o", tmp_path / "p.onnx")
    assert (result.exit_code, result.stderr) == (exits.INTERRUPTED, "interrupted\n")


def test_a_file_that_cannot_be_written_exits_1(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device", "p.onnx")

    monkeypatch.setattr(commands, "prune_model", full)
    result = run("prune", MODEL, BUNDLE, "-o", tmp_path / "p.onnx")
    assert result.exit_code == exits.FAILED
    assert result.stderr == "error[file_access]: No space left on device.\n  file: p.onnx\n"


def test_long_details_are_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise errors.ScoreError("Too much.", names="x" * 5000)

    monkeypatch.setattr(commands, "inspect_model", fail)
    detail = run("inspect", MODEL).stderr.splitlines()[1]
    assert len(detail) == len("  names: ") + exits.MAX_DETAIL_CHARS


# As a program ------------------------------------------------------------------------------------


def test_it_runs_as_a_module(tmp_path: Path) -> None:
    out = tmp_path / "p.onnx"
    command = [sys.executable, "-m", "graph_ops.cli", "prune", str(MODEL), str(BUNDLE)]
    done = subprocess.run(
        [*command, "-o", str(out), "--filters", "3", "--json", *FEW],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[2],
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == "", "no progress bars where stderr is not a terminal"
    assert json.loads(done.stdout)["filters"]["after"] == 57
    assert out.exists()
