"""The report's page in Chromium: charts are drawn, nothing overflows, the policy is kept."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser

from graph_ops import prune
from graph_ops.report_page import render_report
from tests.support import digits
from tests.support.browser import chromium, complaints_of
from tests.support.report_samples import stretched

CHARTS = {"filters", "scores", "steps-macs", "steps-latency", "refits", "operators", "graph"}


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as running:
        yield running


@pytest.fixture(scope="module")
def report() -> dict[str, Any]:
    options = {"target": {"max_macs_ratio": 0.6}, "max_samples": 100}
    return json.loads(json.dumps(prune(digits.MODEL, digits.BUNDLE, options).report))


@pytest.mark.parametrize("layers", [0, 500])
@pytest.mark.parametrize(("width", "scheme"), [(1200, "light"), (390, "dark")])
def test_every_chart_is_drawn_and_the_page_is_no_wider_than_the_screen(
    browser: Browser, report: dict[str, Any], tmp_path: Path, layers: int, width: int, scheme: Any
) -> None:
    path = tmp_path / "report.html"
    path.write_text(render_report(stretched(report, layers) if layers else report))
    page = browser.new_page(viewport={"width": width, "height": 800}, color_scheme=scheme)
    complaints = complaints_of(page)
    page.goto(path.as_uri())
    drawn = {
        figure.get_attribute("data-chart")
        for figure in page.locator("figure[data-chart]:has(svg[role=img][aria-label])").all()
    }
    assert drawn == CHARTS
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    bars = page.locator("figure[data-chart=filters] g[aria-label=bar] rect").count()
    assert bars == 2 * (layers or len(digits.CONVOLUTIONS))
    assert complaints == []
    page.close()


@pytest.mark.parametrize(
    ("layers", "width", "scheme"),
    [
        (0, 1200, "light"),
        (0, 1200, "dark"),
        (0, 390, "dark"),
        (500, 390, "dark"),
        pytest.param(500, 1200, "light", marks=pytest.mark.slow),
        pytest.param(500, 1200, "dark", marks=pytest.mark.slow),
    ],
)
def test_axe_finds_nothing_with_all_that_can_be_unfolded_open(
    browser: Browser, report: dict[str, Any], tmp_path: Path, layers: int, width: int, scheme: Any
) -> None:
    path = tmp_path / "report.html"
    path.write_text(render_report(stretched(report, layers) if layers else report))
    page = browser.new_page(viewport={"width": width, "height": 800}, color_scheme=scheme)
    page.goto(path.as_uri())
    page.evaluate("for (const part of document.querySelectorAll('details')) part.open = true")
    found = Axe().run(page).response
    assert found["passes"]
    assert not found["violations"], [
        (v["id"], [n["html"][:200] for n in v["nodes"][:5]]) for v in found["violations"]
    ]
    page.close()


def test_a_block_is_found_and_a_layer_is_searched_with_the_keyboard(
    browser: Browser, report: dict[str, Any], tmp_path: Path
) -> None:
    path = tmp_path / "report.html"
    path.write_text(render_report(stretched(report, 54)))
    page = browser.new_page()
    page.goto(path.as_uri())
    page.locator("summary", has_text="Every convolution").press("Enter")
    page.get_by_label("Find by name").type("unit13/")
    assert page.locator("#layer-table tbody tr:visible").count() == 2
    page.get_by_label("Show").select_option("0")
    of_block = page.locator("figure[data-chart=graph] g:not(.dim) > title").all_text_contents()
    assert len(of_block) == 5
    assert all("/stage0/" in title and "conv_b" in title for title in of_block)
    page.close()
