"""Real architectures with a random choice of filters: every convolution that may shrink does."""

from __future__ import annotations

import io

import numpy as np
import pytest

from graph_ops.pruning import prune
from tests.support.models import LIGHT_NETWORKS, light_input, light_network

EXPECTED_WHOLE = {"shufflenet": ["n0"]}
"""ShuffleNet's stem reaches one group of the first concatenation only: it could go in bundles of
sixteen classes, and there are always smaller ones."""


@pytest.mark.parametrize("name", [n for n in LIGHT_NETWORKS if n != "vgg19"])
def test_every_convolution_that_is_not_frozen_shrinks(name: str) -> None:
    """A random half goes, so nothing depends on which filters the scores prefer."""
    file = io.BytesIO()
    images = np.random.default_rng(0).standard_normal((2, 3, 224, 224)).astype(np.float32)
    np.savez(file, **{light_input(name): images})  # type: ignore[arg-type]
    report = prune(
        light_network(name, shrink=16),
        file.getvalue(),
        {
            "target": {"filter_ratio": 0.6},
            "criterion": "random",
            "recovery": "none",
            "validation_fraction": 0,
            "on_unreachable": "best",
        },
    ).report
    whole = [
        e["name"]
        for e in report["convolutions"]
        if e["frozen"] is None and e["filters_after"] == e["filters_before"]
    ]
    assert whole == EXPECTED_WHOLE.get(name, [])
    assert report["proof"]["max_rel_diff"] <= 1e-4
