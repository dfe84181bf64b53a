"""The last stage of recovery: a cut network learns the original's outputs, without labels."""

from graph_ops.recovery.distill.stage import distill

__all__ = ["distill"]
