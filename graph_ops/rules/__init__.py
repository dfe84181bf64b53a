"""What each operator does to channels, and its gradient, side by side; one file per family.

Importing this package fills the tables of `registry`.
"""

from graph_ops.rules import (
    activations,
    arithmetic,
    contraction,
    convolution,
    dense,
    elementwise,
    indexing,
    joining,
    normalization,
    pooling,
    quantisation,
    reduction,
    repeating,
    resampling,
    shaping,
    unary,
    zero,
)
from graph_ops.rules.registry import COUPLINGS, GRADIENTS, DuplicateRuleError, coupling, gradient

__all__ = [
    "COUPLINGS",
    "GRADIENTS",
    "DuplicateRuleError",
    "activations",
    "arithmetic",
    "contraction",
    "convolution",
    "coupling",
    "dense",
    "elementwise",
    "gradient",
    "indexing",
    "joining",
    "normalization",
    "pooling",
    "quantisation",
    "reduction",
    "repeating",
    "resampling",
    "shaping",
    "unary",
    "zero",
]
