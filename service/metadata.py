"""What users write on their jobs: up to 16 pairs, which lists can be filtered by."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

from service.problems import Problem

MAX_PAIRS = 16
MAX_VALUE_LENGTH = 512

_KEY = re.compile(r"[A-Za-z0-9][\w.\-/]{0,63}")


def parse_metadata(text: str | None) -> dict[str, str]:
    """Metadata from JSON text.

    Raises:
        Problem: `metadata_invalid`.
    """
    if text is None:
        return {}
    try:
        return check_metadata(json.loads(text))
    except (ValueError, RecursionError):
        raise Problem("metadata_invalid", "The metadata is not JSON.") from None


def check_metadata(data: Any) -> dict[str, str]:
    """Metadata that is within its limits.

    Raises:
        Problem: `metadata_invalid`.
    """
    if not isinstance(data, dict):
        raise Problem("metadata_invalid", "The metadata is not a JSON object.")
    if len(data) > MAX_PAIRS:
        raise Problem(
            "metadata_invalid",
            f"The metadata has {len(data)} pairs; at most {MAX_PAIRS} are kept.",
            limit=MAX_PAIRS,
        )
    for key, value in data.items():
        if not _KEY.fullmatch(key):
            raise Problem(
                "metadata_invalid",
                f"The key {key[:80]!r} has to be 1 to 64 letters, digits and . _ - / and to begin "
                "with a letter or digit.",
                key=key[:80],
            )
        if not isinstance(value, str) or not _is_text(value):
            raise Problem(
                "metadata_invalid",
                f"The value of {key!r} has to be a text of up to {MAX_VALUE_LENGTH} characters.",
                key=key,
                limit=MAX_VALUE_LENGTH,
            )
    return data


def _is_text(value: str) -> bool:
    """Whether a value is short enough, and every database can hold it."""
    is_encodable = not any("\ud800" <= ch <= "\udfff" for ch in value)
    return len(value) <= MAX_VALUE_LENGTH and "\0" not in value and is_encodable


def parse_labels(texts: Sequence[str]) -> list[tuple[str, str | None]]:
    """Filters `key=value`, or `key` for any value."""
    pairs: list[tuple[str, str | None]] = []
    for text in texts:
        key, equals, value = text.partition("=")
        pairs.append((key, value if equals else None))
    return pairs
