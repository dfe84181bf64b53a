"""What axe-core finds on each view, light and dark, wide and narrow; and the keyboard alone."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, expect

from tests.support.dashboard import Dashboard, open_dashboard
from tests.support.dashboard_jobs import QUICK, prune_address, send
from tests.support.server import Server

WIDE = {"width": 1280, "height": 900}
PHONE = {"width": 390, "height": 844}


@pytest.fixture(scope="module")
def job_id(server: Server) -> str:
    job_id = send(server.client, {**QUICK, "target": {"max_macs_ratio": 0.6}})
    server.wait_for(job_id, "succeeded", seconds=60)
    return job_id


def show_start(dashboard: Dashboard, server: Server, job_id: str) -> None:
    dashboard.go("/").get_by_role("button", name="Drop a file here").first.wait_for()


def show_plan(dashboard: Dashboard, server: Server, job_id: str) -> None:
    page = dashboard.go(prune_address(server.client, {"target": {"max_macs_ratio": 0.01}}))
    page.get_by_text("More options").click()
    dashboard.card("Goal").get_by_role("alert").wait_for()
    page.get_by_role("cell", name="207").first.wait_for()


def show_job(dashboard: Dashboard, server: Server, job_id: str) -> None:
    dashboard.go(f"/jobs/{job_id}").get_by_text("Proven on").wait_for()


def show_jobs(dashboard: Dashboard, server: Server, job_id: str) -> None:
    dashboard.go("/jobs").get_by_role("checkbox").first.wait_for()


def show_comparison(dashboard: Dashboard, server: Server, job_id: str) -> None:
    dashboard.go("/compare").locator("svg.plot").wait_for()


def show_key(dashboard: Dashboard, server: Server, job_id: str) -> None:
    dashboard.go("/").get_by_role("button", name="API key").click()


VIEWS = [show_start, show_plan, show_job, show_jobs, show_comparison, show_key]
View = Callable[[Dashboard, Server, str], None]


@pytest.mark.parametrize(("scheme", "size"), [("light", WIDE), ("dark", PHONE)])
@pytest.mark.parametrize("show", VIEWS, ids=lambda show: show.__name__)
def test_axe_finds_nothing(
    browser: Browser, server: Server, job_id: str, show: View, scheme: str, size: dict[str, int]
) -> None:
    with open_dashboard(browser, server, color_scheme=scheme, viewport=size) as dashboard:
        show(dashboard, server, job_id)
        found = Axe().run(dashboard.page).response["violations"]
        assert not found, [(v["id"], [n["html"][:150] for n in v["nodes"]]) for v in found]
        assert width_of_content(dashboard.page) <= size["width"]


def width_of_content(page: Page) -> int:
    width: int = page.evaluate("document.documentElement.scrollWidth")
    return width


def test_the_keyboard_reaches_what_the_pointer_does(dashboard: Dashboard, server: Server) -> None:
    page = dashboard.go(prune_address(server.client, {"target": {"max_macs_ratio": 0.7}}))
    start = page.get_by_role("button", name="Start pruning")
    expect(start).to_be_enabled()
    page.keyboard.press("Tab")
    expect(page.get_by_text("Skip to content")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", level=1)).to_be_focused()
    reached = set()
    for _ in range(30):
        page.keyboard.press("Tab")
        reached.add(page.evaluate("document.activeElement.textContent.trim().slice(0, 30)"))
        if "Start pruning" in reached:
            break
    assert {"Replace", "Remove", "Start pruning"} <= reached
    # Tabs by arrow keys, as readers expect of them.
    page.get_by_role("tab", name="Can go").focus()
    page.keyboard.press("ArrowRight")
    expect(page.get_by_role("tab", name="Must stay")).to_be_focused()
    expect(page.get_by_text("every convolution can lose filters")).to_be_visible()


def test_progress_is_told_without_a_flood(dashboard: Dashboard, server: Server) -> None:
    """Readers hear of a new phase, not of each number."""
    page = dashboard.go(f"/jobs/{send(server.client, {**QUICK, 'steps': 3})}")
    page.get_by_text("Proven on").wait_for()
    assert page.locator("[role=status], [aria-live]").count() <= 2


def test_the_theme_is_chosen_and_kept(dashboard: Dashboard) -> None:
    page = dashboard.go("/")
    ground = "getComputedStyle(document.documentElement).backgroundColor"
    light = page.evaluate(ground)
    page.get_by_role("button", name="Colours: system").click()
    page.get_by_role("button", name="Colours: light").click()
    assert page.evaluate(ground) != light
    page.reload()
    page.get_by_role("button", name=re.compile("Colours: dark")).wait_for()
    assert page.evaluate(ground) != light
