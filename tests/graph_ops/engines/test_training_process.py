"""The training child when something goes wrong: clear errors, nothing running, nothing left."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest

from graph_ops.engines.ort_training.engine import OrtTrainingEngine
from graph_ops.engines.ort_training.process import TrainingProcess
from graph_ops.errors import (
    EngineProcessError,
    EngineUnavailableError,
    ModelRunError,
    OutOfMemoryError,
)
from graph_ops.network import TaylorPrunableNetwork
from graph_ops.pruning import prune
from tests.support import digits
from tests.support.training import fake_child, needs_training

ANSWER = "os.write(answers, json.dumps({}).encode() + b'\\n')"
DESCRIPTION = {"version": "1.19.2", "providers": [], "has_gradients": True, "cuda": None}
OPTIONS = {"engine": "ort-training"}


@pytest.fixture(autouse=True)
def nothing_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """After every test: no child, no file in the temporary folder, no open descriptor."""
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setenv("TMPDIR", str(scratch))
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))
    me = psutil.Process()
    KNOWN.clear()
    KNOWN.update(me.children())
    descriptors = me.num_fds()
    yield
    assert not [p for p in children() if p.is_running()]
    assert list(scratch.iterdir()) == []
    assert me.num_fds() <= descriptors


KNOWN: set[psutil.Process] = set()
"""Children that other tests have left running for the tests behind them: servers, browsers."""


def children() -> list[psutil.Process]:
    """Children that the test has started, and theirs."""
    own = [child for child in psutil.Process().children() if child not in KNOWN]
    return [*own, *(p for child in own for p in child.children(recursive=True))]


def answering(body: str) -> str:
    return f"for line in lines:\n    answer = {body}\n    " + ANSWER.format("answer")


def test_a_missing_environment_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ORT_TRAINING_PYTHON", "/nowhere/bin/python")
    with pytest.raises(EngineUnavailableError, match="/nowhere/bin/python") as caught:
        TrainingProcess()
    assert caught.value.details["reason"] == "environment_missing"
    assert "make setup" in caught.value.message


def test_an_environment_that_cannot_be_started_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "python"
    program.write_text("no program at all")
    program.chmod(0o755)
    monkeypatch.setenv("ORT_TRAINING_PYTHON", str(program))
    with pytest.raises(EngineUnavailableError, match="cannot be started"):
        TrainingProcess()


def test_an_environment_without_the_library_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """This environment has onnxruntime, but not the training package."""
    monkeypatch.setenv("ORT_TRAINING_PYTHON", sys.executable)
    with pytest.raises(EngineUnavailableError, match="GradientGraphBuilder") as caught:
        TrainingProcess()
    assert caught.value.details["reason"] == "library_missing"


def test_another_version_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = fake_child(tmp_path, answering(str({**DESCRIPTION, "version": "1.17.3"})))
    monkeypatch.setenv("ORT_TRAINING_PYTHON", str(program))
    with pytest.raises(EngineUnavailableError, match=r"needs onnxruntime-training 1\.19\.2") as c:
        TrainingProcess()
    assert (c.value.details["expected"], c.value.details["found"]) == ("1.19.2", "1.17.3")


def test_a_child_that_ends_at_once_says_its_last_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = fake_child(tmp_path, "print('no room', file=sys.stderr); sys.exit(9)")
    monkeypatch.setenv("ORT_TRAINING_PYTHON", str(program))
    with pytest.raises(EngineProcessError, match="ended with status 9: no room"):
        TrainingProcess()


def test_a_child_that_hangs_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = fake_child(tmp_path, "time.sleep(600)")
    monkeypatch.setenv("ORT_TRAINING_PYTHON", str(program))
    monkeypatch.setenv("ORT_TRAINING_TIMEOUT_S", "0.5")
    with pytest.raises(EngineProcessError, match=r"did not answer within 0\.5 seconds") as caught:
        TrainingProcess()
    assert caught.value.details["reason"] == "timeout"


@pytest.mark.parametrize(
    ("kind", "error"), [("out_of_memory", OutOfMemoryError), ("failed", ModelRunError)]
)
def test_an_error_of_the_runtime_leaves_the_child_usable(
    kind: str, error: type[Exception], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    body = (
        f"{DESCRIPTION} if b'describe' in line else "
        f"{{'error': {{'kind': '{kind}', 'message': 'words'}}}}"
    )
    monkeypatch.setenv("ORT_TRAINING_PYTHON", str(fake_child(tmp_path, answering(body))))
    process = TrainingProcess()
    with pytest.raises(error, match="words"):
        process.ask({"action": "run"})
    assert process.ask({"action": "describe"})["version"] == "1.19.2"
    process.close()


def opened_network() -> TaylorPrunableNetwork:
    network = TaylorPrunableNetwork(digits.MODEL, OPTIONS)
    network.update_score(digits.batch())
    return network


@needs_training
def test_a_child_killed_in_mid_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    network = opened_network()
    (child,) = children()
    child.suspend()  # so that the batch is under way when it is killed
    threading.Timer(0.3, child.kill).start()
    with pytest.raises(EngineProcessError, match="by signal SIGKILL"):
        network.update_score(digits.batch())


@needs_training
def test_a_child_that_stops_in_mid_batch_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ORT_TRAINING_TIMEOUT_S", "8")
    network = opened_network()
    (child,) = children()
    child.suspend()
    with pytest.raises(EngineProcessError, match="did not answer within 8 seconds"):
        network.update_score(digits.batch())
    assert not child.is_running()


@needs_training
def test_an_engine_goes_on_with_a_new_child_after_the_old_one_died() -> None:
    engine = OrtTrainingEngine()
    first = engine.describe()
    (child,) = children()
    child.kill()
    child.wait()
    with pytest.raises(EngineProcessError):
        engine._running().ask({"action": "describe"})
    assert engine.describe() == first
    engine.close()


@needs_training
def test_a_whole_run_leaves_nothing() -> None:
    report = prune(digits.MODEL, digits.BUNDLE, {**OPTIONS, "max_samples": 64}).report
    assert report["engine"]["name"] == "ort-training"
    assert children() == []


@needs_training
def test_a_run_that_fails_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("in the middle of scoring")

    monkeypatch.setattr("graph_ops.halving.HalvingRunner.run", fail)
    with pytest.raises(RuntimeError, match="in the middle"):
        prune(digits.MODEL, digits.BUNDLE, {**OPTIONS, "max_samples": 64})
    assert children() == []


@needs_training
def test_the_child_ends_when_its_parent_is_killed(tmp_path: Path) -> None:
    script = (
        "from tests.graph_ops.engines.test_training_process import children, opened_network\n"
        "network = opened_network()\n"
        "print(children()[0].pid, flush=True)\n"
        "import time; time.sleep(600)\n"
    )
    root = Path(__file__).parents[3]
    with subprocess.Popen(
        [sys.executable, "-c", script], cwd=root, stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        child = psutil.Process(int(parent.stdout.readline()))
        os.kill(parent.pid, signal.SIGKILL)
        parent.wait()
    deadline = time.monotonic() + 10
    while child.is_running() and child.status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < deadline, "the child outlives its parent"
        time.sleep(0.05)


@needs_training
def test_scores_are_the_same_after_the_graph_was_opened_again() -> None:
    first, second = opened_network(), opened_network()
    np.testing.assert_array_equal(first.state.sum_abs, second.state.sum_abs)
    first.close()
    second.close()
