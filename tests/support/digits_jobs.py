"""Jobs on the digits network, and what an undisturbed run of each leaves."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from graph_ops.pruning import prune
from tests.support import digits
from tests.support.reports import without_timings


@dataclass(frozen=True)
class Outcome:
    """All that a run leaves, but for the timings of its report."""

    model_sha256: str
    scores_sha256: str
    report: str


def undisturbed(options: dict[str, Any], folder: Path) -> Outcome:
    """What the library leaves when nothing happens to it."""
    result = prune(digits.MODEL, digits.BUNDLE, options)
    folder.mkdir(parents=True, exist_ok=True)
    model = result.write_model(folder / "pruned.onnx")
    result.write_scores(folder / "scores.npz")
    return Outcome(
        _sha256(model.read_bytes()),
        _sha256((folder / "scores.npz").read_bytes()),
        _comparable(result.report),
    )


def outcome_of(client: httpx.Client, job_id: str) -> Outcome:
    """What a job that succeeded left, as downloaded."""
    content = {}
    for name in ("model", "scores", "report"):
        response = client.get(f"/v1/jobs/{job_id}/{name}")
        assert response.status_code == 200, response.text
        assert response.headers["etag"] == f'"{_sha256(response.content)}"'
        content[name] = response.content
    return Outcome(
        _sha256(content["model"]),
        _sha256(content["scores"]),
        _comparable(json.loads(content["report"])),
    )


def upload_digits(client: httpx.Client) -> dict[str, str]:
    """Store the digits model and bundle; the part of a job's body that names them."""
    files = {"model_id": ("models", digits.MODEL), "bundle_id": ("bundles", digits.BUNDLE)}
    body = {}
    for name, (kind, path) in files.items():
        response = client.post(f"/v1/{kind}", content=path.read_bytes())
        response.raise_for_status()
        body[name] = response.json()["id"]
    return body


def _comparable(report: dict[str, Any]) -> str:
    return json.dumps(without_timings(report))


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
