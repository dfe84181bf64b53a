"""Whether this machine has a GPU that CUDA can use, asked of the driver itself.

`libcuda` belongs to the driver, so it is there exactly where a driver is. Each CUDA runtime needs
a driver of at least its own major version.
"""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

DRIVER_LIBRARY = "libcuda.so.1"
STANDARD_CUDA = (13, 0)
"""CUDA version that `onnxruntime-gpu` (from 1.31 on) is built for."""
TRAINING_CUDA = (11, 8)
"""CUDA version that `onnxruntime-training` 1.19.2 is built for."""


@dataclass(frozen=True)
class GpuState:
    """What the driver says.

    Attributes:
        devices: GPUs that CUDA shows to this process.
        driver: Newest CUDA version the driver can run, (major, minor); None without a driver.
        reason: Why there is no device, or None.
    """

    devices: int
    driver: tuple[int, int] | None
    reason: str | None

    @property
    def is_present(self) -> bool:
        """Whether there is a device at all."""
        return self.devices > 0

    def obstacle(self, needed: tuple[int, int]) -> str | None:
        """Why a runtime built for a CUDA version cannot use a GPU here, or None."""
        if not self.is_present:
            return self.reason or "there is no GPU"
        if self.driver is not None and self.driver < needed:
            return (
                f"the driver is too old: it runs CUDA {self.driver[0]}.{self.driver[1]}, and "
                f"{needed[0]}.{needed[1]} is needed"
            )
        return None


@functools.cache
def machine_state() -> GpuState:
    """What the driver of this machine says, asked once per process."""
    return gpu_state()


def gpu_state(load: Callable[[str], Any] = ctypes.CDLL) -> GpuState:
    """Ask the driver.

    Args:
        load: Loads a shared library.
    """
    try:
        driver = load(DRIVER_LIBRARY)
    except OSError:
        return GpuState(0, None, "there is no NVIDIA driver")
    number = ctypes.c_int(0)
    version = None
    if driver.cuDriverGetVersion(ctypes.byref(number)) == 0:
        version = (number.value // 1000, number.value % 1000 // 10)
    status = driver.cuInit(0)
    if status != 0:
        return GpuState(0, version, f"the NVIDIA driver does not start (error {status})")
    count = ctypes.c_int(0)
    status = driver.cuDeviceGetCount(ctypes.byref(count))
    if status != 0 or count.value == 0:
        return GpuState(0, version, "the NVIDIA driver shows no GPU")
    return GpuState(count.value, version, None)
