from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser

from tests.support.browser import chromium, require_chromium
from tests.support.dashboard import Dashboard, open_dashboard
from tests.support.server import Server, running_server


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as started:
        yield started


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that does real work; not started where there is no browser."""
    require_chromium()
    with running_server(tmp_path_factory.mktemp("dashboard"), ort_threads=1) as running:
        yield running


@pytest.fixture
def dashboard(browser: Browser, server: Server) -> Iterator[Dashboard]:
    with open_dashboard(browser, server, viewport={"width": 1280, "height": 900}) as opened:
        yield opened
