"""Finds the CUDA 11.8 and cuDNN 8 libraries that the training runtime was linked to.

They are installed as wheels (`nvidia-*-cu11`), each with a folder of its own that no loader
searches. Loading them beforehand makes them known to the process, and nobody has to set
LD_LIBRARY_PATH; libraries of one folder need each other, so what fails is tried again after the
others. Needs only the standard library.
"""

from __future__ import annotations

import ctypes
import sysconfig
from collections.abc import Callable, Iterable
from pathlib import Path

FOLDERS = ("cuda_runtime", "cuda_nvrtc", "cublas", "cufft", "curand", "cudnn")
"""Folders under `nvidia/`, what others need first."""


def library_files(site_packages: Path) -> list[Path]:
    """Every CUDA library of an environment."""
    return [
        file
        for folder in FOLDERS
        for file in sorted((site_packages / "nvidia" / folder / "lib").glob("lib*.so*"))
    ]


def _load(path: str) -> object:
    return ctypes.CDLL(path, mode=ctypes.RTLD_GLOBAL)


def preload(
    files: Iterable[Path] | None = None, load: Callable[[str], object] = _load
) -> list[str]:
    """Load the libraries; what could not be loaded, and why.

    Args:
        files: The libraries; those of this environment when not given.
        load: Loads one.
    """
    if files is None:
        files = library_files(Path(sysconfig.get_paths()["purelib"]))
    waiting: list[Path] = list(files)
    failures: dict[Path, str] = {}
    while waiting:
        failures = {}
        for file in waiting:
            try:
                load(str(file))
            except OSError as error:
                failures[file] = f"{file.name}: {error}"
        if len(failures) == len(waiting):
            break
        waiting = list(failures)
    return list(failures.values())
