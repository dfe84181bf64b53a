"""Decode images in parallel, once, into a temporary file of equal rows.

Pixels are kept as bytes, after resize and crop and before the arithmetic: a quarter of the floats
they become, and every round reads them without decoding again. A few images are in memory at a
time; how many there are in the bundle does not matter. Pillow decodes outside Python's lock, so
threads are enough.
"""

from __future__ import annotations

import io
import math
import os
import warnings
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from PIL import Image

from graph_ops.bundle.arrays import Array, ArrayInfo, Indices, StoredArray, temporary_file
from graph_ops.bundle.limits import BundleLimits
from graph_ops.bundle.pixels import to_pixels, to_samples
from graph_ops.bundle.samples import ImageSource
from graph_ops.errors import BundleTooLargeError, ImageError
from graph_ops.preprocessing import Preprocessing
from graph_ops.providers import thread_count

FORMATS: Final = ("JPEG", "PNG", "BMP", "WEBP", "TIFF", "PPM", "GIF")
_WAITING_PER_THREAD = 4
_NAMES_SHOWN = 20


@dataclass(frozen=True)
class PixelArray:
    """Decoded images as an array of samples.

    Attributes:
        info: Name, element type and shape of the samples.
        pixels: uint8 [all, height, width, channels] in the temporary file.
        places: [n] rows of `pixels` that were decoded.
        preprocessing: What turns pixels into samples.
    """

    info: ArrayInfo
    pixels: StoredArray
    places: Indices
    preprocessing: Preprocessing

    def rows(self, indices: Indices) -> Array:
        """As `ReadableArray.rows`."""
        return to_samples(self.pixels.rows(self.places[indices]), self.preprocessing)


@dataclass(frozen=True)
class Decoded:
    """What became of the images.

    Attributes:
        array: The samples.
        skipped: Names of the images that could not be decoded.
    """

    array: PixelArray
    skipped: tuple[str, ...]


def decode(
    source: ImageSource,
    name: str,
    preprocessing: Preprocessing,
    limits: BundleLimits,
    resources: ExitStack,
) -> Decoded:
    """Decode every image of a source.

    Args:
        source: The images.
        name: Name of the array, the model's input.
        preprocessing: The settings.
        limits: What the bundle may hold.
        resources: Takes over the temporary file.

    Raises:
        ImageError: more images are corrupt than the settings allow, or sizes differ.
        BundleTooLargeError: an image has too many pixels, or all have together.
    """
    names = source.names
    limits.check_samples(name, len(names))
    allowed = math.floor(preprocessing.max_corrupt * len(names))
    file = temporary_file(resources)
    is_there = np.zeros(len(names), dtype=np.bool_)
    skipped: list[int] = []
    shape: tuple[int, ...] | None = None
    for position, result in _decoded(source, preprocessing, limits):
        if isinstance(result, str):
            skipped.append(position)
            if len(skipped) > allowed:
                raise _too_many(names, skipped, result, preprocessing)
            continue
        if shape is None:
            shape = result.shape
            total = len(names) * result.nbytes
            limits.check_sizes({name: total}, total)
        if result.shape != shape:
            raise ImageError(
                f"{names[position]!r} becomes {list(result.shape[:2])} pixels and others "
                f"{list(shape[:2])}: give `resize` as [height, width], or a `crop`.",
                member=names[position],
                expected=list(shape),
                found=list(result.shape),
            )
        os.pwrite(file.fileno(), result.tobytes(), position * result.nbytes)
        is_there[position] = True
    if shape is None:
        raise ImageError("No image of the bundle could be decoded.")
    places = np.flatnonzero(is_there)
    info = ArrayInfo(name, np.dtype(np.uint8), (len(names), *shape))
    sample_shape = preprocessing.sample_shape(shape[0], shape[1])
    array = PixelArray(
        replace(info, dtype=np.dtype(preprocessing.dtype), shape=(places.size, *sample_shape)),
        StoredArray(info, file.fileno(), 0, info.dtype),
        places,
        preprocessing,
    )
    return Decoded(array, tuple(names[i] for i in sorted(skipped)))


def _decoded(
    source: ImageSource, preprocessing: Preprocessing, limits: BundleLimits
) -> Iterator[tuple[int, Array | str]]:
    """(position, pixels) or (position, why not), in the order of the source."""
    threads = thread_count()
    waiting: deque[tuple[int, Future[Array | str]]] = deque()
    with ThreadPoolExecutor(threads, thread_name_prefix="decode") as pool:
        try:
            for position, content in source.encoded():
                waiting.append((position, pool.submit(_pixels, content, preprocessing, limits)))
                if len(waiting) >= threads * _WAITING_PER_THREAD:
                    done, future = waiting.popleft()
                    yield done, future.result()
            while waiting:
                done, future = waiting.popleft()
                yield done, future.result()
        finally:
            for _, future in waiting:
                future.cancel()


def _pixels(
    content: bytes | None, preprocessing: Preprocessing, limits: BundleLimits
) -> Array | str:
    """Pixels of one image, or why there are none."""
    if content is None:
        return "it cannot be read from the archive"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # odd metadata; the sizes are checked here
            with Image.open(io.BytesIO(content), formats=FORMATS) as image:
                if image.width * image.height > limits.max_image_pixels:
                    raise BundleTooLargeError(
                        f"An image of the bundle has {image.width} × {image.height} pixels; the "
                        f"limit is {limits.max_image_pixels}.",
                        limit="max_image_pixels",
                        expected=limits.max_image_pixels,
                        found=image.width * image.height,
                    )
                return to_pixels(image, preprocessing)
    except BundleTooLargeError:
        raise
    except Exception as error:  # Pillow's decoders fail in ways of their own
        return str(error) or type(error).__name__


def _too_many(
    names: tuple[str, ...], skipped: list[int], why: str, preprocessing: Preprocessing
) -> ImageError:
    shown = [names[i] for i in skipped[:_NAMES_SHOWN]]
    return ImageError(
        f"{len(skipped)} of {len(names)} images cannot be decoded, the last of them "
        f"{names[skipped[-1]]!r} ({why[:200]}); at most a share of {preprocessing.max_corrupt:g} "
        "is skipped (`max_corrupt`).",
        corrupt=shown,
        expected=preprocessing.max_corrupt,
        found=len(skipped) / len(names),
    )
