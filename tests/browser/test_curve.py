"""A job with the option `points`: its curve on the chart, and a model picked along it."""

from __future__ import annotations

from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from tests.support.dashboard import Dashboard
from tests.support.dashboard_jobs import QUICK, send
from tests.support.server import Server

POINTS = 4


@pytest.fixture(scope="module")
def job_id(server: Server) -> str:
    options = {**QUICK, "points": POINTS, "target": {"max_macs_ratio": 0.4}}
    job_id = send(server.client, options)
    server.wait_for(job_id, "succeeded", seconds=120)
    return job_id


def chosen_point(page: Page, job_id: str) -> int:
    """The point whose model is offered for download."""
    link = page.get_by_role("link", name="Download the model").get_attribute("href")
    assert link is not None
    assert link.startswith(f"/v1/jobs/{job_id}/points/")
    return int(link.rsplit("/", 1)[-1])


def test_the_keyboard_goes_along_the_curve_and_downloads_what_it_picked(
    dashboard: Dashboard, server: Server, job_id: str
) -> None:
    curve = server.client.get(f"/v1/jobs/{job_id}/report").json()["curve"]
    page = dashboard.go(f"/compare?jobs={job_id}")
    expect(page.get_by_role("img", name=f"{POINTS} results")).to_be_visible()
    expect(page.get_by_role("region", name="Table of results").get_by_role("row")).to_have_count(
        1 + POINTS
    )
    slider = page.get_by_role("slider", name="Along the curve")
    on_curve = int(slider.get_attribute("max") or 0) + 1
    slider.press("Home")
    picked = [chosen_point(page, job_id)]
    for place in range(1, on_curve):
        slider.press("ArrowRight")
        expect(slider).to_have_value(str(place))
        picked.append(chosen_point(page, job_id))
        assert "Accuracy" in (slider.get_attribute("aria-valuetext") or "")
    macs = {entry["point"]: entry["macs"] for entry in curve}
    metric = {entry["point"]: entry["metric"] for entry in curve}
    assert len(set(picked)) == on_curve >= 2
    # To the right it costs more, and gives more.
    assert [macs[p] for p in picked] == sorted(macs[p] for p in picked)
    assert [metric[p] for p in picked] == sorted(metric[p] for p in picked)

    with page.expect_download() as started:
        page.get_by_role("link", name="Download the model").press("Enter")
    sent = server.client.get(f"/v1/jobs/{job_id}/points/{picked[-1]}").content
    assert Path(started.value.path()).read_bytes() == sent


def test_the_pointer_drags_along_the_curve(dashboard: Dashboard, job_id: str) -> None:
    page = dashboard.go(f"/compare?jobs={job_id}")
    chart = page.get_by_role("img", name=f"{POINTS} results")
    expect(chart.locator("svg")).to_be_visible()
    slider = page.get_by_role("slider", name="Along the curve")
    box = chart.bounding_box()
    assert box
    middle = box["y"] + box["height"] / 2
    page.mouse.move(box["x"] + box["width"] - 30, middle)
    page.mouse.down()
    seen = []
    for step in range(20, -1, -1):
        page.mouse.move(box["x"] + 70 + (box["width"] - 100) * step / 20, middle)
        seen.append(int(slider.input_value()))
    page.mouse.up()
    assert seen[-1] == 0 < seen[0]
    assert seen == sorted(seen, reverse=True)
