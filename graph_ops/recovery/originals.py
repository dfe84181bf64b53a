"""What the original computes where layers are matched, kept from one refit to the next.

A search and a curve refit a network at many sizes, on the same samples. Whatever was cut, a layer
is held against the original at the same positions; one that reads fewer channels takes the first of
them. So those values are drawn for the layer as it is in the original, once, and as long as they
are there the original is not run again.
"""

from __future__ import annotations

from dataclasses import dataclass

from graph_ops.recovery.layers import Layer
from graph_ops.recovery.rows import Draw
from graph_ops.runtime import Array

KEPT_BYTES = 256 * 2**20
"""Values of all layers, at most; for the layers after that the original is run each time."""


@dataclass(frozen=True)
class Drawn:
    """The original at the positions drawn in one batch.

    Attributes:
        draw: The positions.
        values: [samples, drawn, channels] what it has there, in all its channels.
    """

    draw: Draw
    values: Array


class Originals:
    """Values of the original by the layer and the samples they were drawn for."""

    def __init__(self) -> None:
        self._kept: dict[tuple[int, str, int], list[Drawn]] = {}
        self._room = KEPT_BYTES

    def find(self, layer: Layer, samples: int) -> list[Drawn] | None:
        """Of every batch; None where they are not there.

        Args:
            layer: The layer.
            samples: How many are refitted on: with others, others were drawn.
        """
        return self._kept.get((layer.index, str(layer.match.name), samples))

    def keep(self, layer: Layer, samples: int, drawn: list[Drawn]) -> None:
        """Keep values where there is room for them."""
        size = sum(d.values.nbytes + d.draw.flat.nbytes for d in drawn)
        key = layer.index, str(layer.match.name), samples
        if size <= self._room and key not in self._kept:
            self._room -= size
            self._kept[key] = drawn
