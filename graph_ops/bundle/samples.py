"""Which images an archive holds, and the class of each: what the layout of its files says.

cat/1.jpg, dog/2.jpg             one folder per class (torchvision's ImageFolder)
1.jpg, 2.jpg, labels.csv         a table: file name, class name or id
000.jpg, 000.cls                 a WebDataset shard: files of one stem are one sample
1.jpg, 2.jpg                     no labels
"""

from __future__ import annotations

import csv
import io
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Final, Protocol

import numpy as np

from graph_ops.bundle.arrays import Array
from graph_ops.bundle.members import Archive, Member
from graph_ops.errors import ImageError
from graph_ops.preprocessing import SETTINGS_NAME

IMAGE_SUFFIXES: Final = frozenset(
    {".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".ppm", ".pgm", ".gif"}
)
LABELS_NAME: Final = "labels.csv"
CLASS_SUFFIX: Final = ".cls"
MAX_TABLE_BYTES: Final = 64 << 20


class ImageSource(Protocol):
    """Encoded images and their labels, in a fixed order."""

    @property
    def names(self) -> tuple[str, ...]:
        """What a message calls each image."""
        ...

    @property
    def labels(self) -> Array | None:
        """[n] class ids; None without labels."""
        ...

    @property
    def classes(self) -> tuple[str, ...] | None:
        """Class names by id, where they have names."""
        ...

    def encoded(self) -> Iterator[tuple[int, bytes | None]]:
        """(position, content) of every image, in any order; None for one that is unreadable."""
        ...


@dataclass(frozen=True)
class ArchiveImages:
    """Images in an archive or a folder, in the order of their names."""

    archive: Archive
    images: tuple[Member, ...]
    labels: Array | None
    classes: tuple[str, ...] | None

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the files."""
        return tuple(member.name for member in self.images)

    def encoded(self) -> Iterator[tuple[int, bytes | None]]:
        """As `ImageSource.encoded`."""
        positions = {member: i for i, member in enumerate(self.images)}
        for member, content in self.archive.read(self.images):
            yield positions[member], content


def is_image(name: str) -> bool:
    """Whether a file's name is that of an image."""
    return PurePosixPath(name).suffix.lower() in IMAGE_SUFFIXES


def read_settings(archive: Archive) -> bytes | None:
    """`bundle.json`, or None where there is none."""
    return _small_file(archive, SETTINGS_NAME)


def find_images(archive: Archive, classes: tuple[str, ...] | None) -> ArchiveImages:
    """The images of an archive with their labels.

    Args:
        archive: The archive.
        classes: Class names in the order of their ids, where the settings say so.

    Raises:
        ImageError: no images, or the labels cannot be told.
    """
    images = tuple(sorted((m for m in archive.members if is_image(m.name)), key=lambda m: m.name))
    if not images:
        raise ImageError(
            "The bundle holds no images.", found=[m.name for m in archive.members[:20]]
        )
    table = _small_file(archive, LABELS_NAME)
    if table is not None:
        words = _from_table(table, images)
    elif any(m.name.endswith(CLASS_SUFFIX) for m in archive.members):
        words = _from_shard(archive, images)
    elif any("/" in m.name for m in images):
        # Folders are names also where they look like numbers, as in ImageFolder.
        words = _from_folders(images)
        classes = classes if classes is not None else tuple(sorted(set(words)))
    else:
        return ArchiveImages(archive, images, None, classes)
    labels, names = class_ids(words, classes)
    return ArchiveImages(archive, images, labels, names)


def class_ids(
    words: list[str], classes: tuple[str, ...] | None
) -> tuple[Array, tuple[str, ...] | None]:
    """[n] ids of classes given by name or by number, and the names by id.

    Whole numbers are ids as they stand; names get the ids of their order in `classes`, or in the
    alphabet.

    Raises:
        ImageError: a class is not among `classes`.
    """
    if classes is None and all(_is_number(word) for word in words):
        return np.asarray([int(word) for word in words], np.int64), None
    names = classes if classes is not None else tuple(sorted(set(words)))
    ids = {name: i for i, name in enumerate(names)}
    unknown = sorted(set(words) - ids.keys())
    if unknown:
        raise ImageError(
            f"The class {unknown[0]!r} is not among the classes that {SETTINGS_NAME} lists.",
            unknown=unknown[:20],
            expected=list(names),
        )
    return np.asarray([ids[word] for word in words], np.int64), names


def _is_number(word: str) -> bool:
    return word.isascii() and word.isdigit() and len(word) < 10


def _from_folders(images: Collection[Member]) -> list[str]:
    loose = [m.name for m in images if "/" not in m.name]
    if loose:
        raise ImageError(
            f"{loose[0]!r} lies beside the class folders; put every image into one.",
            found=loose[:20],
        )
    return [m.name.split("/", 1)[0] for m in images]


def _from_table(table: bytes, images: Collection[Member]) -> list[str]:
    """Rows of file name and class; a first row that names no image is the heading."""
    try:
        rows = [row for row in csv.reader(io.StringIO(table.decode("utf-8-sig"))) if row]
    except (UnicodeDecodeError, csv.Error) as error:
        raise ImageError(f"{LABELS_NAME} is not a CSV table in UTF-8: {error}.") from None
    if rows and not is_image(rows[0][0].strip()):
        rows = rows[1:]
    found: dict[str, str] = {}
    for number, row in enumerate(rows, 1):
        if len(row) < 2 or not row[1].strip():
            raise ImageError(f"Row {number} of {LABELS_NAME} has no class: {row[:2]}.", row=number)
        name = row[0].strip().removeprefix("./")
        if found.setdefault(name, row[1].strip()) != row[1].strip():
            raise ImageError(f"{LABELS_NAME} gives {name!r} two classes.", row=number)
    missing = [m.name for m in images if m.name not in found]
    if missing:
        raise ImageError(
            f"{LABELS_NAME} has no row for {missing[0]!r} ({len(missing)} images in all).",
            missing=missing[:20],
        )
    return [found[m.name] for m in images]


def _from_shard(archive: Archive, images: Collection[Member]) -> list[str]:
    """Classes from the `.cls` file of the same stem."""
    files = {_stem(m.name): m for m in archive.members if m.name.endswith(CLASS_SUFFIX)}
    missing = [m.name for m in images if _stem(m.name) not in files]
    if missing:
        raise ImageError(
            f"{missing[0]!r} has no {CLASS_SUFFIX} file beside it ({len(missing)} images in all).",
            missing=missing[:20],
        )
    words = {
        _stem(member.name): (content or b"")[:200].decode("utf-8", "replace").strip()
        for member, content in archive.read(list(files.values()))
    }
    found = [words[_stem(m.name)] for m in images]
    if not all(found):
        raise ImageError(f"A {CLASS_SUFFIX} file is empty.")
    return found


def _stem(name: str) -> str:
    """A WebDataset key: the path up to the first dot of the file's name."""
    path = PurePosixPath(name)
    return str(path.with_name(path.name.split(".", 1)[0] or "_"))


def _small_file(archive: Archive, name: str) -> bytes | None:
    found = [m for m in archive.members if m.name == name]
    if not found:
        return None
    if found[0].size > MAX_TABLE_BYTES:
        raise ImageError(f"{name} has {found[0].size} bytes; the limit is {MAX_TABLE_BYTES}.")
    ((_, content),) = archive.read(found)
    if content is None:
        raise ImageError(f"{name} in the bundle cannot be read.")
    return content
