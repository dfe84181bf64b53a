"""What a bundle has to hold for a model."""

from __future__ import annotations

from dataclasses import dataclass

from graph_ops.bundle.arrays import DType


@dataclass(frozen=True)
class InputSpec:
    """One graph input of the model (initializers excluded).

    Attributes:
        name: Name of the input, and of the bundle's array for it.
        dtype: Element type the model takes.
        dims: Extent of each axis, None where it is symbolic; axis 0 is the batch axis.
    """

    name: str
    dtype: DType
    dims: tuple[int | None, ...]
