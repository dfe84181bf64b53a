"""The Makefile, the scripts it runs and the CI script say what they do, and do it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
MAKEFILE = (REPOSITORY / "Makefile").read_text()
PROMISED = {"setup", "demo", "test", "test-slow", "serve", "lint", "bench", "smoke", "image"}

needs_make = pytest.mark.skipif(shutil.which("make") is None, reason="there is no make")


def phony_targets() -> set[str]:
    found = re.search(r"^\.PHONY: (.+)$", MAKEFILE, re.MULTILINE)
    assert found
    return set(found[1].split())


def make(*arguments: str, **variables: str) -> str:
    # Flags of a make that runs these tests are not for this one, nor is what it has set.
    set_by_make = ("MAKEFLAGS", "MFLAGS", "MAKELEVEL", "ORT_THREADS", "OPENBLAS_NUM_THREADS")
    environment = {k: v for k, v in os.environ.items() if k not in set_by_make} | variables
    done = subprocess.run(
        ["make", *arguments],
        cwd=REPOSITORY,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return done.stdout


def test_the_promised_targets_exist() -> None:
    assert phony_targets() >= PROMISED


@needs_make
def test_help_lists_every_target_with_what_it_does() -> None:
    listed = dict(re.findall(r"^  make (\S+) +(\S.*)$", make("help"), re.MULTILINE))
    assert set(listed) == phony_targets()
    assert all(len(text) > 10 for text in listed.values())


@needs_make
def test_make_alone_is_help() -> None:
    assert make() == make("help")


@needs_make
def test_processes_that_run_tests_have_one_thread_unless_told_otherwise(tmp_path: Path) -> None:
    python = tmp_path / "python"
    python.write_text('#!/bin/sh\necho "$ORT_THREADS $OPENBLAS_NUM_THREADS"\n')
    python.chmod(0o755)
    arguments = ("--assume-old=setup", "test", f"BIN={tmp_path}")
    assert make(*arguments).split() == ["1", "1"]
    assert make(*arguments, ORT_THREADS="0").split() == ["0", "1"]


@needs_make
def test_serve_passes_its_variables_on() -> None:
    recipe = make("--dry-run", "serve", "HOST=::1", "PORT=81", "DATA_DIR=/srv/x y")
    assert "HOST='::1' PORT='81' DATA_DIR='/srv/x y'" in recipe


@needs_make
def test_image_passes_its_variables_on() -> None:
    recipe = make("--dry-run", "image", "BASE=b", "TARGET=gpu", "BUILDAH_FLAGS=--layers")
    assert "--layers --build-arg 'BASE=b' --target 'gpu' -t 'onnx-filter-pruner:gpu'" in recipe


@pytest.mark.parametrize(
    "path", ["scripts/demo.sh", "scripts/smoke.sh", ".ci/run"], ids=lambda path: Path(path).name
)
def test_scripts_are_strict_executable_bash(path: str) -> None:
    script = REPOSITORY / path
    assert os.access(script, os.X_OK)
    text = script.read_text()
    assert text.startswith("#!/usr/bin/env bash\n")
    assert "\nset -euo pipefail\n" in text
    subprocess.run(["bash", "-n", str(script)], check=True, timeout=10)


def test_smoke_fails_where_no_server_answers() -> None:
    # Port 9 is the discard service's, which nobody runs.
    done = subprocess.run(
        [REPOSITORY / "scripts" / "smoke.sh", "http://127.0.0.1:9"],
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert done.returncode == 1
    assert "FAILED /healthz" in done.stderr
    assert "OK" not in done.stdout


def test_every_stage_of_the_image_that_runs_is_a_plain_user_with_a_health_check() -> None:
    text = (REPOSITORY / "Dockerfile").read_text()
    runtime = text.split(" AS runtime\n")[1].split("\nFROM ")[0]
    assert "\nUSER 10001:10001\n" in runtime
    assert "\nHEALTHCHECK " in runtime
    assert re.findall(r"^FROM (\w+) AS (?:cpu|gpu)$", text, re.MULTILINE) == ["runtime"] * 2
    assert text.rstrip().endswith("FROM cpu")
