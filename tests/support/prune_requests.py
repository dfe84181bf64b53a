"""Shorthand for the requests that tests send."""

from __future__ import annotations

from typing import Any

import httpx

from tests.support.server import Server


def prune(
    server: Server,
    model: bytes = b"ok",
    bundle: bytes = b"ok",
    options: str | None = None,
    filename: str = "net.onnx",
    metadata: str | None = None,
    **headers: str,
) -> httpx.Response:
    """POST /v1/prune; header names are given with underscores."""
    texts = {"options": options, "metadata": metadata}
    return server.client.post(
        "/v1/prune",
        files={"model": (filename, model), "bundle": ("cal.npz", bundle)},
        data={name: text for name, text in texts.items() if text is not None},
        headers=as_headers(headers),
    )


def submit(server: Server, model: bytes, **headers: str) -> str:
    """Start a job and return its id at once."""
    response = prune(server, model, prefer="respond-async", **headers)
    assert response.status_code == 202, response.text
    job_id: str = response.json()["id"]
    return job_id


def upload(server: Server, kind: str, content: bytes = b"ok") -> str:
    """Store a model or bundle, and return its id."""
    response = server.client.post(f"/v1/{kind}s", content=content)
    assert response.status_code in (200, 201), response.text
    upload_id: str = response.json()["id"]
    return upload_id


def job_body(server: Server, model: bytes = b"ok", **more: Any) -> dict[str, Any]:
    """Body of a request for a job on a stored model.

    The model is stored by a prune request, which does not look at it: an inspection would do
    what it says.
    """
    model_id = server.client.get(f"/v1/jobs/{submit(server, model)}").json()["model_id"]
    return {"model_id": model_id, "bundle_id": upload(server, "bundle"), **more}


def as_headers(headers: dict[str, str]) -> dict[str, str]:
    """Headers whose names are given with underscores."""
    return {name.replace("_", "-"): value for name, value in headers.items()}
