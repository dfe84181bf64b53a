"""GPU branches with their logic tried on a CPU: driver, providers, libraries, memory."""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from graph_ops import runtime
from graph_ops.bundle import Batch
from graph_ops.engines import pieces
from graph_ops.engines.ort_training.cuda_libraries import library_files, preload
from graph_ops.errors import OutOfMemoryError
from graph_ops.gpu import gpu_state
from graph_ops.halving import HalvingRunner
from graph_ops.network import TaylorPrunableNetwork
from graph_ops.providers import CPU, CUDA, Accelerator, is_out_of_memory, provider_list
from tests.support import digits


class FakeDriver:
    """libcuda with a version, a start status and a number of devices."""

    def __init__(self, version: int, start: int = 0, devices: int = 1) -> None:
        self._version, self._start, self._devices = version, start, devices

    def cuDriverGetVersion(self, number: Any) -> int:  # noqa: N802 - CUDA's own name
        ctypes.cast(number, ctypes.POINTER(ctypes.c_int))[0] = self._version
        return 0

    def cuInit(self, flags: int) -> int:  # noqa: N802
        return self._start

    def cuDeviceGetCount(self, number: Any) -> int:  # noqa: N802
        ctypes.cast(number, ctypes.POINTER(ctypes.c_int))[0] = self._devices
        return 0


def test_a_driver_with_devices() -> None:
    state = gpu_state(lambda _: FakeDriver(13010, devices=2))
    assert (state.devices, state.driver, state.reason) == (2, (13, 1), None)
    assert state.obstacle((13, 0)) is None


@pytest.mark.parametrize(
    ("driver", "reason"),
    [
        (FakeDriver(12040, start=100), "does not start (error 100)"),
        (FakeDriver(12040, devices=0), "shows no GPU"),
    ],
)
def test_a_driver_without_devices(driver: FakeDriver, reason: str) -> None:
    state = gpu_state(lambda _: driver)
    assert not state.is_present
    assert reason in str(state.obstacle((11, 8)))


def test_no_driver() -> None:
    def load(_: str) -> object:
        raise OSError("libcuda.so.1: cannot open shared object file")

    assert gpu_state(load).obstacle((11, 8)) == "there is no NVIDIA driver"


def test_an_old_driver() -> None:
    state = gpu_state(lambda _: FakeDriver(12020))
    assert state.obstacle((11, 8)) is None
    assert state.obstacle((13, 0)) == (
        "the driver is too old: it runs CUDA 12.2, and 13.0 is needed"
    )


def test_providers_without_cuda() -> None:
    assert provider_list(["AzureExecutionProvider", CPU], Accelerator()) == [(CPU, {})]


def test_providers_with_cuda() -> None:
    (first, options), second = provider_list([CPU, CUDA], Accelerator(2, 4 << 30))
    assert (first, second) == (CUDA, (CPU, {}))
    assert options["device_id"] == "2"
    assert options["gpu_mem_limit"] == str(4 << 30)
    assert options["use_tf32"] == "0"
    assert provider_list([CPU, CUDA], Accelerator(), "no driver") == [(CPU, {})]
    assert "gpu_mem_limit" not in provider_list([CUDA], Accelerator())[0][1]


def test_the_environment_names_device_and_memory() -> None:
    named = {"GPU_DEVICE": "3", "GPU_MEMORY_BYTES": "1000"}
    assert Accelerator.from_environment(named) == Accelerator(3, 1000)
    assert Accelerator.from_environment({}) == Accelerator(0, None)


@pytest.mark.parametrize(
    "message",
    [
        "Failed to allocate memory for requested buffer of size 123",
        "CUDA failure 2: out of memory ; GPU=0",
        "std::bad_alloc",
        "Available memory of 5 is smaller than requested bytes of 8",
        "CUBLAS failure 3: CUBLAS_STATUS_ALLOC_FAILED",
    ],
)
def test_words_that_mean_out_of_memory(message: str) -> None:
    assert is_out_of_memory(message)
    assert not is_out_of_memory("Non-zero status code returned while running Conv node")
    assert isinstance(runtime._run_error("run", RuntimeError(message)), OutOfMemoryError)


def test_cuda_libraries_are_loaded_in_an_order_that_works(tmp_path: Path) -> None:
    """`libcudnn` needs `libcudnn_ops`, which needs `libcublas`, whatever their names sort to."""
    needs = {"libcudnn.so.8": "libcudnn_ops.so.8", "libcudnn_ops.so.8": "libcublas.so.11"}
    for folder, name in (("cudnn", "libcudnn.so.8"), ("cudnn", "libcudnn_ops.so.8"),
                         ("cublas", "libcublas.so.11")):  # fmt: skip
        lib = tmp_path / "nvidia" / folder / "lib"
        lib.mkdir(parents=True, exist_ok=True)
        (lib / name).touch()
    loaded: list[str] = []

    def load(path: str) -> object:
        name = Path(path).name
        if needs.get(name, name) not in [*loaded, name]:
            raise OSError(f"{needs[name]}: cannot open shared object file")
        loaded.append(name)
        return object()

    assert preload(library_files(tmp_path), load) == []
    assert loaded == ["libcublas.so.11", "libcudnn_ops.so.8", "libcudnn.so.8"]


def test_a_cuda_library_that_cannot_be_loaded_is_named(tmp_path: Path) -> None:
    lib = tmp_path / "nvidia" / "cublas" / "lib"
    lib.mkdir(parents=True)
    (lib / "libcublas.so.11").touch()

    def load(path: str) -> object:
        raise OSError("not for this machine")

    assert preload(library_files(tmp_path), load) == ["libcublas.so.11: not for this machine"]


def batch_of(size: int) -> Batch:
    rows = np.arange(size, dtype=np.float32)
    return Batch({"x": rows[:, None]}, rows, size, np.arange(size))


class Memory:
    """Computes batches up to a size; larger ones run out of memory."""

    def __init__(self, room: int) -> None:
        self.room = room
        self.sizes: list[int] = []

    def __call__(self, batch: Batch) -> tuple[np.ndarray, list[np.ndarray]]:
        self.sizes.append(batch.size)
        if batch.size > self.room:
            raise OutOfMemoryError("full")
        assert batch.targets is not None
        np.testing.assert_array_equal(batch.targets, batch.indices)
        return batch.targets, [batch.inputs["x"] * 2]


def test_batches_are_halved_until_they_fit_and_stay_so() -> None:
    runner, memory = HalvingRunner(), Memory(room=3)
    losses, (column,) = runner.run(batch_of(10), memory)
    np.testing.assert_array_equal(losses, np.arange(10))
    np.testing.assert_array_equal(column[:, 0], np.arange(10) * 2)
    assert memory.sizes == [10, 5, 2, 2, 2, 2, 2]
    assert (runner.limit, runner.shortages) == (2, 2)
    runner.run(batch_of(4), memory)
    assert memory.sizes[7:] == [2, 2]


def test_a_single_sample_that_does_not_fit_is_an_error() -> None:
    runner = HalvingRunner()
    with pytest.raises(OutOfMemoryError):
        runner.run(batch_of(4), Memory(room=0))


def test_a_fixed_batch_size_cannot_be_halved() -> None:
    padded = Batch({"x": np.zeros((8, 1), np.float32)}, None, 5, np.arange(5))
    with pytest.raises(OutOfMemoryError):
        HalvingRunner().run(padded, Memory(room=4))


def test_scores_are_the_same_when_memory_runs_out(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = TaylorPrunableNetwork(digits.MODEL, {"engine": "standard"})
    whole.update_score(digits.batch(count=32))
    cramped = TaylorPrunableNetwork(digits.MODEL, {"engine": "standard"})
    run = runtime.Session.run

    def run_in_little_memory(self: runtime.Session, feeds: Any, outputs: Any = None) -> Any:
        if feeds["image"].shape[0] > 8:
            raise OutOfMemoryError("full")
        return run(self, feeds, outputs)

    monkeypatch.setattr(runtime.Session, "run", run_in_little_memory)
    monkeypatch.setattr(pieces, "OPERATOR_BYTES", 1 << 40)  # a batch is one piece
    cramped.update_score(digits.batch(count=32))
    np.testing.assert_allclose(cramped.state.sum_abs, whole.state.sum_abs, rtol=1e-5)
    facts = cramped.scorer.engine_facts
    assert facts is not None
    assert (facts.batch_limit, facts.memory_shortages) == (8, 2)
