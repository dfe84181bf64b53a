"""Batches drawn from the calibration samples; images are moved, mirrored and pasted together.

The original network gives the targets, so what a batch holds needs no label and need not be a
photograph: it only has to show both networks the kind of pixels they meet. A few hundred samples
seen again and again unchanged are learnt by heart; with these changes they are not (Beyer et al.
2022, "Knowledge distillation: a good teacher is patient and consistent"; CutMix: Yun et al. 2019).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from graph_ops.bundle import Dataset
from graph_ops.recovery.samples import RefitSamples
from graph_ops.runtime import Array

SAMPLE_BYTES = 600_000_000
"""Samples kept in memory, at most; with larger ones fewer are used."""
MAX_COLOURS = 4
"""An axis this short next to two longer ones holds the colours of an image."""
SMALLEST_SIDE = 8
"""Pixels; smaller maps are left as they are."""
SHIFT_SHARE = 8
"""Images move by up to one part in so many of their side."""
PASTED_SHARE = 0.5
"""Share of the images that get a rectangle of another one."""


def read_samples(dataset: Dataset, samples: RefitSamples) -> dict[str, Array]:
    """[N, ...] inputs, by name, of as many samples (spread over all) as `SAMPLE_BYTES` holds.

    Args:
        dataset: The bundle bound to the model; its held-out part is not read.
        samples: Those set aside are not among them.
    """
    rest = np.setdiff1d(dataset.scored, samples.checked.scored)
    each = sum(
        int(np.prod(shape)) * dataset.input_dtypes[name].itemsize
        for name, shape in dataset.input_shapes.items()
    )
    count = max(1, min(rest.size, SAMPLE_BYTES // max(1, each)))
    picked = rest[np.linspace(0, rest.size - 1, count).round().astype(int)]
    parts = [
        {name: array[: batch.size] for name, array in batch.inputs.items()}
        for batch in replace(dataset, scored=picked).batches("scored")
    ]
    return {name: np.concatenate([p[name] for p in parts]) for name in parts[0]}


def training_batches(
    samples: Mapping[str, Array], size: int, seed: int
) -> Iterator[dict[str, Array]]:
    """Endless batches; samples come in a new random order each time round.

    Args:
        samples: [N, ...] by input name.
        size: Samples of a batch (drawn again where there are fewer).
        seed: Of every draw.
    """
    rng = np.random.default_rng(seed)
    count = next(iter(samples.values())).shape[0]
    axes = None
    if len(samples) == 1:
        axes = image_axes(next(iter(samples.values())))
    waiting = np.empty(0, dtype=np.int64)
    while True:
        while waiting.size < size:
            waiting = np.concatenate([waiting, rng.permutation(count)])
        chosen, waiting = waiting[:size], waiting[size:]
        batch = {name: array[chosen] for name, array in samples.items()}
        if axes is not None:
            batch = {name: changed_images(array, axes, rng) for name, array in batch.items()}
        yield batch


def image_axes(array: Array) -> tuple[int, int] | None:
    """The axes of height and width of a batch of images (NCHW or NHWC); None for other data."""
    if array.ndim != 4 or array.dtype.kind != "f":
        return None
    _, first, middle, last = array.shape
    if first <= MAX_COLOURS and min(middle, last) >= SMALLEST_SIDE:
        return 2, 3
    if last <= MAX_COLOURS and min(first, middle) >= SMALLEST_SIDE:
        return 1, 2
    return None


def changed_images(images: Array, axes: tuple[int, int], rng: np.random.Generator) -> Array:
    """[N, ...] the images mirrored, moved, and with rectangles of each other."""
    is_mirrored = np.asarray(rng.random(images.shape[0]) < 0.5)
    mirrored = np.where(is_mirrored.reshape(-1, 1, 1, 1), np.flip(images, axes[1]), images)
    return pasted(moved(mirrored, axes, rng), axes, rng)


def moved(images: Array, axes: tuple[int, int], rng: np.random.Generator) -> Array:
    """Each image moved by some pixels; what comes in from outside repeats the border."""
    sides = [images.shape[a] for a in axes]
    reach = [max(1, side // SHIFT_SHARE) for side in sides]
    offsets = [rng.integers(-r, r + 1, images.shape[0]) for r in reach]
    result = np.empty_like(images)
    for n in range(images.shape[0]):
        image = images[n]
        for axis, side, offset in zip(axes, sides, offsets, strict=True):
            places = np.clip(np.arange(side) + offset[n], 0, side - 1)
            image = np.take(image, places, axis=axis - 1)
        result[n] = image
    return result


def pasted(images: Array, axes: tuple[int, int], rng: np.random.Generator) -> Array:
    """Some images with a rectangle of another one, at the same place."""
    result = images.copy()
    others = rng.permutation(images.shape[0])
    for n in np.flatnonzero(rng.random(images.shape[0]) < PASTED_SHARE):
        scale = np.sqrt(rng.random())
        window: list[Any] = [slice(None)] * 3
        for axis in axes:
            side = images.shape[axis]
            length = int(side * scale)
            begin = int(rng.integers(0, side - length + 1))
            window[axis - 1] = slice(begin, begin + length)
        result[n][tuple(window)] = images[others[n]][tuple(window)]
    return result
