"""Debian's Chromium, headless, driven by Playwright; tests that need it are skipped without it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from playwright.sync_api import Browser, Page, sync_playwright


def executable() -> str | None:
    """Path of the Chromium that is installed, if there is one."""
    return shutil.which("chromium")


def require_chromium() -> str:
    """Path of the Chromium; the test that asks for it is skipped where there is none."""
    path = executable()
    if path is None:
        pytest.skip("there is no Chromium: apt-get install chromium")
    return path


@contextmanager
def chromium() -> Iterator[Browser]:
    """A browser; skips where there is none."""
    path = require_chromium()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        try:
            yield browser
        finally:
            browser.close()


def complaints_of(page: Page) -> list[str]:
    """A list that fills with what the page logs as error or throws, policy violations included."""
    found: list[str] = []
    page.on("console", lambda m: found.append(m.text) if m.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: found.append(str(error)))
    return found
