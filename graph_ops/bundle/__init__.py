"""Calibration bundles: named arrays, or images that become arrays, read as mini-batches.

A file becomes a `Bundle` (which arrays there are, and where their bytes lie), a bundle bound to a
model's inputs becomes a `Dataset` (checked, split, batched). Rows are read from the file when
they are needed and never mapped, so memory does not grow with the bundle; nothing is unpickled.
"""

from graph_ops.bundle.arrays import ArrayInfo
from graph_ops.bundle.dataset import Batch, Dataset, InputSpec
from graph_ops.bundle.guess import guess_preprocessing
from graph_ops.bundle.images import ImageFacts
from graph_ops.bundle.limits import BundleLimits
from graph_ops.bundle.making import make_bundle
from graph_ops.bundle.source import Bundle, describe_bundle, open_bundle
from graph_ops.preprocessing import Preprocessing, parse_preprocessing

__all__ = [
    "ArrayInfo",
    "Batch",
    "Bundle",
    "BundleLimits",
    "Dataset",
    "ImageFacts",
    "InputSpec",
    "Preprocessing",
    "describe_bundle",
    "guess_preprocessing",
    "make_bundle",
    "open_bundle",
    "parse_preprocessing",
]
