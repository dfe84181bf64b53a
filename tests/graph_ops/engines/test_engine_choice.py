"""What `auto` chooses, and what each engine says about itself: GPU logic, tried without one."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from graph_ops.engines.auto import AutoEngine
from graph_ops.engines.base import EngineInfo, ScoringGraph
from graph_ops.engines.catalog import engine_statuses
from graph_ops.engines.ort_training.engine import OrtTrainingEngine
from graph_ops.errors import EngineUnavailableError, EngineUnsupportedError
from graph_ops.gpu import GpuState
from graph_ops.network import TaylorPrunableNetwork
from graph_ops.providers import CPU, CUDA
from tests.graph_ops.engines.spec_graphs import every_spec, spec_graph
from tests.support import digits

NO_GPU = GpuState(0, None, "there is no NVIDIA driver")
GPU = GpuState(1, (13, 0), None)
OLD_GPU = GpuState(1, (11, 4), None)


class FakeSession:
    """A session on a GPU."""

    info = EngineInfo("ort-training", "1.19.2", CUDA, "gpu")


class FakeTraining(OrtTrainingEngine):
    """A training engine with a GPU, or without, as the test says."""

    cuda: dict[str, Any] | None = {"works": True, "reason": None}  # noqa: RUF012
    refusal: Exception | None = None
    is_missing = False

    def describe(self) -> dict[str, Any]:
        if self.is_missing:
            raise EngineUnavailableError("there is no environment", engine="ort-training")
        return {"version": "1.19.2", "cuda": self.cuda}

    def open(self, graph: ScoringGraph) -> Any:
        if self.refusal is not None:
            raise self.refusal
        return FakeSession()


def make(**attributes: Any) -> Any:
    return type("Made", (FakeTraining,), attributes)


def a_graph() -> ScoringGraph:
    return spec_graph(next(s for s in every_spec() if "Relu(x)" in s.nodes))[0]


def opened(state: GpuState, training: Any) -> tuple[AutoEngine, str]:
    engine = AutoEngine(lambda: state, training)
    graph = a_graph()
    return engine, engine.open(graph).info.name


def test_with_a_gpu_it_is_ort_training() -> None:
    engine, name = opened(GPU, FakeTraining)
    assert name == "ort-training"
    assert engine.why == "auto: ort-training can use the GPU"


@pytest.mark.parametrize(
    ("state", "training", "why"),
    [
        (NO_GPU, FakeTraining, "there is no NVIDIA driver"),
        (OLD_GPU, FakeTraining, "the driver is too old: it runs CUDA 11.4, and 11.8 is needed"),
        (GPU, make(is_missing=True), "there is no environment"),
        (GPU, make(cuda=None), "cannot use the GPU: it has no CUDA"),
        (GPU, make(cuda={"works": False, "reason": "no libcudnn"}), "no libcudnn"),
        (GPU, make(refusal=EngineUnsupportedError("Op in the way", engine="x")), "Op in the way"),
    ],
    ids=["no GPU", "old driver", "no environment", "CPU package", "no library", "operator"],
)
def test_everywhere_else_it_is_standard_and_says_why(
    state: GpuState, training: Any, why: str
) -> None:
    engine, name = opened(state, training)
    assert name == "standard"
    assert engine.why.startswith("auto: ")
    assert why in engine.why


def test_the_report_says_which_engine_and_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("graph_ops.engines.auto.gpu_state", lambda: NO_GPU)
    network = TaylorPrunableNetwork(digits.MODEL)
    network.update_score(digits.batch())
    facts = network.scorer.engine_facts
    assert facts is not None
    assert (facts.name, facts.provider, facts.device) == ("standard", CPU, "cpu")
    assert "auto: " in facts.why
    assert (facts.batch_limit, facts.memory_shortages) == (None, 0)


def statuses(state: GpuState, available: list[str], training: Any) -> dict[str, Any]:
    found = engine_statuses(lambda: state, lambda: available, training)
    return {status.name: status for status in found}


def test_statuses_without_a_gpu() -> None:
    found = statuses(NO_GPU, [CPU], make(cuda=None))
    for status in found.values():
        assert (status.works, status.device) == (True, "cpu")
        assert status.reason == "there is no NVIDIA driver"


def test_statuses_with_a_gpu() -> None:
    found = statuses(GPU, [CUDA, CPU], FakeTraining)
    for status in found.values():
        assert (status.works, status.device, status.reason) == (True, "gpu", None)


def test_statuses_name_what_is_missing() -> None:
    found = statuses(GPU, [CPU], make(cuda=None))
    assert "no CUDA provider" in found["standard"].reason
    assert "no CUDA provider" in found["ort-training"].reason
    found = statuses(GPU, [CPU], make(cuda={"works": False, "reason": "no libcudnn.so.8"}))
    assert found["ort-training"].reason == "no libcudnn.so.8"
    found = statuses(GPU, [CPU], make(is_missing=True))
    assert (found["ort-training"].works, found["ort-training"].device) == (False, None)
    assert found["ort-training"].reason == "there is no environment"
    found = statuses(OLD_GPU, [CUDA, CPU], FakeTraining)
    assert "13.0 is needed" in found["standard"].reason
    assert found["standard"].device == "cpu"


def test_scores_of_the_two_engines_can_be_told_apart_only_by_the_report() -> None:
    """The state of either engine is accepted by the other: the score is the same thing."""
    first = TaylorPrunableNetwork(digits.MODEL, {"engine": "standard"})
    first.update_score(digits.batch())
    second = TaylorPrunableNetwork(digits.MODEL, {"engine": "auto"})
    second.load_scores(first.state)
    np.testing.assert_array_equal(first.state.sum_abs, second.state.sum_abs)
