"""A job's report as a page: made of the stored JSON when it is asked for.

A page is made anew by every version of the service, so its tag is that of the report and of the
page's own parts. The header repeats the policy that the page has for when it is opened from disk,
and adds what only a header can say.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import anyio.to_thread
from fastapi import Request, Response

from graph_ops.report_page import CONTENT_SECURITY_POLICY, PAGE_DIGEST, render_report
from service.downloads import matches

_POLICY = f"{CONTENT_SECURITY_POLICY}; frame-ancestors 'none'; sandbox allow-scripts"


async def report_page_response(
    request: Request, path: Path, sha256: str, filename: str
) -> Response:
    """The page of a report.

    Args:
        request: For `If-None-Match`.
        path: Of `report.json`.
        sha256: Of the same.
        filename: Of the model, for the title.
    """
    tag = hashlib.sha256(f"{sha256} {PAGE_DIGEST} {filename}".encode()).hexdigest()
    headers = {
        "ETag": f'"{tag}"',
        "Cache-Control": "private, no-cache",
        "Content-Security-Policy": _POLICY,
        "Referrer-Policy": "no-referrer",
    }
    if matches(request.headers.get("if-none-match"), headers["ETag"]):
        return Response(status_code=304, headers=headers)
    page = await anyio.to_thread.run_sync(_render, path, filename)
    return Response(page, media_type="text/html", headers=headers)


def _render(path: Path, title: str) -> bytes:
    return render_report(json.loads(path.read_bytes()), title).encode()
