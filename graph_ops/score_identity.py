"""What scores are scores of, so that they are not added to those of something else."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graph_ops.bundle import ArrayInfo
from graph_ops.scoring import Scorer


def digest_of(mask: NDArray[np.bool_]) -> str:
    """sha256, in hex, of a mask [classes]."""
    return hashlib.sha256(mask.tobytes()).hexdigest()


def loss_identity(scorer: Scorer | None, seed: int) -> str:
    """The loss as it was resolved; random projections depend on the seed.

    Args:
        scorer: What takes the scores; None where the criterion needs no gradients.
        seed: The option.
    """
    if scorer is None:
        return "none"
    loss = scorer.loss
    used = seed if loss.name == "projection" else 0
    return f"{loss.name} {loss.targets} {scorer.form.name} {used}"


def binding(
    sample_shapes: Mapping[str, tuple[int, ...]], targets: ArrayInfo | None
) -> dict[str, Any]:
    """Shapes of one sample's inputs and targets, JSON-ready: enough to open the network again."""
    shapes = {name: list(shape) for name, shape in sorted(sample_shapes.items())}
    of_one = (
        None if targets is None else {"dtype": str(targets.dtype), "shape": list(targets.shape[1:])}
    )
    return {"sample_shapes": shapes, "targets": of_one}
