"""`make demo`: the whole way over HTTP, and what it does when something is off."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
EXAMPLE = REPOSITORY / "examples" / "digits"


def run_demo(output: Path, options: str | None = None) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "DEMO_PYTHON": sys.executable, "DEMO_OUTPUT": str(output)}
    environment.pop("DEMO_OPTIONS", None)
    if options is not None:
        environment["DEMO_OPTIONS"] = options
    return subprocess.run(
        [REPOSITORY / "scripts" / "demo.sh"],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
    )


def assert_server_is_gone(printed: str) -> None:
    port = re.search(r"http://127\.0\.0\.1:(\d+)/v1/prune", printed)
    assert port
    with socket.socket() as client:
        assert client.connect_ex(("127.0.0.1", int(port[1]))) != 0


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """Folder of a good run, and what it printed."""
    output = tmp_path_factory.mktemp("demo")
    done = run_demo(output)
    assert done.returncode == 0, done.stdout + done.stderr
    return output, done.stdout


def check(output: Path, report: Path) -> subprocess.CompletedProcess[str]:
    arguments: dict[str, Path] = {
        "--before": EXAMPLE / "digits.onnx",
        "--after": output / "pruned.onnx",
        "--report": report,
        "--test": EXAMPLE / "test.npz",
    }
    script = REPOSITORY / "scripts" / "demo_table.py"
    return subprocess.run(
        [sys.executable, str(script), *(str(part) for pair in arguments.items() for part in pair)],
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_it_prints_each_figure_before_and_after(demo: tuple[Path, str]) -> None:
    output, printed = demo
    rows = {
        cells[0]: cells[1:]
        for line in printed.splitlines()
        if line.startswith("| ") and (cells := [cell.strip() for cell in line.split("|")[1:-1]])
    }
    report = json.loads((output / "report.json").read_text())
    for name, figure in (("parameters", "parameters"), ("MACs", "macs"), ("bytes", "bytes")):
        sides = [f"{report['cost'][side][figure]:,}" for side in ("before", "after")]
        assert rows[name][:2] == sides
    filters = [str(report["filters"][side]) for side in ("before", "after")]
    assert rows["filters"][:2] == filters
    assert filters[0] == "60"
    assert int(filters[1]) < 60
    assert {"latency, ms", "accuracy, 2,000 digits never sent"} <= set(rows)
    assert f"{report['proof']['max_rel_diff']:.1e}" in printed
    assert str(output / "pruned.onnx") in printed
    assert (output / "pruned.onnx").stat().st_size == report["cost"]["after"]["bytes"]


def test_it_stops_what_it_started(demo: tuple[Path, str]) -> None:
    assert_server_is_gone(demo[1])


def test_a_refused_request_fails_it_and_leaves_no_result(tmp_path: Path) -> None:
    done = run_demo(tmp_path, options='{"target":{"filters":8},"no_such_option":1}')
    assert done.returncode == 1
    assert "no_such_option" in done.stderr
    assert not list(tmp_path.iterdir())
    assert_server_is_gone(done.stdout)


def lose_the_proof(report: dict[str, Any]) -> None:
    del report["proof"]


def break_the_proof(report: dict[str, Any]) -> None:
    report["proof"]["max_rel_diff"] = 0.5


def name_another_model(report: dict[str, Any]) -> None:
    report["model"]["sha256"] = "0" * 64


def misstate_the_size(report: dict[str, Any]) -> None:
    report["cost"]["after"]["bytes"] -= 1


def keep_every_filter(report: dict[str, Any]) -> None:
    report["filters"]["after"] = report["filters"]["before"]


@pytest.mark.parametrize(
    ("tamper", "complaint"),
    [
        (lose_the_proof, "the report has no 'proof'"),
        (break_the_proof, "the proof does not hold"),
        (name_another_model, "the report is about the model 0000"),
        (misstate_the_size, "its report says"),
        (keep_every_filter, "no filter was removed"),
    ],
)
def test_a_report_that_is_off_fails_it(
    demo: tuple[Path, str],
    tmp_path: Path,
    tamper: Callable[[dict[str, Any]], None],
    complaint: str,
) -> None:
    output, _ = demo
    report = json.loads((output / "report.json").read_text())
    tamper(report)
    (tmp_path / "report.json").write_text(json.dumps(report))
    done = check(output, tmp_path / "report.json")
    assert done.returncode == 1
    assert complaint in done.stderr
    assert not done.stdout


def test_a_missing_report_fails_it(demo: tuple[Path, str], tmp_path: Path) -> None:
    done = check(demo[0], tmp_path / "report.json")
    assert done.returncode == 1
    assert "cannot be read" in done.stderr


def test_a_model_that_does_not_load_fails_it(demo: tuple[Path, str], tmp_path: Path) -> None:
    output, _ = demo
    model = bytearray((output / "pruned.onnx").read_bytes())
    model[:64] = bytes(64)
    (tmp_path / "pruned.onnx").write_bytes(model)
    done = check(tmp_path, output / "report.json")
    assert done.returncode == 1
    assert "does not load" in done.stderr
