"""Memory that was freed, given back to the system.

The C library keeps what is freed in pieces of less than 32 MB, for whoever asks next. After a phase
that had gigabytes of weights in such pieces (loaded sessions, models in float64) the next one would
come on top of them.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from functools import cache


def give_back_memory() -> None:
    """Give back what is free; nothing happens with C libraries that cannot be asked to."""
    trim = _trim()
    if trim is not None:
        trim(0)


@cache
def _trim() -> Callable[[int], int] | None:
    """Glibc's `malloc_trim`, or None."""
    try:
        found: Callable[[int], int] = ctypes.CDLL(None).malloc_trim
    except (OSError, TypeError, AttributeError):
        return None
    return found
