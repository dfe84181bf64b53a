"""Accuracy given back: regressions, and a short training of blocks, no labels (docs/method.md)."""

from graph_ops.recovery.acceptance import recover
from graph_ops.recovery.judge import Classifier
from graph_ops.recovery.originals import Originals
from graph_ops.recovery.sensitivity import Sensitivity, Unmeasured, measure_sensitivity
from graph_ops.recovery.summary import LayerRecovery, Recovery
from graph_ops.recovery.weights import RefittedWeights

__all__ = [
    "Classifier",
    "LayerRecovery",
    "Originals",
    "Recovery",
    "RefittedWeights",
    "Sensitivity",
    "Unmeasured",
    "measure_sensitivity",
    "recover",
]
