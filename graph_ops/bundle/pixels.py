"""Images to samples, as the settings say.

The steps and their roundings are torchvision's (resize the shorter side, crop the middle, scale,
subtract, divide), so that a network trained there sees what it saw.
"""

from __future__ import annotations

import math

import numpy as np
from PIL import Image

from graph_ops.bundle.arrays import Array
from graph_ops.preprocessing import MAX_SIDE, Preprocessing, Size


def to_pixels(image: Image.Image, settings: Preprocessing) -> Array:
    """An opened image as uint8 [height, width, channels], resized and cropped."""
    converted = image.convert("L" if settings.channels == "gray" else "RGB")
    if settings.resize is not None:
        filter_ = Image.Resampling[settings.interpolation.upper()]
        converted = converted.resize(_resized(converted.size, settings.resize), filter_)
    if settings.crop is not None:
        converted = _middle(converted, settings.crop)
    array = np.asarray(converted, dtype=np.uint8)
    array = array.reshape(*array.shape[:2], settings.channel_count)
    return array[..., ::-1] if settings.channels == "bgr" else array


def to_samples(pixels: Array, settings: Preprocessing) -> Array:
    """Samples from uint8 pixels [n, height, width, channels], in the model's layout."""
    wide = np.float64 if settings.dtype == "float64" else np.float32
    dtype = np.dtype(settings.dtype)
    values: Array = np.multiply(pixels, settings.scale, dtype=wide)
    if settings.mean:
        values -= np.asarray(settings.mean, dtype=wide)
    if settings.std:
        values /= np.asarray(settings.std, dtype=wide)
    if dtype.kind in "iu":
        limits = np.iinfo(dtype)
        values = np.clip(np.rint(values), limits.min, limits.max)
    if settings.layout == "NCHW":
        values = values.transpose(0, 3, 1, 2)
    return np.ascontiguousarray(values, dtype=dtype)


def _resized(size: tuple[int, int], wanted: Size) -> tuple[int, int]:
    """(width, height) of the resized image."""
    if isinstance(wanted, tuple):
        return wanted[1], wanted[0]
    width, height = size
    if width <= height:
        return wanted, min(MAX_SIDE, int(wanted * height / width))
    return min(MAX_SIDE, int(wanted * width / height)), wanted


def _middle(image: Image.Image, wanted: Size) -> Image.Image:
    height, width = wanted if isinstance(wanted, tuple) else (wanted, wanted)
    left = _offset(image.width, width)
    top = _offset(image.height, height)
    return image.crop((left, top, left + width, top + height))


def _offset(extent: int, wanted: int) -> int:
    """Where the middle begins; negative where zeros have to fill it up."""
    return round((extent - wanted) / 2) if extent >= wanted else -math.floor((wanted - extent) / 2)
