"""A server that needs a key: the page asks for it, keeps it for the tab, sends it everywhere."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect

from tests.support import digits
from tests.support.dashboard import Dashboard, open_dashboard
from tests.support.dashboard_jobs import QUICK, send
from tests.support.keys import client_with, make_key
from tests.support.server import Server, running_server


@pytest.fixture(scope="module")
def server(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server of its own: from the first key on, all others are shut out."""
    with running_server(tmp_path_factory.mktemp("keys")) as running:
        yield running


@pytest.fixture(scope="module")
def key(server: Server) -> str:
    return make_key(server, "browser")


@pytest.fixture
def dashboard(browser: Browser, server: Server, key: str) -> Iterator[Dashboard]:
    with open_dashboard(browser, server) as opened:
        yield opened


def enter(dashboard: Dashboard, key: str) -> None:
    dialog = dashboard.page.get_by_role("dialog", name="API key")
    dialog.get_by_label("Key").fill(key)
    dialog.get_by_role("button", name="Use it").click()


def test_a_key_is_asked_for_used_everywhere_and_kept_for_the_tab_alone(
    dashboard: Dashboard, server: Server, key: str, browser: Browser, tmp_path: Path
) -> None:
    page = dashboard.go("/jobs")
    dialog = page.get_by_role("dialog", name="API key")
    expect(dialog.get_by_role("alert")).to_contain_text("needs a key")
    enter(dashboard, "ofp_wrong")
    expect(dialog.get_by_role("alert")).to_be_visible()
    enter(dashboard, key)
    expect(dialog).to_be_hidden()
    expect(page.get_by_text("There are no jobs yet.")).to_be_visible()

    # Uploads, events and downloads send it too.
    page.get_by_role("link", name="Prune", exact=True).click()
    page.get_by_label("Model file").set_input_files([digits.MODEL, digits.BUNDLE])
    expect(dashboard.card("Preview").get_by_role("row")).to_have_count(4)
    expect(page.get_by_label("curl").locator("code")).to_contain_text("Bearer $API_KEY")
    with client_with(server, key) as client:
        job_id = send(client, {**QUICK, "steps": 4})
    dashboard.go(f"/jobs/{job_id}")
    with page.expect_download() as started:
        page.get_by_role("link", name="Download the model").click()
    assert started.value.suggested_filename == "digits-pruned.onnx"
    with client_with(server, key) as client:
        sent = client.get(f"/v1/jobs/{job_id}/model").content
    assert Path(started.value.path()).read_bytes() == sent

    assert key not in page.url
    assert key in page.evaluate("Object.values({...sessionStorage}).join()")
    assert key not in page.evaluate("Object.values({...localStorage}).join() + document.cookie")
    with open_dashboard(browser, server) as other:
        other.go("/jobs").get_by_role("dialog", name="API key").wait_for()

    page.get_by_role("button", name="API key is set").click()
    page.get_by_role("button", name="Forget it").click()
    expect(dialog.get_by_role("alert")).to_be_visible()
