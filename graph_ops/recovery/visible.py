"""What the readers of a value see of it: Relu and Clip show nothing beyond their bounds.

Where the original's value is beyond a bound, every value beyond it is as good. A regression that
ignores this spends half of what it has on differences that a Relu then hides.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from graph_ops.graph import constant_array, float_of, input_at


@dataclass(frozen=True)
class Visible:
    """A range of values that differ to their readers.

    Attributes:
        low: All values up to it look alike.
        high: All values from it on look alike.
    """

    low: float = -math.inf
    high: float = math.inf

    @property
    def is_everything(self) -> bool:
        """Whether no two values look alike."""
        return math.isinf(self.low) and math.isinf(self.high)

    def shown(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Values as the readers see them."""
        return values if self.is_everything else np.clip(values, self.low, self.high)

    def nearest(
        self, found: NDArray[np.float64], wanted: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """The values next to `found` that look like those that are wanted."""
        below = np.where(wanted <= self.low, np.minimum(found, self.low), wanted)
        return np.where(wanted >= self.high, np.maximum(found, self.high), below)


def visible(value: ir.Value) -> Visible:
    """What all readers of a value together see of it."""
    found = [_seen_by(use.node, use.idx) for use in value.uses()]
    if value.is_graph_output() or not found:
        return Visible()
    return Visible(min(v.low for v in found), max(v.high for v in found))


def _seen_by(node: ir.Node, place: int) -> Visible:
    if node.domain not in ("", "ai.onnx") or place != 0:
        return Visible()
    if node.op_type == "Relu":
        return Visible(low=0.0)
    if node.op_type == "Clip":
        return Visible(_bound(node, 1, "min", -math.inf), _bound(node, 2, "max", math.inf))
    return Visible()


def _bound(node: ir.Node, place: int, attribute: str, missing: float) -> float:
    """A bound of a Clip: an attribute up to opset 10, an input from 11 on."""
    value = input_at(node, place)
    if value is None:
        return float_of(node, attribute, missing)
    array = constant_array(value)
    return missing if array is None or array.size != 1 else float(array.reshape(()))
