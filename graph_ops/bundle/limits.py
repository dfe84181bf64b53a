"""What a bundle may hold at most.

Sizes a file declares are held against these limits before a byte is unpacked; the real sizes
are held against the declared ones while unpacking. So a zip bomb costs neither memory nor disk.
"""

from __future__ import annotations

from dataclasses import dataclass

from graph_ops.errors import BundleTooLargeError

MIB = 1 << 20
GIB = 1 << 30


@dataclass(frozen=True)
class BundleLimits:
    """Limits of one bundle; sizes are in bytes.

    Attributes:
        max_arrays: Arrays (and other archive members) in the bundle.
        max_array_bytes: Size of one array.
        max_unpacked_bytes: Size of all arrays together.
        max_unpacked_ratio: Unpacked over packed size of all arrays. Deflate reaches 1032 on
            zeros; real images stay under 20.
        ratio_floor_bytes: Bundles that unpack to no more than this are not held to the ratio:
            a small array of equal labels packs very well and does no harm.
        max_samples: Samples along the batch axis. The split keeps a few integers per sample in
            memory, all else is streamed.
        max_images: Files in a bundle of images.
        max_image_bytes: Size of one of them (or of one shard of arrays), unpacked.
        max_image_pixels: Height × width that an image may say it has, before it is decoded.
    """

    max_arrays: int = 1024
    max_array_bytes: int = 8 * GIB
    max_unpacked_bytes: int = 16 * GIB
    max_unpacked_ratio: float = 200.0
    ratio_floor_bytes: int = 16 * MIB
    max_samples: int = 10_000_000
    max_images: int = 1_000_000
    max_image_bytes: int = 256 * MIB
    max_image_pixels: int = 64 << 20

    def check_count(self, count: int) -> None:
        """Hold the number of arrays against `max_arrays`.

        Raises:
            BundleTooLargeError: there are more.
        """
        if count > self.max_arrays:
            raise BundleTooLargeError(
                f"The bundle holds {count} arrays; the limit is {self.max_arrays}.",
                limit="max_arrays",
                expected=self.max_arrays,
                found=count,
            )

    def check_sizes(self, unpacked: dict[str, int], packed_bytes: int) -> None:
        """Hold the declared sizes of the arrays against the limits.

        Args:
            unpacked: Bytes of each array, by name, once unpacked.
            packed_bytes: Bytes of all of them as they lie in the file.

        Raises:
            BundleTooLargeError: an array, their sum, or their ratio to the file is too large.
        """
        for name, size in unpacked.items():
            if size > self.max_array_bytes:
                raise BundleTooLargeError(
                    f"Array {name!r} takes {size} bytes; the limit is {self.max_array_bytes}.",
                    array=name,
                    limit="max_array_bytes",
                    expected=self.max_array_bytes,
                    found=size,
                )
        self.check_unpacked(sum(unpacked.values()), packed_bytes)

    def check_unpacked(self, total: int, packed_bytes: int) -> None:
        """Hold what a bundle unpacks to against the limits.

        Raises:
            BundleTooLargeError: it is too large, or too large for the bytes it comes from.
        """
        if total > self.max_unpacked_bytes:
            raise BundleTooLargeError(
                f"The bundle unpacks to {total} bytes; the limit is {self.max_unpacked_bytes}.",
                limit="max_unpacked_bytes",
                expected=self.max_unpacked_bytes,
                found=total,
            )
        ratio = total / max(packed_bytes, 1)
        if total > self.ratio_floor_bytes and ratio > self.max_unpacked_ratio:
            raise BundleTooLargeError(
                f"The bundle unpacks to {ratio:.0f} times its packed size; the limit is "
                f"{self.max_unpacked_ratio:g}. Save it without compression (np.savez).",
                limit="max_unpacked_ratio",
                expected=self.max_unpacked_ratio,
                found=ratio,
            )

    def check_images(self, count: int) -> None:
        """Hold the number of files against `max_images`.

        Raises:
            BundleTooLargeError: there are more.
        """
        if count > self.max_images:
            raise BundleTooLargeError(
                f"The bundle holds more than {self.max_images} files.",
                limit="max_images",
                expected=self.max_images,
                found=count,
            )

    def check_image_bytes(self, name: str, size: int) -> None:
        """Hold the size of one file against `max_image_bytes`.

        Raises:
            BundleTooLargeError: it is larger.
        """
        if size > self.max_image_bytes:
            raise BundleTooLargeError(
                f"{name!r} in the bundle has {size} bytes; the limit is {self.max_image_bytes}.",
                member=name,
                limit="max_image_bytes",
                expected=self.max_image_bytes,
                found=size,
            )

    def check_samples(self, array: str, samples: int) -> None:
        """Hold the number of samples against `max_samples`.

        Raises:
            BundleTooLargeError: there are more.
        """
        if samples > self.max_samples:
            raise BundleTooLargeError(
                f"Array {array!r} holds {samples} samples; the limit is {self.max_samples}.",
                array=array,
                limit="max_samples",
                expected=self.max_samples,
                found=samples,
            )


DEFAULT_LIMITS = BundleLimits()
