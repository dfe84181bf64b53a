"""Detector, U-Net and super-resolution: what a person expects to shrink shrinks, with its proof."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from graph_ops import prune
from tests.support.architectures import super_resolution, unet, yolo

SAMPLES = 4

EXPECTED = {
    "yolo": (yolo, 32, {"graph output", "normalises over it", "single filter"}),
    "unet": (unet, 32, {"graph output"}),
    "super_resolution": (super_resolution, 16, {"graph output"}),
}
"""Builder, image side, and a word of every reason for which a convolution may be left alone."""


@pytest.mark.parametrize("name", EXPECTED)
def test_it_is_cut_to_0_7_of_its_macs_and_proven(name: str, tmp_path: Path) -> None:
    build, side, words = EXPECTED[name]
    images = np.random.default_rng(0).standard_normal((SAMPLES, 3, side, side))
    np.savez(tmp_path / "bundle.npz", image=images.astype(np.float32))
    options = {"target": {"max_macs_ratio": 0.7}, "recovery": "none", "batch_size": 2}
    report = prune(build(), tmp_path / "bundle.npz", options).report
    assert report["stop_reason"] == "target_reached"
    assert report["proof"]["max_rel_diff"] < 1e-5
    reasons = [c["frozen"] for c in report["convolutions"] if c["frozen"]]
    assert all(any(word in reason for word in words) for reason in reasons), reasons
    assert report["filters"]["prunable_before"] > 0.6 * report["filters"]["before"]


@pytest.mark.parametrize("build", [unet, super_resolution])
def test_only_the_last_convolution_is_left_alone(build: Callable[[], bytes]) -> None:
    from tests.support.cutting import analyse_bytes

    analysis = analyse_bytes(build())
    names = [c.name for c in analysis.classes.channels.convolutions]
    assert [n for n in names if not analysis.is_prunable(n)] == names[-1:]
