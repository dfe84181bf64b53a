"""Answers that are files: strong ETags, 304, ranges, HEAD (RFC 9110, 9530)."""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from pathlib import Path

from fastapi import Request, Response
from fastapi.responses import FileResponse
from starlette.types import Receive, Scope, Send

from service.problems import Problem

_RANGES = re.compile(r"bytes=\s*(?:\d*-\d*)(?:\s*,\s*\d*-\d*)*\s*")
_IMMUTABLE = "private, max-age=31536000, immutable"


class _WholeFileResponse(FileResponse):
    """A file response that does not see the request's Range header."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the file."""
        headers = [pair for pair in scope["headers"] if pair[0] != b"range"]
        await super().__call__({**scope, "headers": headers}, receive, send)


def file_response(
    request: Request,
    path: Path,
    *,
    sha256: str,
    size_bytes: int,
    media_type: str,
    filename: str,
    headers: Mapping[str, str] | None = None,
) -> Response:
    """A file that never changes, under its sha256 as ETag.

    Raises:
        Problem: `range_not_satisfiable`.
    """
    etag = f'"{sha256}"'
    all_headers = {"ETag": etag, "Cache-Control": _IMMUTABLE, **(headers or {})}
    if matches(request.headers.get("if-none-match"), etag):
        return Response(status_code=304, headers=all_headers)
    digest = base64.b64encode(bytes.fromhex(sha256)).decode()
    all_headers["Repr-Digest"] = f"sha-256=:{digest}:"
    wanted = request.headers.get("range")
    is_partial = wanted is not None and request.method in ("GET", "HEAD")
    if is_partial and request.headers.get("if-range", etag) == etag:
        assert wanted is not None
        usable = _check_ranges(wanted, size_bytes)
    else:
        usable = not is_partial
    response_class = FileResponse if usable else _WholeFileResponse
    return response_class(path, headers=all_headers, media_type=media_type, filename=filename)


def matches(if_none_match: str | None, etag: str) -> bool:
    """Whether the client has this version already (weak comparison, RFC 9110 section 13.1.2)."""
    if if_none_match is None:
        return False
    tags = [tag.strip().removeprefix("W/") for tag in if_none_match.split(",")]
    return "*" in tags or etag in tags


def _check_ranges(header: str, size_bytes: int) -> bool:
    """Whether the Range header can be followed; one that is not understood is ignored.

    Raises:
        Problem: `range_not_satisfiable` when no range lies inside the file.
    """
    if not _RANGES.fullmatch(header):
        return False
    specs = [spec.strip().split("-") for spec in header.split("=", 1)[1].split(",")]
    if any(
        not (first or last) or (first and last and int(first) > int(last)) for first, last in specs
    ):
        return False
    inside = [int(first) < size_bytes if first else int(last) > 0 for first, last in specs]
    if not any(inside):
        raise Problem(
            "range_not_satisfiable",
            f"The file has {size_bytes} bytes; the range lies outside.",
            headers={"Content-Range": f"bytes */{size_bytes}"},
            size_bytes=size_bytes,
        )
    return all(inside)
