"""The whole way in a browser: upload, inspection, goal, live job, download; and its errors."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
from playwright.sync_api import Browser, expect

from tests.support import digits
from tests.support.bundles import write_npz
from tests.support.dashboard import Dashboard, open_dashboard
from tests.support.dashboard_jobs import ENDLESS, QUICK, prune_address, send
from tests.support.server import Server


def test_from_upload_to_download(dashboard: Dashboard, server: Server, tmp_path: Path) -> None:
    page = dashboard.go("/")
    # Both files at once: each goes where it belongs.
    page.get_by_label("Model file").set_input_files([digits.MODEL, digits.BUNDLE])
    expect(dashboard.card("Model")).to_contain_text("48 of 60 filters can go, in 3 convolutions")
    expect(dashboard.card("Model")).to_contain_text("4.55\u00a0M")
    expect(dashboard.card("Bundle")).to_contain_text("1,000 samples")
    channels = dashboard.card("What can be pruned")
    expect(channels.get_by_role("row").filter(has_text="conv2")).to_contain_text("207\u00a0k MACs")

    # The slider by keyboard, from 70 to 65 %.
    slider = page.get_by_role("slider")
    for _ in range(5):
        slider.press("ArrowLeft")
    expect(page.get_by_role("spinbutton", name="How much of the work")).to_have_value("65")
    page.get_by_text("More options").click()
    page.get_by_label("Recovery").select_option("none")
    page.get_by_label("Max samples").fill("200")
    page.get_by_label("Max samples").blur()
    preview = dashboard.card("Preview")
    expect(preview).to_contain_text("180\u00a0samples scored")
    expect(preview.get_by_role("row").filter(has_text="MACs")).to_contain_text("−3")

    preview.get_by_role("button", name="Start pruning").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Job")
    expect(page.get_by_role("heading", level=1)).to_be_focused()
    download = page.get_by_role("link", name="Download the model")
    download.wait_for()
    job_id = page.url.rsplit("/", 1)[-1]
    job = server.client.get(f"/v1/jobs/{job_id}").json()
    assert job["options"]["target"]["max_macs_ratio"] == 0.65
    assert job["options"]["max_samples"] == 200
    report = server.client.get(job["links"]["report"]).json()
    result = page.get_by_role("table", name="Before and after")
    after = report["metric"]["after"]
    expect(result.get_by_role("row").filter(has_text="Accuracy")).to_contain_text(
        f"{100 * after:.2f}\u00a0%"
    )
    expect(page.get_by_text("Proven on")).to_be_visible()
    layers = page.get_by_role("region", name="Filters of each convolution")
    expect(layers.get_by_role("row")).to_have_count(4)

    with page.expect_download() as started:
        download.click()
    assert started.value.suggested_filename == "digits-pruned.onnx"
    started.value.save_as(tmp_path / "pruned.onnx")
    digest = hashlib.sha256((tmp_path / "pruned.onnx").read_bytes()).hexdigest()
    model = server.client.head(job["links"]["model"])
    assert model.headers["etag"] == f'"{digest}"'

    report_page = page.get_by_role("link", name="Open the report")
    expect(report_page).to_have_attribute("href", job["links"]["report_html"])
    page.get_by_role("tab", name="Command line").click()
    expect(page.get_by_label("Command line").locator("code")).to_contain_text(
        "--max-macs-ratio 0.65"
    )


def test_a_file_that_is_no_model_is_refused_where_it_was_dropped(
    dashboard: Dashboard, tmp_path: Path
) -> None:
    (tmp_path / "model.onnx").write_text("not a model")
    page = dashboard.go("/")
    page.get_by_label("Model file").set_input_files(tmp_path / "model.onnx")
    alert = dashboard.card("Model").get_by_role("alert")
    expect(alert).to_contain_text("model")
    expect(alert).to_have_attribute("data-code", "model_not_onnx")
    expect(dashboard.card("Bundle").get_by_role("alert")).to_have_count(0)


def test_a_bundle_that_does_not_fit_is_shown_at_the_bundle(
    dashboard: Dashboard, server: Server, tmp_path: Path
) -> None:
    bundle = write_npz(tmp_path / "wrong.npz", picture=np.zeros((8, 1, 28, 28), np.float32))
    page = dashboard.go("/")
    page.get_by_label("Model file").set_input_files(digits.MODEL)
    page.get_by_label("Bundle file").set_input_files(bundle)
    alert = dashboard.card("Bundle").get_by_role("alert")
    expect(alert).to_have_attribute("data-code", "bundle_missing_input")
    expect(alert).to_contain_text("image")
    alert.get_by_text("Details").click()
    expect(alert.get_by_role("definition").first).to_be_visible()
    expect(page.get_by_role("button", name="Start pruning")).to_be_disabled()


def test_a_goal_out_of_reach_is_shown_at_the_goal_and_offered_at_its_nearest(
    dashboard: Dashboard, server: Server
) -> None:
    page = dashboard.go(prune_address(server.client, {"target": {"max_macs_ratio": 0.01}}))
    goal = dashboard.card("Goal")
    expect(goal.get_by_role("alert")).to_contain_text("cannot be reached")
    goal.get_by_role("button", name="Go as far as it can").click()
    expect(goal.get_by_role("spinbutton")).to_have_value("5.5")
    expect(dashboard.card("Preview").get_by_role("row")).to_have_count(4)
    expect(goal.get_by_role("alert")).to_have_count(0)
    expect(page.get_by_role("button", name="Start pruning")).to_be_enabled()


def test_a_wrong_option_is_shown_at_its_field(dashboard: Dashboard, server: Server) -> None:
    options = {"target": {"filters": 4}, "steps": 0}
    page = dashboard.go(prune_address(server.client, options))
    field = page.get_by_role("spinbutton", name="Steps")
    expect(field).to_be_visible()  # the other options are unfolded by themselves
    expect(field).to_have_attribute("aria-invalid", "true")
    field.fill("2")
    field.blur()
    expect(dashboard.card("Preview").get_by_role("row")).to_have_count(4)
    expect(field).not_to_have_attribute("aria-invalid", "true")


def test_a_job_that_failed_says_why_and_leads_back_to_its_goal(
    dashboard: Dashboard, server: Server
) -> None:
    job_id = send(server.client, {**QUICK, "target": {"max_macs_ratio": 0.01}})
    server.wait_for(job_id, "failed")
    page = dashboard.go(f"/jobs/{job_id}")
    expect(page.get_by_role("alert")).to_have_attribute("data-code", "target_unreachable")
    page.get_by_role("link", name="Change the goal").click()
    expect(page.get_by_role("spinbutton", name="How much of the work")).to_have_value("1")
    page.go_back()
    page.get_by_role("button", name="Delete").click()
    page.get_by_role("button", name="Delete the job and its results").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Jobs")
    assert server.client.get(f"/v1/jobs/{job_id}").status_code == 404


def test_a_job_goes_on_through_reload_in_two_tabs_until_it_is_cancelled(
    dashboard: Dashboard, server: Server, browser: Browser
) -> None:
    job_id = send(server.client, ENDLESS)
    page = dashboard.go(f"/jobs/{job_id}")
    expect(page.get_by_text("Scoring filters")).to_be_visible()
    page.reload()
    expect(page.get_by_text("Scoring filters")).to_be_visible()
    with open_dashboard(browser, server) as other:
        second = other.go(f"/jobs/{job_id}")
        expect(second.get_by_text("Scoring filters")).to_be_visible()
        page.get_by_role("button", name="Cancel").click()
        for tab in (page, second):
            expect(tab.get_by_text("Cancelled", exact=True)).to_be_visible()
            expect(tab.get_by_role("button", name="Go on with it")).to_be_visible()
    assert server.client.get(f"/v1/jobs/{job_id}").json()["state"] == "cancelled"


def test_progress_comes_by_events_alone(dashboard: Dashboard, server: Server) -> None:
    """Nothing is polled: the job is read once for each of its states."""
    job_id = send(server.client, ENDLESS)
    server.wait_for(job_id, "running")
    asked: list[str] = []
    dashboard.page.on("request", lambda request: asked.append(request.url))
    page = dashboard.go(f"/jobs/{job_id}")
    shown = page.locator(".progress-phase .muted")
    expect(shown).to_contain_text("round")
    first = shown.inner_text()
    expect(shown).not_to_have_text(first)
    assert sum(url.endswith(f"/v1/jobs/{job_id}") for url in asked) <= 2
    server.client.delete(f"/v1/jobs/{job_id}")


def test_results_are_compared_on_one_chart(dashboard: Dashboard, server: Server) -> None:
    targets = [{"max_macs_ratio": ratio} for ratio in (0.8, 0.4, 0.2)]
    ids = [send(server.client, {**QUICK, "target": target}) for target in targets]
    for job_id in ids:
        server.wait_for(job_id, "succeeded", seconds=60)
    reports = [server.client.get(f"/v1/jobs/{job_id}/report").json() for job_id in ids]
    page = dashboard.go("/jobs")
    for ratio in (80, 40, 20):
        page.get_by_role("checkbox", name=f"MACs ≤ {ratio}\u00a0%").first.check()
    page.get_by_role("link", name="Compare 3").click()
    chart = page.get_by_role("img", name="3 results")
    expect(chart.locator("svg")).to_be_visible()
    table = page.get_by_role("region", name="Table of results")
    expect(table.get_by_role("row")).to_have_count(4)

    # The cheapest result is on the curve whatever its metric; the slider goes there.
    slider = page.get_by_role("slider", name="Along the curve")
    slider.press("Home")
    expect(page.get_by_role("region", name="digits.onnx MACs ≤ 20\u00a0%")).to_be_visible()
    cheapest = min(range(3), key=lambda i: reports[i]["cost"]["after"]["macs"])
    expect(page.get_by_role("link", name="Download the model")).to_have_attribute(
        "href", f"/v1/jobs/{ids[cheapest]}/model"
    )
    # A click into the chart chooses the nearest result: the dearest is at the right.
    box = chart.bounding_box()
    assert box
    page.mouse.click(box["x"] + box["width"] - 40, box["y"] + 60)
    expect(table.get_by_role("radio", name="MACs ≤ 80")).to_be_checked()
    # Any other cost, kept in the address.
    page.get_by_role("combobox", name="Against").select_option("latency_ms")
    expect(page.get_by_role("heading", name="Accuracy against Latency")).to_be_visible()
    page.reload()
    expect(page.get_by_role("heading", name="Accuracy against Latency")).to_be_visible()


def test_options_in_the_address_that_are_no_options_do_no_harm(
    dashboard: Dashboard, server: Server
) -> None:
    for text in ("{", "[]", "null", json.dumps({"target": 3}), json.dumps({"target": {"x": 1}})):
        page = dashboard.go(f"/?options={text}")
        page.reload()
        expect(page.get_by_role("button", name="Drop a file here").first).to_be_visible()
