"""Exact rewrites for the training runtime, one file per family; importing it fills the table."""

from graph_ops.engines.ort_training.rewrites import pointwise, products, shaping, spatial
from graph_ops.engines.ort_training.rewrites.registry import NATIVE, REWRITES, rewrite
from graph_ops.engines.ort_training.rewrites.writer import Writer

__all__ = ["NATIVE", "REWRITES", "Writer", "pointwise", "products", "rewrite", "shaping", "spatial"]
