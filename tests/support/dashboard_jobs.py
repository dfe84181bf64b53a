"""Jobs for the dashboard's tests and screenshots: the digits network, cut in seconds."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import urlencode

import httpx

from tests.support import digits

QUICK = {"recovery": "none", "max_samples": 200}
# So many rounds that a test is over long before the job.
ENDLESS = {**QUICK, "target": {"filters": 40}, "steps": 1000, "max_samples": 1000}


def upload(client: httpx.Client) -> dict[str, str]:
    """The digits model and bundle under their own names: the part of a job's body with ids."""
    ids = {}
    for name, kind, path in (
        ("model_id", "models", digits.MODEL),
        ("bundle_id", "bundles", digits.BUNDLE),
    ):
        response = client.post(f"/v1/{kind}", files={"file": (path.name, path.read_bytes())})
        response.raise_for_status()
        ids[name] = response.json()["id"]
    return ids


def send(client: httpx.Client, options: dict[str, Any]) -> str:
    """Send a job on the digits network; its id."""
    response = client.post("/v1/jobs", json={**upload(client), "options": options})
    response.raise_for_status()
    job_id: str = response.json()["id"]
    return job_id


def prune_address(client: httpx.Client, options: dict[str, Any]) -> str:
    """Address of the dashboard's first view with the digits network and these options."""
    ids = upload(client)
    query = {
        "model": ids["model_id"],
        "bundle": ids["bundle_id"],
        "options": json.dumps(options),
    }
    return f"/?{urlencode(query)}"
