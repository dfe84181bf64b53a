"""Image sets in several files: an archive or a folder of WebDataset tars, or of parquet files."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import BinaryIO, Final

import numpy as np

from graph_ops.bundle.arrays import Array, temporary_file, write_all
from graph_ops.bundle.images import ImageListing
from graph_ops.bundle.limits import BundleLimits
from graph_ops.bundle.members import Archive, TarMembers
from graph_ops.bundle.parquet import open_parquet
from graph_ops.bundle.samples import ImageSource, find_images, read_settings
from graph_ops.errors import BundleFormatError, ImageError
from graph_ops.preprocessing import Preprocessing, parse_preprocessing

PARQUET_SUFFIX: Final = ".parquet"
SUFFIXES: Final = (".tar", ".tar.gz", ".tgz", PARQUET_SUFFIX)


@dataclass(frozen=True)
class JoinedImages:
    """The images of several sources, one behind the other."""

    names: tuple[str, ...]
    labels: Array | None
    classes: tuple[str, ...] | None
    sources: tuple[ImageSource, ...]

    def encoded(self) -> Iterator[tuple[int, bytes | None]]:
        """As `ImageSource.encoded`."""
        begin = 0
        for source in self.sources:
            for position, content in source.encoded():
                yield begin + position, content
            begin += len(source.names)


def is_image_shard(name: str) -> bool:
    """Whether a file's name is that of a part of an image set."""
    return name.endswith(SUFFIXES)


def list_image_shards(
    archive: Archive, given: Preprocessing | None, limits: BundleLimits, resources: ExitStack
) -> ImageListing:
    """The images of all shards, in the order of the shards' names.

    Settings lie beside the shards in `bundle.json`; those that are given replace it. A shard is
    unpacked into a temporary file, and may be as large as `max_image_bytes`.

    Raises:
        BundleFormatError: a shard is damaged.
        BundleTooLargeError: over one of the limits.
        PreprocessingError: `bundle.json` is not valid.
        ImageError: no images, or labels that do not go together.
    """
    stored = read_settings(archive) if given is None else None
    settings = parse_preprocessing(stored) if stored is not None else given
    classes = None if settings is None else settings.classes
    wanted = sorted((m for m in archive.members if is_image_shard(m.name)), key=lambda m: m.name)
    limits.check_count(len(wanted))
    found: dict[str, ImageSource] = {}
    for member, content in archive.read(wanted):
        if content is None:
            raise BundleFormatError(f"Shard {member.name!r} cannot be read.", member=member.name)
        file = temporary_file(resources)
        write_all(file, content)
        found[member.name] = _open(file, member.name, classes, limits)
    return ImageListing(_joined([(m.name, found[m.name]) for m in wanted], limits), settings)


def _open(
    file: BinaryIO, name: str, classes: tuple[str, ...] | None, limits: BundleLimits
) -> ImageSource:
    if name.endswith(PARQUET_SUFFIX):
        return open_parquet(file, classes, limits)
    return find_images(TarMembers(file, limits), classes)


def _joined(shards: Sequence[tuple[str, ImageSource]], limits: BundleLimits) -> JoinedImages:
    sources = tuple(source for _, source in shards)
    limits.check_images(sum(len(source.names) for source in sources))
    names = tuple(f"{shard}/{name}" for shard, source in shards for name in source.names)
    labels, classes = _labels(shards)
    return JoinedImages(names, labels, classes, sources)


def _labels(
    shards: Sequence[tuple[str, ImageSource]],
) -> tuple[Array | None, tuple[str, ...] | None]:
    """Ids of all images. A shard knows only the names that it has: ids go by those of all."""
    first, source = shards[0]
    for name, other in shards:
        if (other.labels is None) != (source.labels is None) or (
            (other.classes is None) != (source.classes is None)
        ):
            raise ImageError(
                f"The shards {first!r} and {name!r} do not have their labels in one form.",
                found=[first, name],
            )
    ids = [other.labels for _, other in shards if other.labels is not None]
    named = {other.classes for _, other in shards if other.classes is not None}
    if not ids:
        return None, source.classes
    if len(named) < 2:
        return np.concatenate(ids), source.classes
    classes = tuple(sorted(set().union(*named)))
    places = {name: i for i, name in enumerate(classes)}
    moved = [
        np.asarray([places[name] for name in other.classes], np.int64)[other.labels]
        for _, other in shards
        if other.classes is not None
    ]
    return np.concatenate(moved), classes
