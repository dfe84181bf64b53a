"""The networks that are timed: exports of torchvision at their own size, 224².

They are exported once by the zoo's environment (`make zoo` or `make bench-speed` creates it) and
kept in `build/speed`. Weights are random, BatchNormalization is left to be folded by the runtime.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "build" / "speed"
VARIANT = "torchscript-unfolded"
PYTHON = ROOT / ".venv-zoo" / "bin" / "python"
SIDE = 224


def exported(name: str) -> Path:
    """The ONNX file of a network of torchvision, batch axis open.

    Raises:
        FileNotFoundError: it is not there, and neither is the environment that exports it.
    """
    path = FOLDER / name / f"{VARIANT}.onnx"
    if not path.exists():
        if not PYTHON.exists():
            raise FileNotFoundError(f"{PYTHON} exports {name}; make bench-speed creates it")
        script = ROOT / "benchmarks" / "zoo" / "export.py"
        command = [str(PYTHON), str(script), "torchvision", name, str(path.parent), "own", VARIANT]
        subprocess.run(command, check=True)
    return path


def images(model: Path, count: int) -> tuple[str, NDArray[np.float32]]:
    """Name of a model's input, and noise [count, 3, 224, 224] for it."""
    session = ort.InferenceSession(str(model), providers=["CPUExecutionProvider"])
    rng = np.random.default_rng(0)
    return session.get_inputs()[0].name, rng.standard_normal(
        (count, 3, SIDE, SIDE), dtype=np.float32
    )
