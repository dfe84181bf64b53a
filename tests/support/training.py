"""The training environment in tests: whether there is one, and programs that play its child."""

from __future__ import annotations

import stat
import sys
from pathlib import Path

import pytest

from graph_ops.engines.ort_training.environment import training_python
from graph_ops.errors import EngineUnavailableError


def _missing() -> str | None:
    try:
        training_python()
    except EngineUnavailableError as error:
        return error.message
    return None


needs_training = pytest.mark.skipif(
    _missing() is not None, reason=f"no training environment: {_missing()}"
)


def fake_child(folder: Path, body: str) -> Path:
    """An executable that stands for the training environment's Python.

    Args:
        folder: Where to put it.
        body: Python source; `answers` is the descriptor of the pipe for answers, `lines` the
            requests.
    """
    program = folder / "fake-python"
    program.write_text(
        f"#!{sys.executable}\n"
        "import json, os, sys, time\n"
        "answers = int(sys.argv[-1])\n"
        "lines = sys.stdin.buffer\n"
        f"{body}\n"
    )
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    return program
