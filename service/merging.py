"""The sum of a session's pieces, made in a child and gone after use."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio.to_thread

from service.files import remove
from service.problems import Problem
from service.runner import ChildFailure
from service.sessions import Session

if TYPE_CHECKING:
    from service.services import Services


@dataclass(frozen=True)
class Merged:
    """A state on disk.

    Attributes:
        path: The file.
        sha256: Digest of its bytes.
    """

    path: Path
    sha256: str


@asynccontextmanager
async def merged_states(
    services: Services,
    session: Session,
    more: Sequence[Path] = (),
    model: Path | None = None,
    options: dict[str, Any] | None = None,
) -> AsyncIterator[Merged]:
    """Add up a session's pieces.

    Args:
        services: The parts of the API.
        session: Whose pieces.
        more: States that are added too.
        model: The session's model, to hold the sum against; None to leave that out.
        options: The session's options, with `model`.

    Raises:
        Problem: a state is none, or of another model or definition; there is none.
    """
    workdir = await anyio.to_thread.run_sync(services.storage.new_temporary)
    try:
        names = [piece.name for piece in session.pieces]
        unpack = services.sessions.unpack
        states = await anyio.to_thread.run_sync(unpack, session.id, names, workdir)
        try:
            await services.children.merge(workdir, [*states, *more], model, options)
        except ChildFailure as failure:
            raise Problem.from_parts(failure.code, failure.detail, failure.members) from None
        path = workdir / "merged.npz"
        content = await anyio.to_thread.run_sync(path.read_bytes)
        yield Merged(path, hashlib.sha256(content).hexdigest())
    finally:
        with anyio.CancelScope(shield=True):
            await anyio.to_thread.run_sync(remove, workdir)
