"""What a machine computes with, as far as the last bits of a result may depend on it."""

from __future__ import annotations

import ctypes
import functools
import hashlib
import platform
from collections.abc import Callable
from pathlib import Path
from typing import Any

from graph_ops.gpu import DRIVER_LIBRARY
from graph_ops.providers import Accelerator

_CPU_FACTS = Path("/proc/cpuinfo")
_VECTOR_UNITS = ("amx", "asimd", "avx", "f16c", "fma", "sse", "sve")
"""How the processor flags begin that ONNX Runtime's kernels are chosen by."""
_NAME_BYTES = 256


@functools.cache
def machine_kind(device: str) -> str:
    """Equal on machines that compute the same bits.

    Args:
        device: What computes: `cpu` or `gpu`.
    """
    if device == "gpu":
        return gpu_name(Accelerator.from_environment().device)
    return processor(_CPU_FACTS)


def processor(facts: Path) -> str:
    """The processor's model and vector units, in few characters.

    Args:
        facts: What Linux says about it (`/proc/cpuinfo`).
    """
    try:
        lines = facts.read_text().splitlines()
    except OSError:
        lines = []
    found: dict[str, str] = {}
    for line in lines:
        name, _, value = line.partition(":")
        found.setdefault(name.strip().lower(), value.strip())
    flags = found.get("flags", found.get("features", "")).split()
    units = sorted(flag for flag in flags if flag.startswith(_VECTOR_UNITS))
    model = found.get("model name") or found.get("cpu part") or platform.machine()
    return hashlib.sha256("|".join([model, *units]).encode()).hexdigest()[:16]


def gpu_name(number: int, load: Callable[[str], Any] = ctypes.CDLL) -> str:
    """The name of a GPU; empty where the driver shows none of this number.

    Args:
        number: Its index among those that CUDA shows.
        load: Loads a shared library.
    """
    try:
        driver = load(DRIVER_LIBRARY)
    except OSError:
        return ""
    device, name = ctypes.c_int(0), ctypes.create_string_buffer(_NAME_BYTES)
    if driver.cuInit(0) or driver.cuDeviceGet(ctypes.byref(device), number):
        return ""
    if driver.cuDeviceGetName(name, _NAME_BYTES, device):
        return ""
    return name.value.decode(errors="replace")
