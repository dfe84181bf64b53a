"""The HTTP half of docs/from-matlab.md, executed as it stands; tests/test_docs.py runs the rest."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import onnx

from tests.support import digits
from tests.support.server import REPOSITORY, running_server

PAGE = (REPOSITORY / "docs" / "from-matlab.md").read_text()


def filters(path: Path) -> int:
    """Filters of all convolutions of a file."""
    model = onnx.load(path)
    sizes = {t.name: t.dims[0] for t in model.graph.initializer}
    return sum(sizes[n.input[1]] for n in model.graph.node if n.op_type == "Conv")


def test_the_page_works_as_written(tmp_path: Path) -> None:
    examples = tmp_path / "examples" / "digits"
    examples.mkdir(parents=True)
    for path in (digits.MODEL, digits.BUNDLE):
        shutil.copy(path, examples)
    blocks = re.findall(r"```sh\n(.*?)```", PAGE, re.S)
    assert len(blocks) == 5
    folder = tmp_path / "server"
    folder.mkdir()
    with running_server(folder) as server:
        script = "\n".join(blocks).replace("http://localhost:8000", server.url)
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", script],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=240,
        )
        assert done.returncode == 0, done.stderr + server.log
    assert done.stdout.split() == ["succeeded", "succeeded", "target_reached"]
    sizes = [filters(tmp_path / name) for name in ("round1.onnx", "round2.onnx")]
    assert sizes == [52, 44]
    assert filters(tmp_path / "compressed.onnx") < 60


def test_every_goal_of_the_one_call_form_has_its_option() -> None:
    table = PAGE.split("## The loop in Python")[0]
    for name in (
        "LearnablesReductionGoal",
        "LearnablesReductionIncrement",
        "NumImportanceScoreIterations",
        "ValidationThreshold",
        "StopReason",
    ):
        assert name in table
