"""The copied curl, Python and command line are run, and do what the job of the page did."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlencode

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.support import digits
from tests.support.dashboard import PATIENCE_MS, open_dashboard
from tests.support.digit_images import FOLDERS, GUESS
from tests.support.image_bundles import as_zip
from tests.support.server import Server, running_server

THREADS = {"ORT_THREADS": "1"}
"""As the server of these tests has it: sums in the same order, and so the same bytes."""

RUNS = {
    "arrays": {
        "target": {"max_macs_ratio": 0.8},
        "max_samples": 200,
        "exclude": ["conv1", "[c]onv1*"],
        "steps": 2,
        "recovery": "none",
    },
    "images": {"target": {"filters": 6}, "preprocessing": GUESS, "recovery": "bias"},
}


@pytest.fixture(scope="module")
def server(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One that has not seen the same files under other names."""
    with running_server(tmp_path_factory.mktemp("snippets"), ort_threads=1) as running:
        yield running


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where a person has the files."""
    shutil.copy(digits.MODEL, tmp_path / "my digits.onnx")
    shutil.copy(digits.BUNDLE, tmp_path / "arrays.npz")
    as_zip(tmp_path / "images.zip", FOLDERS)
    return tmp_path


def start_job(page: Page, server: Server, model: Path, bundle: Path, options: object) -> str:
    """Send what the address says; the job's id."""
    ids = {}
    for name, path in (("model", model), ("bundle", bundle)):
        sent = server.client.post(f"/v1/{name}s", files={"file": (path.name, path.read_bytes())})
        ids[name] = sent.json()["id"]
    query = urlencode({**ids, "options": json.dumps(options)})
    page.goto(f"{server.url}/#/?{query}")
    preview = page.get_by_role("region", name="Preview", exact=True)
    expect(preview.get_by_role("row")).to_have_count(4)
    preview.get_by_role("button", name="Start pruning").click()
    page.get_by_role("link", name="Download the model").wait_for()
    return page.url.rsplit("/", 1)[-1]


def copy(page: Page, name: str) -> str:
    page.get_by_role("tab", name=name).click()
    page.get_by_role("button", name="Copy").click()
    expect(page.get_by_role("button", name="Copied")).to_be_visible()
    text: str = page.evaluate("navigator.clipboard.readText()")
    assert text == page.get_by_label(name, exact=True).locator("code").inner_text()
    return text


def execute(name: str, text: str, folder: Path) -> None:
    command = [sys.executable, "-c", text] if name == "Python" else ["sh", "-c", text]
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        command,
        cwd=folder,
        env={**os.environ, **THREADS, "PATH": path},
        capture_output=True,
        text=True,
        timeout=PATIENCE_MS / 100,
    )
    assert done.returncode == 0, f"{text}\n{done.stderr}"


@pytest.mark.parametrize("kind", RUNS)
def test_every_snippet_repeats_the_job(
    browser: Browser, server: Server, folder: Path, kind: str
) -> None:
    model = folder / "my digits.onnx"
    bundle = folder / ("arrays.npz" if kind == "arrays" else "images.zip")
    allowed = ["clipboard-read", "clipboard-write"]
    with open_dashboard(browser, server, permissions=allowed) as dashboard:
        job_id = start_job(dashboard.page, server, model, bundle, RUNS[kind])
        made = server.client.get(f"/v1/jobs/{job_id}/model").content
        for name in ("curl", "Python", "Command line"):
            text = copy(dashboard.page, name)
            execute(name, text, folder)
            result = folder / "my digits-pruned.onnx"
            assert digest(result.read_bytes()) == digest(made), name
            result.unlink()
    again = server.client.get("/v1/jobs").json()["items"][0]
    assert again["options"] == server.client.get(f"/v1/jobs/{job_id}").json()["options"]
    assert again["id"] != job_id


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
