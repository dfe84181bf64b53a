"""README.md and docs/ are compared with the code they describe."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from graph_ops import PruneOptions, PrunerError, Target, prune
from graph_ops.cli.exits import exit_code
from graph_ops.engines.ort_training.rewrites import REWRITES
from graph_ops.options import Criterion
from graph_ops.rules import COUPLINGS, GRADIENTS
from graph_ops.rules.zero import zero_gradient
from service.problem_types import LIBRARY_PROBLEMS, PROBLEM_TYPES

REPOSITORY = Path(__file__).resolve().parents[1]
DOCS = REPOSITORY / "docs"
README = REPOSITORY / "README.md"
PAGES = [README, REPOSITORY / "CONTRIBUTING.md", *sorted(DOCS.glob("*.md"))]
DIGITS = REPOSITORY / "examples" / "digits"
OPSETS = range(1, 26)

# Keys of the report that hold something documented elsewhere: options.md, goals.md.
DOCUMENTED_ELSEWHERE = {"options", "goal", "curve"}


def page_name(path: Path) -> str:
    return str(path.relative_to(REPOSITORY))


def rows(text: str, heading: str) -> list[list[str]]:
    """Cells of the first table after a heading; `\\|` is a bar inside a cell."""
    table: list[list[str]] = []
    for line in text[text.index(heading) + len(heading) :].splitlines():
        if line.startswith("|"):
            cells = re.split(r"(?<!\\)\|", line)[1:-1]
            table.append([cell.strip().replace("\\|", "|") for cell in cells])
        elif table:
            break
    return table[2:]


def anchors(page: Path) -> set[str]:
    """Anchors of a page's headings, as Git hosts make them."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.M)
    plain = [re.sub(r"[^\w\- ]", "", heading.lower()) for heading in headings]
    return {heading.strip().replace(" ", "-") for heading in plain}


# Engines -------------------------------------------------------------------------------------


def test_every_rewrite_is_documented() -> None:
    documented = [row[0].strip("`") for row in rows((DOCS / "engines.md").read_text(), "rewritten")]
    assert documented == REWRITES.op_types


# Options -------------------------------------------------------------------------------------


def documented_options(model: type[BaseModel]) -> list[list[str]]:
    """Name, meaning, default and values of every field, as docs/options.md has to say them."""
    schema = model.model_json_schema()
    definitions = schema.get("$defs", {})
    defaults = PruneOptions().model_dump(mode="json", exclude_none=True)
    lines = []
    for name, field in schema["properties"].items():
        default = json.dumps(defaults[name]) if name in defaults else "null"
        meaning = " ".join(field["description"].split())
        lines.append([f"`{name}`", meaning, f"`{default}`", values_of(field, definitions)])
    return lines


def values_of(field: dict[str, Any], definitions: dict[str, Any]) -> str:
    """The values a field takes, in words."""
    for choice in field.get("anyOf", []):
        if choice.get("type") != "null":
            field = choice
    if field.get("$ref", "").endswith("/LatencyTable"):
        return "[latency table](goals.md#latency)"
    if field.get("$ref", "").endswith("/Preprocessing"):
        return "[settings](bundles.md#bundlejson)"
    if "$ref" in field:
        field = definitions[field["$ref"].rsplit("/", 1)[-1]]
    if "const" in field:
        return f"`{field['const']}`"
    if "enum" in field:
        return " · ".join(f"`{value}`" for value in field["enum"])
    words = {"array": "list of texts", "string": "text", "object": "one of the targets"}
    if field["type"] in words:
        return words[field["type"]]
    bounds = {"minimum": ">=", "exclusiveMinimum": ">", "maximum": "<=", "exclusiveMaximum": "<"}
    limits = [f"{sign} {field[key]:.15g}" for key, sign in bounds.items() if key in field]
    return ", ".join([field["type"], *limits])


@pytest.mark.parametrize(
    ("model", "heading"), [(PruneOptions, "## All options"), (Target, "## Targets")]
)
def test_every_option_is_documented_as_it_is(model: type[BaseModel], heading: str) -> None:
    assert rows((DOCS / "options.md").read_text(), heading) == documented_options(model)


def test_every_criterion_has_its_formula() -> None:
    table = rows((DOCS / "method.md").read_text(), "## What is scored")
    assert [row[0] for row in table] == [f"`criterion: {c.value}`" for c in Criterion]


# Errors --------------------------------------------------------------------------------------


def error_classes(root: type[PrunerError]) -> Iterator[type[PrunerError]]:
    """The public tree: classes that only refine another one's details share its code."""
    yield root
    for child in root.__subclasses__():
        if child.__module__ == root.__module__:
            yield from error_classes(child)


def test_every_error_code_is_documented_with_its_statuses() -> None:
    table = rows((DOCS / "errors.md").read_text(), "## The library's codes")
    assert [row[:4] for row in table] == [
        [
            f"`{error.code}`",
            f"`{error.__name__}`",
            str(PROBLEM_TYPES[error.code].status),
            str(exit_code(error("it failed"))),
        ]
        for error in error_classes(PrunerError)
    ]
    assert all(len(row[4]) > 10 for row in table)


def test_the_service_knows_exactly_the_library_codes() -> None:
    assert set(LIBRARY_PROBLEMS) | {"model_too_large"} == {
        error.code for error in error_classes(PrunerError)
    }


# Operators -----------------------------------------------------------------------------------


def gradient_kind(op_type: str) -> str:
    found = [GRADIENTS.find("", op_type, opset) for opset in OPSETS]
    if not any(found):
        return "no"
    return "zero" if zero_gradient in found else "yes"


def test_every_operator_with_a_rule_is_documented() -> None:
    table = rows((DOCS / "operators.md").read_text(), "# Operators")
    assert [row[:3] for row in table] == [
        [f"`{op}`", "yes" if op in COUPLINGS.op_types else "no", gradient_kind(op)]
        for op in sorted({*COUPLINGS.op_types, *GRADIENTS.op_types})
    ]


# Report --------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def report() -> dict[str, Any]:
    result = prune(
        DIGITS / "digits.onnx",
        DIGITS / "calibration.npz",
        {
            "target": {"max_macs_ratio": 0.3},  # blocks are trained where enough is lost
            "max_samples": 200,
            "steps": 2,
            "recovery": "distill",
            "block_iterations": 2,
            "distill_iterations": 2,
        },
    )
    loaded: dict[str, Any] = json.loads(json.dumps(result.report, allow_nan=False))
    return loaded


def keys_of(value: Any, path: str = "") -> Iterator[str]:
    """Paths of all leaves; a list of plain values is `name[]`."""
    if path in DOCUMENTED_ELSEWHERE:
        yield path
    elif isinstance(value, dict):
        for name, inner in value.items():
            yield from keys_of(inner, f"{path}.{name}" if path else name)
    elif isinstance(value, list) and value:
        for inner in value:
            yield from keys_of(inner, f"{path}[]")
    else:
        yield path


def test_every_key_of_the_report_is_documented_and_nothing_else(report: dict[str, Any]) -> None:
    table = rows((DOCS / "report.md").read_text(), "# Report")
    documented = [row[0].strip("`").removesuffix("[]") for row in table]
    assert len(set(documented)) == len(documented)
    found = {key.removesuffix("[]") for key in keys_of(report)}  # lists may be empty
    containers = {key for key in documented if any(k.startswith(f"{key}.") for k in documented)}
    assert set(documented) - containers == found


def test_figures_of_the_report_have_a_unit() -> None:
    units = {
        row[0].strip("`"): row[2] for row in rows((DOCS / "report.md").read_text(), "# Report")
    }
    figures = [
        key
        for key in units
        if key.startswith(("cost.", "filters.", "proof.", "timing_s", "bundle.samples"))
    ]
    assert len(figures) > 20
    assert all(units[key] for key in figures)


# Pages ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("page", PAGES, ids=page_name)
def test_every_relative_link_leads_somewhere(page: Path) -> None:
    broken = []
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if re.match(r"[a-z]+:", target):
            continue
        name, _, anchor = target.partition("#")
        path = (page.parent / name).resolve() if name else page
        is_there = path.exists() and path.is_relative_to(REPOSITORY)
        if not is_there or (anchor and anchor not in anchors(path)):
            broken.append(target)
    assert not broken


@pytest.mark.parametrize("page", PAGES, ids=page_name)
def test_every_make_target_that_is_named_exists(page: Path) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (REPOSITORY / "Makefile").read_text(), re.M))
    code = re.findall(r"`(make [^`]+)`|^ {4}(make .+)$|^(make .+)$", page.read_text(), re.M)
    for command in ("".join(groups).split("#")[0] for groups in code):
        for word in command.split()[1:]:
            if re.fullmatch(r"[a-z][a-z-]*", word):
                assert word in targets, command
            else:
                break  # a variable, or what follows the command


def test_every_page_is_reachable_from_the_readme() -> None:
    seen, waiting = set[Path](), [README]
    while waiting:
        page = waiting.pop()
        if page in seen:
            continue
        seen.add(page)
        links = re.findall(r"\]\(([^)#\s]+\.md)[^)]*\)", page.read_text())
        waiting += [p for link in links if (p := (page.parent / link).resolve()).is_file()]
    assert set(DOCS.glob("*.md")) <= seen


@pytest.mark.parametrize("package", ["graph_ops", "service"])
def test_the_architecture_names_every_module(package: str) -> None:
    named = set(re.findall(r"`([\w/]+(?:\.py|/))`", (DOCS / "architecture.md").read_text()))
    modules = {
        f"{path.name}/" if path.is_dir() else path.name
        for path in (REPOSITORY / package).iterdir()
        if not path.name.startswith(("_", ".")) and (path.is_dir() or path.suffix == ".py")
    }
    assert modules - {"version.py"} <= named


def test_the_readme_claims_no_figure_it_does_not_show_the_source_of() -> None:
    """Percentages, factors, times and sizes stand between the demo's markers or are measured."""
    text = README.read_text()
    before, rest = text.split("<!-- demo:begin -->")
    _, after = rest.split("<!-- demo:end -->")
    prose = re.sub(r"```.*?```", "", before + after, flags=re.S)
    prose = re.sub(r"\n## Measured\n.*?(?=\n## )", "", prose, flags=re.S)
    figure = r"\d(?:[\d.,]*)\s?(?:%|×|x\b|ms\b|s\b|seconds?\b|minutes?\b|[kMG]i?B\b|points?\b)"
    assert not re.findall(figure, prose)
    assert "docs/measurements.md" in text


# Examples ------------------------------------------------------------------------------------


def python_blocks() -> Iterator[Any]:
    for page in PAGES[1:]:  # the README's has a test of its own
        for number, code in enumerate(re.findall(r"```python\n(.*?)```", page.read_text(), re.S)):
            yield pytest.param(code, id=f"{page_name(page)}-{number}")


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A folder with the digits example where the pages say it is."""
    target = tmp_path / "examples" / "digits"
    target.mkdir(parents=True)
    for name in ("digits.onnx", "calibration.npz"):
        shutil.copy(DIGITS / name, target)
    return tmp_path


def execute(arguments: list[str], folder: Path) -> str:
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run(
        arguments, cwd=folder, env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("code", list(python_blocks()))
def test_python_examples_run_as_written(code: str, checkout: Path) -> None:
    output = execute([sys.executable, "-W", "error", "-c", code], checkout)
    for call, comment in re.findall(r"print\((.+)\)  # (.+)", code):
        assert comment in output.splitlines(), call


def test_the_readme_python_example_writes_the_model(checkout: Path) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", README.read_text(), re.S)
    output = execute([sys.executable, "-c", code], checkout)
    assert re.search(r"^60 filters before, \d+ after$", output, re.M)
    smaller = (checkout / "pruned.onnx").stat().st_size
    assert 0 < smaller < (DIGITS / "digits.onnx").stat().st_size


def test_the_readme_commands_run_as_written(checkout: Path) -> None:
    block = re.search(r"### Command line\n\n```sh\n(.*?)```", README.read_text(), re.S)
    assert block
    script = f'onnx-filter-pruner() {{ "{sys.executable}" -m graph_ops.cli "$@"; }}\n{block[1]}'
    execute(["bash", "-euc", script], checkout)
    assert (checkout / "pruned.onnx").is_file()
    assert json.loads((checkout / "report.json").read_text())["schema"] == 1


def test_the_readme_starts_with_what_a_newcomer_needs() -> None:
    above_the_fold = "\n".join(README.read_text().splitlines()[:30])
    for needed in ("make demo", "make test", "curl -F model=@", "<!-- demo:begin -->"):
        assert needed in above_the_fold


# Security ------------------------------------------------------------------------------------


def test_every_test_that_the_threat_model_names_exists() -> None:
    named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", (DOCS / "security.md").read_text())
    assert len(named) > 20
    for file, name in named:
        assert f"def {name}(" in (REPOSITORY / file).read_text(), f"{file}::{name}"


def test_every_row_of_the_threat_model_names_a_test() -> None:
    page = (DOCS / "security.md").read_text()
    for heading in (
        "### Getting in",
        "### Hostile files",
        "### Reaching",
        "### Starving",
        "### Telling",
    ):
        for row in rows(page, heading):
            assert "::test_" in row[2], row
