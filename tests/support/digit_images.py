"""The digits as images, in every container that images come in."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as arrow
from pyarrow import parquet

from tests.support import digits
from tests.support.image_bundles import as_folder, as_tar, as_zip, png

COUNT = 40
_BATCH = digits.batch(count=COUNT)
PIXELS = np.rint(_BATCH["image"][:, 0] * 255).clip(0, 255).astype(np.uint8)
LABELS = [int(label) for label in _BATCH["labels"]]
PNGS = [png(pixels) for pixels in PIXELS]
FOLDERS = {f"{n}/{i:03}.png": p for i, (n, p) in enumerate(zip(LABELS, PNGS, strict=True))}
"""One folder per class."""
FOLDERS_ORDER = sorted(range(COUNT), key=lambda i: f"{LABELS[i]}/{i:03}")
"""Positions of the digits in the order of those files."""
SHARD = {f"{i:03}.png": p for i, p in enumerate(PNGS)} | {
    f"{i:03}.cls": str(n).encode() for i, n in enumerate(LABELS)
}
"""As WebDataset writes them."""
GUESS: dict[str, Any] = {"resize": [28, 28], "channels": "gray", "input": "image"}
"""What the model's input suggests, and what is right for it."""


def as_parquet(path: Path) -> Path:
    """As `datasets` writes an image set."""
    table = {"image": [{"bytes": p, "path": None} for p in PNGS], "label": LABELS}
    parquet.write_table(arrow.table(table), path)
    return path


SOURCES: dict[str, Callable[[Path], Path]] = {
    "folder": lambda path: as_folder(path, FOLDERS),
    "zip": lambda path: as_zip(path, FOLDERS),
    "WebDataset": lambda path: as_tar(path, SHARD),
    "parquet": as_parquet,
}
