"""The engines there are, what the option `engine` opens, and which of them work here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import onnxruntime as ort

from graph_ops.engines.auto import AutoEngine
from graph_ops.engines.base import Engine
from graph_ops.engines.ort_training.engine import OrtTrainingEngine
from graph_ops.engines.ort_training.environment import ENGINE as ORT_TRAINING
from graph_ops.engines.standard import NAME as STANDARD
from graph_ops.engines.standard import StandardEngine
from graph_ops.errors import EngineError
from graph_ops.gpu import STANDARD_CUDA, TRAINING_CUDA, GpuState, gpu_state
from graph_ops.providers import CPU, CUDA, device_of

ENGINES: dict[str, Callable[[], Engine]] = {
    "auto": AutoEngine,
    STANDARD: StandardEngine,
    ORT_TRAINING: OrtTrainingEngine,
}
"""What each value of the option `engine` opens."""


@dataclass(frozen=True)
class EngineStatus:
    """Whether an engine works here, and on what.

    Attributes:
        name: Value of the option `engine`.
        works: Whether it can be used at all.
        version: Version of its runtime, None where it has none.
        provider: Execution provider it would use, None where it does not work.
        device: `cpu` or `gpu`, None where it does not work.
        reason: Why it does not work, or why it does not use a GPU; None where it does.
    """

    name: str
    works: bool
    version: str | None
    provider: str | None
    device: str | None
    reason: str | None


def engine_statuses(
    state: Callable[[], GpuState] = gpu_state,
    available: Callable[[], list[str]] = ort.get_available_providers,
    training: Callable[[], OrtTrainingEngine] = OrtTrainingEngine,
) -> list[EngineStatus]:
    """Every engine as it is here and now. Starts the training child once.

    Args:
        state: Asks for the GPU.
        available: Providers of this process's ONNX Runtime.
        training: Makes the engine that is asked about.
    """
    gpu = state()
    return [_standard_status(gpu, available()), _training_status(gpu, training())]


def _standard_status(gpu: GpuState, available: list[str]) -> EngineStatus:
    reason = gpu.obstacle(STANDARD_CUDA)
    if reason is None and CUDA not in available:
        reason = "this onnxruntime has no CUDA provider: install the gpu extra"
    provider = CPU if reason else CUDA
    version: str = ort.__version__
    return EngineStatus(STANDARD, True, version, provider, device_of(provider), reason)


def _training_status(gpu: GpuState, engine: OrtTrainingEngine) -> EngineStatus:
    try:
        found = engine.describe()
    except EngineError as error:
        return EngineStatus(ORT_TRAINING, False, None, None, None, error.message)
    finally:
        engine.close()
    reason = gpu.obstacle(TRAINING_CUDA)
    cuda = found["cuda"]
    if reason is None and cuda is None:
        reason = "its onnxruntime-training has no CUDA provider"
    if reason is None and not cuda["works"]:
        reason = str(cuda["reason"])
    provider = CPU if reason else CUDA
    return EngineStatus(ORT_TRAINING, True, found["version"], provider, device_of(provider), reason)
