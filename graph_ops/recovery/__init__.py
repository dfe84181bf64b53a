"""Accuracy given back in closed form, without labels, gradients or training (docs/method.md)."""

from graph_ops.recovery.acceptance import Classifier, recover
from graph_ops.recovery.summary import LayerRecovery, Recovery
from graph_ops.recovery.weights import RefittedWeights

__all__ = ["Classifier", "LayerRecovery", "Recovery", "RefittedWeights", "recover"]
