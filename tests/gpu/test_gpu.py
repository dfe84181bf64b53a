"""What only a GPU can show. `make test-gpu` runs these; without a GPU they skip and say why."""

from __future__ import annotations

import io

import numpy as np
import pytest

from graph_ops.engines.catalog import engine_statuses
from graph_ops.gpu import STANDARD_CUDA, TRAINING_CUDA, gpu_state
from graph_ops.network import TaylorPrunableNetwork
from graph_ops.pruning import prune
from graph_ops.runtime import Session
from tests.support import digits
from tests.support.models import light_input, light_network

pytestmark = pytest.mark.gpu

STANDARD = gpu_state().obstacle(STANDARD_CUDA)
TRAINING = gpu_state().obstacle(TRAINING_CUDA)
needs_standard = pytest.mark.skipif(STANDARD is not None, reason=f"no GPU: {STANDARD}")
needs_training = pytest.mark.skipif(TRAINING is not None, reason=f"no GPU: {TRAINING}")


def scores(engine: str, expects_cpu: bool = False) -> np.ndarray:
    network = TaylorPrunableNetwork(digits.MODEL, {"engine": engine})
    for start in range(0, 256, 64):
        network.update_score(digits.batch(start, 64))
    facts = network.scorer.engine_facts
    assert facts is not None
    assert facts.device == ("cpu" if expects_cpu else "gpu")
    network.close()
    return network.state.sum_abs


@needs_standard
def test_sessions_run_on_the_gpu() -> None:
    session = Session(TaylorPrunableNetwork(digits.MODEL).source.model)
    assert session.provider == "CUDAExecutionProvider"


@needs_standard
def test_standard_scores_on_the_gpu_are_those_of_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    on_gpu = scores("standard")
    monkeypatch.setattr("graph_ops.runtime.ort.get_available_providers", list)
    on_cpu = scores("standard", expects_cpu=True)
    np.testing.assert_allclose(on_gpu, on_cpu, rtol=1e-3, atol=1e-4 * on_cpu.max())


@needs_standard
@needs_training
def test_the_engines_agree_on_the_gpu() -> None:
    first, second = scores("standard"), scores("ort-training")
    np.testing.assert_allclose(second, first, rtol=0, atol=1e-4 * first.max())


@needs_training
def test_auto_takes_ort_training() -> None:
    report = prune(digits.MODEL, digits.BUNDLE, {"max_samples": 64}).report
    assert (report["engine"]["name"], report["engine"]["device"]) == ("ort-training", "gpu")


@needs_training
def test_both_engines_say_that_they_use_the_gpu() -> None:
    assert [(s.works, s.device, s.reason) for s in engine_statuses()] == [(True, "gpu", None)] * 2


@needs_training
@pytest.mark.parametrize("engine", ["standard", "ort-training"])
def test_a_bounded_arena_halves_the_batch(engine: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GPU_MEMORY_BYTES", str(2 << 30))
    file = io.BytesIO()
    images = np.random.default_rng(0).standard_normal((256, 3, 224, 224)).astype(np.float32)
    np.savez(file, **{light_input("resnet50"): images})  # type: ignore[arg-type]
    model = light_network("resnet50", batch="N")
    options = {"engine": engine, "batch_size": 256, "validation_fraction": 0}
    report = prune(model, file.getvalue(), options).report
    assert report["engine"]["memory_shortages"] > 0
    assert report["engine"]["batch_limit"] < 256
