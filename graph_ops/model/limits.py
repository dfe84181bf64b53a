"""How large a model file may be before it is refused."""

from __future__ import annotations

from dataclasses import dataclass

PROTOBUF_LIMIT_BYTES = 2**31 - 1
"""The largest message protobuf can read or write."""


@dataclass(frozen=True)
class ModelLimits:
    """Limits of one model upload; every refusal names the limit it broke.

    Attributes:
        max_bytes: Size of the uploaded file.
        max_unpacked_bytes: Size of an archive's files together, unpacked.
        max_unpacked_ratio: Unpacked bytes per byte of the archive. Deflate cannot exceed 1032;
            trained weights hardly compress at all.
        max_members: Files in an archive.
    """

    max_bytes: int = 16 * 2**30
    max_unpacked_bytes: int = 32 * 2**30
    max_unpacked_ratio: float = 200.0
    max_members: int = 10_000
