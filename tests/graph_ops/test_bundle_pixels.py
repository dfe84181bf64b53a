"""Images become the samples that torchvision makes of them.

The steps are written here once more, in plain Pillow and NumPy. Where TORCHVISION_PYTHON names an
interpreter that has torchvision, the same cases are compared with torchvision itself:

    python -m venv ~/tv && ~/tv/bin/pip install torchvision
    TORCHVISION_PYTHON=~/tv/bin/python make test-slow ARGS=tests/graph_ops/test_bundle_pixels.py
"""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from graph_ops.bundle.pixels import to_pixels, to_samples
from graph_ops.preprocessing import PRESETS, Preprocessing, parse_preprocessing

SIZES = [
    (640, 427),
    (427, 640),
    (257, 255),
    (333, 1000),
    (100, 80),
    (224, 224),
    (31, 500),
    (28, 28),
]
"""Width and height: wide, tall, odd, narrow, too small for the crop, exact."""
IMAGENET = PRESETS["imagenet"]
SETTINGS: dict[str, dict[str, Any]] = {
    "imagenet": IMAGENET,
    "cifar": PRESETS["cifar"],
    "odd crop": {**IMAGENET, "resize": 232, "crop": [197, 210]},
    "crop alone": {**IMAGENET, "resize": None, "crop": 90},
    "bicubic": {**IMAGENET, "interpolation": "bicubic"},
    "nearest": {**IMAGENET, "resize": [64, 48], "crop": None, "interpolation": "nearest"},
}


def photo(size: tuple[int, int]) -> Image.Image:
    """Smooth noise, so that every filter and every pixel of shift shows."""
    rng = np.random.default_rng(size)
    width, height = size
    coarse = rng.integers(0, 256, (max(2, height // 6), max(2, width // 6), 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC)


def ours(image: Image.Image, settings: Preprocessing) -> np.ndarray:
    sample: np.ndarray = to_samples(to_pixels(image, settings)[np.newaxis], settings)[0]
    return sample


def written_again(image: Image.Image, given: dict[str, Any]) -> np.ndarray:
    """resize, crop, scale, normalise: from the words of torchvision's documentation."""
    width, height = image.size
    resize, crop = given["resize"], given.get("crop")
    if isinstance(resize, int):
        longer = int(resize * max(width, height) / min(width, height))
        resize = [longer, resize] if height > width else [resize, longer]
    if resize is not None:
        filter_ = Image.Resampling[given.get("interpolation", "bilinear").upper()]
        image = image.resize((resize[1], resize[0]), filter_)
    pixels = np.asarray(image)
    if crop is not None:
        for axis, wanted in enumerate([crop, crop] if isinstance(crop, int) else crop):
            missing = max(0, wanted - pixels.shape[axis])
            padding = [(0, 0)] * 3
            padding[axis] = (missing // 2, missing - missing // 2)
            pixels = np.pad(pixels, padding)
            begin = round((pixels.shape[axis] - wanted) / 2)
            pixels = np.take(pixels, range(begin, begin + wanted), axis)
    mean, std = np.asarray(given["mean"]), np.asarray(given["std"])
    return ((pixels / 255 - mean) / std).transpose(2, 0, 1)


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("name", SETTINGS)
def test_samples_are_those_of_the_documented_steps(name: str, size: tuple[int, int]) -> None:
    image = photo(size)
    found = ours(image, parse_preprocessing(SETTINGS[name]))
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, written_again(image, SETTINGS[name]), rtol=1e-5, atol=1e-5)


@pytest.mark.slow
def test_samples_are_torchvisions(tmp_path: Path) -> None:
    python = os.environ.get("TORCHVISION_PYTHON")
    if python is None:
        pytest.skip("TORCHVISION_PYTHON names no interpreter with torchvision")
    cases = []
    for size in SIZES:
        file = tmp_path / f"{size[0]}x{size[1]}.png"
        photo(size).save(file)
        for name, given in SETTINGS.items():
            settings = parse_preprocessing(given).model_dump(mode="json")
            cases.append({**settings, "name": f"{name} {size}", "file": str(file)})
    (tmp_path / "cases.json").write_text(json.dumps(cases))
    script = Path(__file__).parents[1] / "support" / "torchvision_samples.py"
    command = [python, str(script), str(tmp_path / "cases.json"), str(tmp_path / "out.npz")]
    subprocess.run(command, check=True)
    with np.load(tmp_path / "out.npz") as theirs:
        assert len(theirs.files) == len(SIZES) * len(SETTINGS)
        for case in cases:
            with Image.open(case["file"]) as image:
                given = SETTINGS[case["name"].rsplit(" (", 1)[0]]
                found = ours(image, parse_preprocessing(given))
            np.testing.assert_allclose(
                found, theirs[case["name"]], rtol=1e-5, atol=1e-5, err_msg=case["name"]
            )
