"""A bundle of images in the dashboard: the guess is shown, agreed to or changed, and then used."""

from __future__ import annotations

from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, expect

from tests.support import digits
from tests.support.dashboard import Dashboard, open_dashboard
from tests.support.digit_images import COUNT, FOLDERS, SOURCES
from tests.support.image_bundles import as_zip
from tests.support.server import Server

SETTINGS = "How images are read"


def test_a_guess_is_shown_before_it_is_used(
    dashboard: Dashboard, server: Server, tmp_path: Path
) -> None:
    bundle = as_zip(tmp_path / "digits.zip", FOLDERS)
    page = dashboard.go("/")
    card = dashboard.card("Bundle")
    expect(card).to_contain_text("a folder per class")
    page.get_by_label("Bundle file").set_input_files(bundle)
    expect(card).to_contain_text(f"{COUNT} images, of 10\u00a0classes: 0, 1, 2")
    expect(card).to_contain_text("Add the model")
    page.get_by_label("Model file").set_input_files(digits.MODEL)

    settings = card.get_by_role("group", name=SETTINGS)
    expect(settings).to_contain_text("A guess from the model’s input")
    expect(settings.get_by_role("definition").first).to_have_text("28 × 28")
    expect(settings).to_contain_text("gray, one channel; NCHW")
    expect(dashboard.card("Preview")).to_contain_text("Say how the images are read")
    start = page.get_by_role("button", name="Start pruning")
    expect(start).to_be_disabled()
    expect(card.get_by_role("alert")).to_have_count(0)

    settings.get_by_role("button", name="Use these settings").click()
    expect(settings).to_contain_text("Read as you said")
    expect(dashboard.card("Preview").get_by_role("row")).to_have_count(4)
    start.click()
    page.get_by_role("link", name="Download the model").wait_for()
    job = server.client.get(f"/v1/jobs/{page.url.rsplit('/', 1)[-1]}").json()
    assert job["options"]["preprocessing"]["channels"] == "gray"


def test_settings_can_be_changed_and_taken_back(dashboard: Dashboard, tmp_path: Path) -> None:
    files = {**FOLDERS, "bundle.json": b'{"preset": "grayscale"}'}
    page = dashboard.go("/")
    page.get_by_label("Model file").set_input_files(
        [digits.MODEL, as_zip(tmp_path / "digits.zip", files)]
    )
    settings = dashboard.card("Bundle").get_by_role("group", name=SETTINGS)
    expect(settings).to_contain_text("Read as its bundle.json says")
    expect(dashboard.card("Preview").get_by_role("row")).to_have_count(4)

    settings.get_by_role("button", name="Change").click()
    text = settings.get_by_role("textbox")
    text.fill("{")
    settings.get_by_role("button", name="Use these settings").click()
    expect(settings.get_by_role("alert")).to_contain_text("not JSON")
    # What the service refuses is shown here too, with the text as it was.
    text.fill('{"preset": "grayscale", "std": [0]}')
    settings.get_by_role("button", name="Use these settings").click()
    expect(settings.get_by_role("alert")).to_contain_text("std may not be 0")
    expect(text).to_have_attribute("aria-invalid", "true")
    expect(page.get_by_role("alert")).to_have_count(1)
    text.fill('{"preset": "grayscale", "mean": [0.1], "std": [0.5]}')
    settings.get_by_role("button", name="Use these settings").click()
    expect(settings).to_contain_text("0 to 1; less 0.1; by 0.5")
    expect(dashboard.card("Preview").get_by_role("row")).to_have_count(4)
    settings.get_by_role("button", name="Undo").click()
    expect(settings).to_contain_text("Read as its bundle.json says")


def test_what_was_agreed_for_one_bundle_is_not_used_for_another(
    dashboard: Dashboard, tmp_path: Path
) -> None:
    page = dashboard.go("/")
    page.get_by_label("Model file").set_input_files(
        [digits.MODEL, SOURCES["WebDataset"](tmp_path / "digits.tar")]
    )
    settings = dashboard.card("Bundle").get_by_role("group", name=SETTINGS)
    settings.get_by_role("button", name="Use these settings").click()
    expect(dashboard.card("Preview").get_by_role("row")).to_have_count(4)
    page.get_by_label("Bundle file").set_input_files(digits.BUNDLE)
    expect(dashboard.card("Bundle")).to_contain_text("1,000 samples")
    expect(settings).to_have_count(0)
    expect(dashboard.card("Preview").get_by_role("row")).to_have_count(4)


@pytest.mark.parametrize(
    ("scheme", "size"),
    [("light", {"width": 1280, "height": 900}), ("dark", {"width": 390, "height": 844})],
)
def test_axe_finds_nothing_while_it_asks_and_is_answered(
    browser: Browser, server: Server, tmp_path: Path, scheme: str, size: dict[str, int]
) -> None:
    with open_dashboard(browser, server, color_scheme=scheme, viewport=size) as dashboard:
        page = dashboard.go("/")
        page.get_by_label("Model file").set_input_files(
            [digits.MODEL, as_zip(tmp_path / "digits.zip", FOLDERS)]
        )
        settings = dashboard.card("Bundle").get_by_role("group", name=SETTINGS)
        settings.get_by_role("button", name="Use these settings").wait_for()
        found = Axe().run(page).response["violations"]
        settings.get_by_role("button", name="Change").click()
        settings.get_by_role("textbox").fill("{")
        settings.get_by_role("button", name="Use these settings").click()
        settings.get_by_role("alert").wait_for()
        found += Axe().run(page).response["violations"]
        assert not found, [(v["id"], [n["html"][:150] for n in v["nodes"]]) for v in found]
        assert page.evaluate("document.documentElement.scrollWidth") <= size["width"]
