"""The pictures of docs/images/, taken from a server of its own: `make screenshots`.

Needs the development environment and a Chromium. Flat colours make small PNG files; all of them
together have to stay under `MOST_BYTES`.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

from tests.support import digits
from tests.support.browser import chromium, executable
from tests.support.dashboard import Dashboard, open_dashboard
from tests.support.dashboard_jobs import prune_address, send
from tests.support.digit_images import FOLDERS
from tests.support.image_bundles import as_zip
from tests.support.server import Server, running_server

FOLDER = Path(__file__).resolve().parents[1] / "docs" / "images"
MOST_BYTES = 320_000
WIDE = {"width": 1180, "height": 800}
FILES = {"width": 1000, "height": 530}
PHONE = {"width": 390, "height": 780}
RATIOS = (0.9, 0.75, 0.6, 0.5, 0.4, 0.3, 0.2, 0.12)


def main() -> int:
    """Take all pictures; status 1 where there is no browser or they are too large."""
    if executable() is None:
        print("There is no Chromium: apt-get install chromium", file=sys.stderr)
        return 1
    FOLDER.mkdir(parents=True, exist_ok=True)
    with (
        tempfile.TemporaryDirectory() as folder,
        running_server(Path(folder)) as server,
        chromium() as browser,
    ):
        jobs = [send(server.client, options) for options in runs()]
        for job_id in jobs:
            server.wait_for(job_id, "succeeded", seconds=300)

        def picture(name: str, show: Any, **context: Any) -> None:
            with open_dashboard(browser, server, **context) as dashboard:
                show(dashboard, server)
                dashboard.page.screenshot(path=FOLDER / f"{name}.png")

        picture("dashboard-prune", show_plan, viewport=WIDE, color_scheme="light")
        picture("dashboard-images", show_images(Path(folder)), viewport=FILES, color_scheme="light")
        picture("dashboard-compare", show_comparison, viewport=WIDE, color_scheme="dark")
        picture("dashboard-phone", show_result(jobs[2]), viewport=PHONE, color_scheme="light")
    return check_sizes()


def runs() -> list[dict[str, Any]]:
    """A sweep by the default criterion, and two results that it beats."""
    sweep = [{"recovery": "bias", "target": {"max_macs_ratio": ratio}} for ratio in RATIOS]
    others = [
        {"recovery": "none", "criterion": "random", "target": {"max_macs_ratio": ratio}}
        for ratio in (0.7, 0.45)
    ]
    return sweep + others


def show_plan(dashboard: Dashboard, server: Server) -> None:
    """The first view, with a preview."""
    page = dashboard.go(prune_address(server.client, {"target": {"max_macs_ratio": 0.6}}))
    page.get_by_role("table", name="What the job would come to").wait_for()
    page.get_by_role("region", name="Convolutions that can lose filters").wait_for()


def show_images(folder: Path) -> Any:
    """A bundle of images without settings, and what is guessed of them."""
    bundle = as_zip(folder / "digits.zip", FOLDERS)

    def show(dashboard: Dashboard, server: Server) -> None:
        page = dashboard.go("/")
        page.get_by_label("Model file").set_input_files([digits.MODEL, bundle])
        page.get_by_role("button", name="Use these settings").wait_for()

    return show


def show_comparison(dashboard: Dashboard, server: Server) -> None:
    """The chart, with a result in the middle of the curve chosen."""
    page = dashboard.go("/compare")
    page.locator("svg.plot").wait_for()
    slider = page.get_by_role("slider", name="Along the curve")
    slider.press("Home")
    for _ in range(3):
        slider.press("ArrowRight")


def show_result(job_id: str) -> Any:
    """The page of a job that is done."""

    def show(dashboard: Dashboard, server: Server) -> None:
        dashboard.go(f"/jobs/{job_id}").get_by_text("Proven on").wait_for()

    return show


def check_sizes() -> int:
    """Print the size of each picture; status 1 where they are too large together."""
    sizes = {path.name: path.stat().st_size for path in sorted(FOLDER.glob("dashboard-*.png"))}
    for name, size in sizes.items():
        print(f"{size:8,}  docs/images/{name}")
    if sum(sizes.values()) <= MOST_BYTES:
        return 0
    print(f"More than {MOST_BYTES:,} bytes in all.", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
