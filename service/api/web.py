"""The dashboard at `/` and its files, served from this machine alone.

The files stand under a path that names their digest. A browser may keep them for good, and never
mixes those of two versions: a new page names a new path.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from fastapi import APIRouter, Response
from fastapi.responses import HTMLResponse
from starlette.exceptions import HTTPException
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

from service.access import PUBLIC

router = APIRouter(include_in_schema=False)

FOLDER = Path(__file__).resolve().parent.parent / "web"

# The system's own table of types differs from one machine to the next.
MEDIA_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
    ".txt": "text/plain; charset=utf-8",
}

# No script or style but the files below, nothing from or to another host, no frame around it.
# What is not named here falls back to nothing.
CONTENT_SECURITY_POLICY = "; ".join(
    [
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' data:",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
        "require-trusted-types-for 'script'",
    ]
)

_PLACE_OF_ASSETS = "{{assets}}"


def _digest(folder: Path) -> str:
    """Digest of the names and bytes of all files."""
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            digest.update(f"{path.relative_to(folder)}\0{path.stat().st_size}\0".encode())
            digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


class Assets(StaticFiles):
    """The files of `service/web`, under `/web/{digest}/`."""

    def __init__(self, folder: Path = FOLDER) -> None:
        super().__init__(directory=str(folder))
        self.digest = _digest(folder)

    async def get_response(self, path: str, scope: Scope) -> Response:
        """A file, to be kept for good; `not_found` under any digest but the present one."""
        digest, _, name = path.partition("/")
        if digest != self.digest:
            raise HTTPException(404)
        response = await super().get_response(name, scope)
        response.headers["Cache-Control"] = "public, max-age=31536000, immutable"
        if response.status_code == 200:  # a 304 has no body to name the type of
            response.headers["Content-Type"] = MEDIA_TYPES[Path(name).suffix]
        response.headers["Content-Security-Policy"] = CONTENT_SECURITY_POLICY
        return response


ASSETS = Assets()


def page(name: str, content_security_policy: str) -> HTMLResponse:
    """A page of `service/web` that finds its assets."""
    text = (FOLDER / name).read_text().replace(_PLACE_OF_ASSETS, f"/web/{ASSETS.digest}")
    headers = {
        "Content-Security-Policy": content_security_policy,
        "Cache-Control": "no-cache",
        "Referrer-Policy": "no-referrer",
    }
    return HTMLResponse(text, headers=headers)


@router.get("/", response_class=Response, openapi_extra=PUBLIC)
async def dashboard() -> HTMLResponse:
    """Prune models, watch jobs, compare results."""
    return page("index.html", CONTENT_SECURITY_POLICY)
