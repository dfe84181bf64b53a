"""A cut network on its way through recovery: the model, and what it was made of."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from graph_ops.channel_classes import ChannelClasses
from graph_ops.recovery.weights import RefittedWeights
from graph_ops.surgery import cut


@dataclass(frozen=True)
class CutNetwork:
    """A network without some of its classes.

    Attributes:
        classes: Channel classes of the original.
        dropped: [classes] which were dropped.
        weights: What was refitted before, and is in the model already.
        model: The cut model; its weights are rewritten in place.
    """

    classes: ChannelClasses
    dropped: NDArray[np.bool_]
    weights: RefittedWeights
    model: ir.Model

    @classmethod
    def of(
        cls, classes: ChannelClasses, dropped: NDArray[np.bool_], weights: RefittedWeights
    ) -> CutNetwork:
        """Cut the original, and lay weights over the cut.

        Args:
            classes: Channel classes of the original.
            dropped: [classes] which are dropped.
            weights: What was refitted.
        """
        model = cut(classes, dropped)
        weights.lay_over(classes, dropped, model)
        return cls(classes, dropped, weights, model)

    @property
    def original(self) -> ir.Model:
        """The whole network."""
        return self.classes.channels.model

    def changed(self, tensors: Iterable[str], biases: Iterable[str]) -> RefittedWeights:
        """The weights with what was rewritten in the model.

        Args:
            tensors: Names of the stored tensors that were.
            biases: First outputs of nodes that were given a bias they did not have.
        """
        return self.weights.updated(self.classes, self.dropped, self.model, tensors, biases)
