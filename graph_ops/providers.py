"""Execution providers and their options: one list for every session of every runtime.

CUDA comes first where the runtime has it, on the device that `GPU_DEVICE` numbers, with an arena
bounded by `GPU_MEMORY_BYTES`. TF32 is off: it rounds products to 10 bits, and scores differ by
less than that. This module needs only the standard library: it is imported in the training
runtime's environment too.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

CUDA = "CUDAExecutionProvider"
CPU = "CPUExecutionProvider"

DEVICE_VARIABLE = "GPU_DEVICE"
MEMORY_VARIABLE = "GPU_MEMORY_BYTES"
THREADS_VARIABLE = "ORT_THREADS"

ProviderOptions = dict[str, str]


@dataclass(frozen=True)
class Accelerator:
    """Which GPU a process uses, and how much of it.

    Attributes:
        device: Index of the GPU, among those that CUDA shows.
        memory_bytes: Bound on the memory arena; None for all there is.
    """

    device: int = 0
    memory_bytes: int | None = None

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> Accelerator:
        """What `GPU_DEVICE` and `GPU_MEMORY_BYTES` say."""
        limit = environment.get(MEMORY_VARIABLE)
        return cls(int(environment.get(DEVICE_VARIABLE) or 0), int(limit) if limit else None)


def provider_list(
    available: Iterable[str], accelerator: Accelerator, obstacle: str | None = None
) -> list[tuple[str, ProviderOptions]]:
    """Providers with their options, best first.

    Args:
        available: What the runtime says it has.
        accelerator: The GPU to be used.
        obstacle: Why there is none to be used (`GpuState.obstacle`). CUDA is then not even tried:
            without a driver, loading the training runtime's CUDA provider aborts the process.
    """
    chosen: list[tuple[str, ProviderOptions]] = []
    names = set(available)
    if CUDA in names and obstacle is None:
        options = {
            "device_id": str(accelerator.device),
            "use_tf32": "0",
            "arena_extend_strategy": "kSameAsRequested",
            "cudnn_conv_algo_search": "HEURISTIC",
        }
        if accelerator.memory_bytes is not None:
            options["gpu_mem_limit"] = str(accelerator.memory_bytes)
        chosen.append((CUDA, options))
    chosen.append((CPU, {}))
    return chosen


def thread_count() -> int:
    """Threads of this process: `ORT_THREADS`, or the processors this process may use."""
    return int(os.environ.get(THREADS_VARIABLE, 0)) or len(os.sched_getaffinity(0))


def device_of(provider: str) -> str:
    """`cpu` or `gpu`."""
    return "cpu" if provider == CPU else "gpu"


_OUT_OF_MEMORY = (
    "failed to allocate memory",
    "out of memory",
    "bad allocation",
    "bad_alloc",
    "available memory of",
    "cublas_status_alloc_failed",
    "cudnn_status_alloc_failed",
)


def is_out_of_memory(message: str) -> bool:
    """Whether a runtime's error says that memory could not be had (CPU or GPU)."""
    lowered = message.lower()
    return any(phrase in lowered for phrase in _OUT_OF_MEMORY)
