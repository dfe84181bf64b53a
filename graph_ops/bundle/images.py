"""Bundles of images: an archive, a folder or a parquet file becomes arrays like any other's."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, BinaryIO, Final

from graph_ops.bundle.arrays import MemoryArray, ReadableArray
from graph_ops.bundle.decoding import decode
from graph_ops.bundle.guess import guess_preprocessing
from graph_ops.bundle.limits import BundleLimits
from graph_ops.bundle.members import Archive
from graph_ops.bundle.parquet import open_parquet
from graph_ops.bundle.samples import ImageSource, find_images, read_settings
from graph_ops.bundle.specs import InputSpec
from graph_ops.preprocessing import Preprocessing, missing_settings, parse_preprocessing

LABELS: Final = "labels"
DEFAULT_INPUT: Final = "image"


@dataclass(frozen=True)
class ImageFacts:
    """How images became samples.

    Attributes:
        preprocessing: The settings.
        classes: Class names by id; None where ids have no names.
        skipped: Names of the images that could not be decoded.
    """

    preprocessing: Preprocessing
    classes: tuple[str, ...] | None
    skipped: tuple[str, ...]

    def as_json(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
            "preprocessing": self.preprocessing.model_dump(mode="json"),
            "classes": None if self.classes is None else list(self.classes),
            "skipped": list(self.skipped),
        }


@dataclass(frozen=True)
class ImageListing:
    """A bundle of images before anything is decoded.

    Attributes:
        source: The images.
        preprocessing: Settings from the call or from `bundle.json`; None where there are none.
    """

    source: ImageSource
    preprocessing: Preprocessing | None


def list_archive(archive: Archive, given: Preprocessing | None) -> ImageListing:
    """The images of an archive or a folder; settings that are given replace `bundle.json`.

    Raises:
        PreprocessingError: `bundle.json` is not valid.
        ImageError: no images, or the labels cannot be told.
    """
    stored = read_settings(archive) if given is None else None
    settings = parse_preprocessing(stored) if stored is not None else given
    return ImageListing(find_images(archive, settings.classes if settings else None), settings)


def list_parquet(file: BinaryIO, given: Preprocessing | None, limits: BundleLimits) -> ImageListing:
    """The images of a parquet file, which has no room for settings.

    Raises:
        BundleFormatError: as `open_parquet`.
        ImageError: there is no column of images.
    """
    return ImageListing(open_parquet(file, given.classes if given else None, limits), given)


def decode_listing(
    listing: ImageListing,
    inputs: Sequence[InputSpec] | None,
    limits: BundleLimits,
    resources: ExitStack,
) -> tuple[list[ReadableArray], ImageFacts]:
    """The arrays of a listing: samples under the input's name, and `labels`.

    Args:
        listing: The images.
        inputs: The model's inputs, where they are known; the guess is made from them.
        limits: What the bundle may hold.
        resources: Takes over the temporary file.

    Raises:
        PreprocessingError: there are no settings; a guess is in the details.
        ImageError: too many images are corrupt.
    """
    settings = listing.preprocessing
    if settings is None:
        guess = guess_preprocessing(inputs) if inputs is not None else None
        raise missing_settings(None if guess is None else guess.settings)
    decoded = decode(listing.source, _input_name(settings, inputs), settings, limits, resources)
    arrays: list[ReadableArray] = [decoded.array]
    if listing.source.labels is not None:
        arrays.append(MemoryArray(LABELS, listing.source.labels[decoded.array.places]))
    return arrays, ImageFacts(settings, listing.source.classes, decoded.skipped)


def _input_name(settings: Preprocessing, inputs: Sequence[InputSpec] | None) -> str:
    if settings.input is not None:
        return settings.input
    return inputs[0].name if inputs is not None and len(inputs) == 1 else DEFAULT_INPUT
