"""Errors become a message on stderr and an exit code by their class.

    error[target_unreachable]: Target filters = 900 cannot be reached: ...
      wanted: 900.0
      best: {"filters_dropped": 48, ...}

What is not in the table is a bug of this program: Python's traceback and its exit code 1.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Final

import typer

from graph_ops.errors import (
    BundleError,
    EngineError,
    ModelError,
    OptionsError,
    ProofError,
    PrunerError,
    ScoreError,
    SurgeryError,
    UnreachableTargetError,
)

OK: Final = 0
FAILED: Final = 1
USAGE: Final = 2
"""Also what the argument parser exits with."""
INTERRUPTED: Final = 130
"""128 + SIGINT, as shells count."""

EXIT_CODES: Final[dict[type[PrunerError], int]] = {
    OptionsError: USAGE,
    ModelError: 3,
    BundleError: 4,
    ScoreError: 5,
    UnreachableTargetError: 6,
    EngineError: 8,
    SurgeryError: 7,
    ProofError: 7,
}
"""Exit code of each error class and of everything below it."""

MAX_DETAIL_CHARS: Final = 400
"""A detail is cut here: a list of a thousand convolution names hides the message."""


def exit_code(error: PrunerError) -> int:
    """Exit code of an error: that of its nearest class in `EXIT_CODES`."""
    return next((EXIT_CODES[c] for c in type(error).__mro__ if c in EXIT_CODES), FAILED)


@contextmanager
def exit_on_error() -> Iterator[None]:
    """Turn the library's errors, failed file access and Ctrl-C into messages and exit codes."""
    try:
        yield
    except PrunerError as error:
        _print_error(error.code, error.message, error.details)
        raise typer.Exit(exit_code(error)) from None
    except BrokenPipeError:
        raise  # the reader of stdout has gone (`| head`); typer ends quietly
    except OSError as error:
        file = {} if error.filename is None else {"file": str(error.filename)}
        _print_error("file_access", f"{error.strerror or error}.", file)
        raise typer.Exit(FAILED) from None
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        raise typer.Exit(INTERRUPTED) from None


def _print_error(code: str, message: str, details: Mapping[str, object]) -> None:
    print(f"error[{code}]: {message}", file=sys.stderr)
    for name, value in details.items():
        text = value if isinstance(value, str) else json.dumps(value, default=str)
        if len(text) > MAX_DETAIL_CHARS:
            text = text[: MAX_DETAIL_CHARS - 1] + "…"
        print(f"  {name}: {text}", file=sys.stderr)
