"""The digits example as test data: model, bundle, and an independent float64 forward pass."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from numpy.lib.stride_tricks import sliding_window_view
from onnx import numpy_helper

FOLDER = Path(__file__).parents[2] / "examples" / "digits"
MODEL = FOLDER / "digits.onnx"
BUNDLE = FOLDER / "calibration.npz"
TEST = FOLDER / "test.npz"
CONVOLUTIONS = ("conv1", "conv2", "conv3")


def batch(start: int = 0, count: int = 32) -> dict[str, np.ndarray]:
    with np.load(BUNDLE) as data:
        rows = slice(start, start + count)
        return {"image": data["image"][rows], "labels": data["labels"][rows]}


def weights() -> dict[str, np.ndarray]:
    model = onnx.load(MODEL)
    return {i.name: numpy_helper.to_array(i).astype(np.float64) for i in model.graph.initializer}


def losses(
    w: dict[str, np.ndarray],
    images: np.ndarray,
    labels: np.ndarray,
    gates: dict[str, np.ndarray] | None = None,
) -> np.ndarray:
    """[N] cross-entropy in float64; `gates` multiply outputs by node name, [C]."""
    x = images.astype(np.float64)
    for number, pad in ((1, 0), (2, 1), (3, 1)):
        name = f"conv{number}"
        x = np.pad(x, ((0, 0), (0, 0), (pad, pad), (pad, pad)))
        kernel = w[f"{name}.weight"]
        windows = sliding_window_view(x, kernel.shape[2:], axis=(2, 3))
        x = np.einsum("nchwij,ocij->nohw", windows, kernel, optimize=True)
        x = x + w[f"{name}.bias"][:, None, None]
        if gates is not None and name in gates:
            x = x * gates[name][:, None, None]
        mean, var = w[f"bn{number}.running_mean"], w[f"bn{number}.running_var"]
        scale = w[f"bn{number}.weight"] / np.sqrt(var + 1e-5)
        x = (x - mean[:, None, None]) * scale[:, None, None] + w[f"bn{number}.bias"][:, None, None]
        if gates is not None and f"bn{number}" in gates:
            x = x * gates[f"bn{number}"][:, None, None]
        x = np.maximum(x, 0)
    z = x.reshape(x.shape[0], -1) @ w["fc.weight"].T + w["fc.bias"]
    z -= z.max(axis=1, keepdims=True)
    log_p = z - np.log(np.exp(z).sum(axis=1, keepdims=True))
    return np.asarray(-log_p[np.arange(len(labels)), labels])
