"""Losses: which one fits, and its head on the scoring graph.

`choice` decides from the model's output, the targets and the options; `heads` writes the nodes.
"""

from graph_ops.loss.choice import LossChoice, OutputForm, choose_loss, output_form
from graph_ops.loss.heads import TARGET_INPUT, LossHead, attach_loss

__all__ = [
    "TARGET_INPUT",
    "LossChoice",
    "LossHead",
    "OutputForm",
    "attach_loss",
    "choose_loss",
    "output_form",
]
