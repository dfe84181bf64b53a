"""Whether an output can be written, before any work is done for it."""

from __future__ import annotations

from pathlib import Path

from graph_ops.errors import OptionsError


def check_output(flag: str, path: Path | None, *others: Path | None) -> None:
    """Refuse an output that cannot be written or would hit another file; None passes.

    Args:
        flag: What named it.
        path: The output.
        others: Files of the same call.

    Raises:
        OptionsError: it cannot be written there.
    """
    if path is None:
        return
    if not path.parent.is_dir():
        raise OptionsError(
            f"{flag}: there is no folder {str(path.parent)!r}; make it first.", flag=flag
        )
    if path.is_dir():
        raise OptionsError(f"{flag}: {str(path)!r} is a folder; name a file in it.", flag=flag)
    if any(other is not None and other.resolve() == path.resolve() for other in others):
        raise OptionsError(
            f"{flag}: {str(path)!r} is also another file of this call; name a different one.",
            flag=flag,
        )
