"""Errors of other libraries, turned into ours."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from graph_ops.errors import InvalidModelError, PrunerError


@contextmanager
def refusing(what: str, **details: object) -> Iterator[None]:
    """Turns whatever `onnx`, `onnx_ir`, protobuf or NumPy raise inside into `InvalidModelError`.

    Those libraries document no closed set of exceptions for malformed input (ValueError,
    RuntimeError, TypeError, UnicodeDecodeError, RecursionError, AssertionError, their own), so
    every `Exception` counts; running out of memory stays what it is.

    Args:
        what: What was being done, as the start of a sentence: "Shape inference failed".
        details: Facts for the error's details.
    """
    try:
        yield
    except (PrunerError, MemoryError):
        raise
    except Exception as error:
        raise InvalidModelError(
            f"{what}: {_innermost(error)}", reason=type(error).__name__, **details
        ) from error


def _innermost(error: BaseException) -> str:
    """The first cause's words: onnx_ir wraps an error once per level of nesting."""
    while error.__cause__ is not None:
        error = error.__cause__
    return " ".join(str(error).split())[:1000] or type(error).__name__
