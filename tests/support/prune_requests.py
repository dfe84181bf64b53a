"""Shorthand for the requests that tests send."""

from __future__ import annotations

import httpx

from tests.support.server import Server


def prune(
    server: Server,
    model: bytes = b"ok",
    bundle: bytes = b"ok",
    options: str | None = None,
    filename: str = "net.onnx",
    **headers: str,
) -> httpx.Response:
    """POST /v1/prune; header names are given with underscores."""
    return server.client.post(
        "/v1/prune",
        files={"model": (filename, model), "bundle": ("cal.npz", bundle)},
        data={} if options is None else {"options": options},
        headers={name.replace("_", "-"): value for name, value in headers.items()},
    )


def submit(server: Server, model: bytes, **headers: str) -> str:
    """Start a job and return its id at once."""
    response = prune(server, model, prefer="respond-async", **headers)
    assert response.status_code == 202, response.text
    job_id: str = response.json()["id"]
    return job_id
