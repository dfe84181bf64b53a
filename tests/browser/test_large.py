"""Much at once: 200 jobs in the list, a network of 500 convolutions."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from playwright.sync_api import Browser, expect

from tests.support.bundles import write_npz
from tests.support.dashboard import Dashboard, open_dashboard
from tests.support.dashboard_jobs import upload
from tests.support.server import Server, running_server

JOBS = 200
LAYERS = 500


@pytest.fixture(scope="module")
def crowded(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server without a worker, so that jobs stay where they are: in the queue."""
    folder = tmp_path_factory.mktemp("crowded")
    with running_server(folder, until="/healthz", role="api", max_queued_jobs=JOBS) as server:
        ids = upload(server.client)
        for number in range(JOBS):
            options = {"target": {"filters": 1 + number % 40}, "seed": number}
            job = server.client.put(f"/v1/jobs/job-{number:03}", json={**ids, "options": options})
            job.raise_for_status()
        yield server


def test_200_jobs_are_listed_a_page_at_a_time(browser: Browser, crowded: Server) -> None:
    with open_dashboard(browser, crowded) as dashboard:
        page = dashboard.go("/jobs")
        rows = page.get_by_role("row")
        expect(rows).to_have_count(1 + 50)
        expect(rows.nth(1).get_by_role("link")).to_have_attribute("href", "#/jobs/job-199")
        for shown in (100, 150, 200):
            page.get_by_role("button", name="Show older ones").click()
            expect(rows).to_have_count(1 + shown)
        expect(page.get_by_role("button", name="Show older ones")).to_have_count(0)
        expect(rows.last.get_by_role("link")).to_have_attribute("href", "#/jobs/job-000")

        # A job that goes from the first page is gone after the next look; the older ones stay.
        crowded.client.delete("/v1/jobs/job-198").raise_for_status()
        expect(rows).to_have_count(1 + 199)
        assert page.locator("a[href='#/jobs/job-000']").count() == 1
        page.get_by_label("Show").select_option("running")
        expect(page.get_by_text("No job is in this state.")).to_be_visible()


def write_deep_network(path: Path, layers: int = LAYERS, width: int = 6) -> Path:
    """A chain of 3×3 convolutions with ReLU, then the mean over positions."""
    generator = np.random.default_rng(0)
    nodes, weights, tensor, channels = [], [], "image", 1
    for number in range(layers):
        shape = (width, channels, 3, 3)
        scale = np.sqrt(2 / (9 * channels))
        weight = generator.normal(0, scale, shape).astype(np.float32)
        weights.append(numpy_helper.from_array(weight, f"w{number}"))
        nodes += [
            helper.make_node(
                "Conv",
                [tensor, f"w{number}"],
                [f"c{number}"],
                name=f"stage{number // 50}/conv{number:03}",
                pads=[1, 1, 1, 1],
            ),
            helper.make_node("Relu", [f"c{number}"], [f"r{number}"]),
        ]
        tensor, channels = f"r{number}", width
    nodes.append(helper.make_node("ReduceMean", [tensor], ["y"], axes=[2, 3], keepdims=0))
    graph = helper.make_graph(
        nodes,
        "deep",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["n", 1, 8, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", width])],
        weights,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, path)
    return path


@pytest.mark.slow
def test_a_network_of_500_convolutions_is_shown_and_pruned(
    dashboard: Dashboard, server: Server, tmp_path: Path
) -> None:
    model = write_deep_network(tmp_path / "deep.onnx")
    images = np.random.default_rng(1).normal(size=(16, 1, 8, 8)).astype(np.float32)
    bundle = write_npz(tmp_path / "deep.npz", image=images)
    page = dashboard.go("/")
    page.set_default_timeout(120_000)
    page.get_by_label("Model file").set_input_files([model, bundle])
    channels = dashboard.card("What can be pruned")
    expect(channels.get_by_role("tab", name="Can go (499)")).to_be_visible(timeout=120_000)
    find = channels.get_by_label("Find a convolution")
    find.fill("stage3/")
    expect(channels.get_by_role("tab", name="Can go (50)")).to_be_visible()
    find.fill("")
    # The last one makes the model's output, so it must stay, and the page says why.
    channels.get_by_role("tab", name="Must stay (1)").click()
    expect(channels.get_by_role("row").last).to_contain_text("output")
    page.get_by_text("More options").click()
    page.get_by_label("Recovery").select_option("none")
    start = page.get_by_role("button", name="Start pruning")
    expect(start).to_be_enabled(timeout=120_000)
    start.click()
    layers = page.get_by_role("region", name="Filters of each convolution")
    expect(layers.get_by_role("row")).to_have_count(1 + LAYERS, timeout=300_000)
    assert page.evaluate("document.documentElement.scrollWidth") <= 1280
