"""A tab with the dashboard, which must stay free of complaints."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from playwright.sync_api import Browser, Page, expect

from tests.support.server import Server

PATIENCE_MS = 30_000  # for a busy machine; what is there is found at once

expect.set_options(timeout=PATIENCE_MS)


@dataclass
class Dashboard:
    """A tab with the dashboard, and what its console said."""

    page: Page
    url: str
    complaints: list[str] = field(default_factory=list)

    def go(self, address: str) -> Page:
        """Show a view, by what comes after the `#`."""
        self.page.goto(f"{self.url}/#{address}")
        return self.page

    def card(self, title: str) -> Any:
        """The part of the page with this heading."""
        return self.page.get_by_role("region", name=title, exact=True)


@contextmanager
def open_dashboard(browser: Browser, server: Server, **context: Any) -> Iterator[Dashboard]:
    """A tab of its own; fails when a script did, or the page's policy was broken.

    Args:
        browser: Where the tab is opened.
        server: Whose dashboard.
        context: As for `browser.new_context`: `viewport`, `color_scheme`, ...
    """
    with browser.new_context(**context) as opened:
        page = opened.new_page()
        page.set_default_timeout(PATIENCE_MS)
        dashboard = Dashboard(page, server.url)
        page.on("pageerror", lambda error: dashboard.complaints.append(f"script: {error}"))
        page.on("console", lambda message: _note(dashboard, message))
        page.on("request", lambda request: _check_host(dashboard, request.url))
        yield dashboard
        assert not dashboard.complaints, dashboard.complaints


def _note(dashboard: Dashboard, message: Any) -> None:
    # Chromium logs each response with an error status; the page shows those as problems.
    if message.type == "error" and not message.text.startswith("Failed to load resource"):
        dashboard.complaints.append(message.text)


def _check_host(dashboard: Dashboard, url: str) -> None:
    if not url.startswith((dashboard.url, "data:", "blob:")):
        dashboard.complaints.append(f"asked another host: {url}")
