"""Hugging Face image sets: a parquet file with a column of encoded images and one of labels.

The image column is a struct of `bytes` and `path` (the `Image` feature), or plain binary. Read with
pyarrow, the extra `parquet`, a few rows at a time.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO, Final

import numpy as np

from graph_ops.bundle.arrays import Array
from graph_ops.bundle.limits import BundleLimits
from graph_ops.bundle.samples import class_ids
from graph_ops.errors import BundleFormatError, ImageError

SIGNATURE: Final = b"PAR1"
BATCH_ROWS: Final = 64
BUFFER_BYTES: Final = 1 << 20
LABEL_COLUMNS: Final = ("label", "labels", "fine_label", "class", "cls", "target")


@dataclass(frozen=True)
class ParquetImages:
    """The rows of a parquet file."""

    file: Any
    column: str
    is_struct: bool
    count: int
    limits: BundleLimits
    labels: Array | None
    classes: tuple[str, ...] | None

    @property
    def names(self) -> tuple[str, ...]:
        """`row 0`, `row 1`, ..."""
        return tuple(f"row {i}" for i in range(self.count))

    def encoded(self) -> Iterator[tuple[int, bytes | None]]:
        """As `ImageSource.encoded`."""
        position = 0
        for batch in _batches(self.file, self.column, BATCH_ROWS):
            for value in batch.column(0).to_pylist():
                content = value.get("bytes") if isinstance(value, dict) else value
                if content is not None:
                    self.limits.check_image_bytes(f"row {position}", len(content))
                yield position, content
                position += 1


def open_parquet(
    file: BinaryIO, classes: tuple[str, ...] | None, limits: BundleLimits
) -> ParquetImages:
    """The images of a parquet file.

    Raises:
        BundleFormatError: pyarrow is not installed, or the file is damaged.
        ImageError: there is no column of images.
    """
    try:
        import pyarrow as arrow
        from pyarrow import parquet
    except ImportError:
        raise BundleFormatError(
            "A parquet file takes pyarrow: install the extra, onnx-filter-pruner[parquet]."
        ) from None
    try:
        # Read ahead, it would keep the whole file in memory.
        opened = parquet.ParquetFile(file, pre_buffer=False, buffer_size=BUFFER_BYTES)
        limits.check_images(opened.metadata.num_rows)
        schema = opened.schema_arrow
        column, is_struct = _image_column(arrow, schema)
        labels, names = _labels(opened, schema, classes)
    except (arrow.ArrowException, OSError) as error:
        raise BundleFormatError(f"The parquet file cannot be read: {error}.") from None
    return ParquetImages(opened, column, is_struct, opened.metadata.num_rows, limits, labels, names)


def _batches(opened: Any, column: str, rows: int) -> Iterator[Any]:
    """A column in pieces; one reader for each row group, which lets go of it at its end."""
    for group in range(opened.num_row_groups):
        yield from opened.iter_batches(batch_size=rows, row_groups=[group], columns=[column])


def _image_column(arrow: Any, schema: Any) -> tuple[str, bool]:
    for field in schema:
        if arrow.types.is_struct(field.type) and field.type.get_field_index("bytes") >= 0:
            return field.name, True
    for field in schema:
        if arrow.types.is_binary(field.type) or arrow.types.is_large_binary(field.type):
            return field.name, False
    raise ImageError(
        "The parquet file has no column of encoded images.", found=[f.name for f in schema]
    )


def _labels(
    opened: Any, schema: Any, classes: tuple[str, ...] | None
) -> tuple[Array | None, tuple[str, ...] | None]:
    column = next((name for name in LABEL_COLUMNS if name in schema.names), None)
    if column is None:
        return None, classes
    words: list[str] = []
    for batch in _batches(opened, column, 4096):
        words += ["" if v is None else str(v) for v in batch.column(0).to_pylist()]
    if "" in words:
        raise ImageError(f"Row {words.index('')} of the parquet file has no {column!r}.")
    if all(word.removeprefix("-").isdigit() for word in words):
        return np.asarray([int(word) for word in words], np.int64), _names(schema, column, classes)
    return class_ids(words, classes)


def _names(schema: Any, column: str, classes: tuple[str, ...] | None) -> tuple[str, ...] | None:
    """Class names that the `datasets` library wrote into the file's metadata."""
    if classes is not None:
        return classes
    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
        return tuple(map(str, features[column]["names"]))
    except (KeyError, TypeError, ValueError):
        return None
