"""The report as a page: complete, self-contained, and safe whatever a model's names are."""

from __future__ import annotations

import base64
import copy
import hashlib
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from graph_ops import prune
from graph_ops.report_page import CONTENT_SECURITY_POLICY, render_report
from graph_ops.report_page.figures import figures_of
from graph_ops.report_page.page import SCRIPT
from tests.support import digits
from tests.support.report_samples import stretched

SOURCES = Path(__file__).resolve().parents[2] / "web" / "report"
HOSTILE = "</script><script>alert(1)</script>\"'&{{ 7 * 7 }}"


class Page(HTMLParser):
    """Elements with their attributes, and the texts of those that hold code or data."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.codes: dict[str, list[str]] = {"script": [], "style": []}
        self.text = ""
        self._open = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self._open = tag

    def handle_endtag(self, tag: str) -> None:
        self._open = ""

    def handle_data(self, data: str) -> None:
        if self._open in self.codes:
            self.codes[self._open].append(data)
        else:
            self.text += data


@pytest.fixture(scope="module")
def report() -> dict[str, Any]:
    options = {"target": {"max_macs_ratio": 0.6}, "steps": 2, "max_samples": 100}
    return json.loads(json.dumps(prune(digits.MODEL, digits.BUNDLE, options).report))


def test_images_that_were_skipped_are_named(report: dict[str, Any]) -> None:
    assert "images skipped" not in Page(render_report(report)).text
    read = copy.deepcopy(report)
    read["bundle"]["images"] = {
        "preprocessing": {"preset": None, "resize": [28, 28], "mean": []},
        "classes": ["cat", "dog"],
        "skipped": ["cat/<3>.png", "dog/7.png"],
    }
    text = Page(render_report(read)).text
    assert "cat/<3>.png, dog/7.png" in text
    assert '{"resize": [28, 28]}' in text


def digest_source(content: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()}'"


def test_the_page_says_what_the_report_says(report: dict[str, Any]) -> None:
    text = Page(render_report(report, "digits.onnx")).text
    cost = report["cost"]
    for expected in (
        "digits.onnx",
        f"{cost['before']['macs']:,}",
        f"{cost['after']['parameters']:,}",
        report["model"]["sha256"],
        report["bundle"]["sha256"],
        report["loss"]["why"],
        *(c["name"] for c in report["convolutions"]),
        *(o["op_type"] for o in report["operators"]),
        *report["options"],
    ):
        assert expected in text, expected


def test_the_page_loads_nothing_and_runs_only_its_own_script(report: dict[str, Any]) -> None:
    page = Page(render_report(report))
    addresses = [a for _, attributes in page.elements for a in attributes if a in ("src", "href")]
    assert not addresses
    handlers = [a for _, attributes in page.elements for a in attributes if a.startswith("on")]
    assert not handlers
    assert not [a for _, attributes in page.elements for a in attributes if a == "style"]
    (style,) = page.codes["style"]
    data, script = page.codes["script"]
    policies = [a["content"] for tag, a in page.elements if tag == "meta" and "http-equiv" in a]
    assert policies == [CONTENT_SECURITY_POLICY]
    assert digest_source(style) in CONTENT_SECURITY_POLICY
    assert digest_source(script) in CONTENT_SECURITY_POLICY
    assert json.loads(data) == json.loads(json.dumps(figures_of(report)))
    assert "unsafe" not in CONTENT_SECURITY_POLICY


def test_names_of_a_model_stay_names(report: dict[str, Any]) -> None:
    hostile = copy.deepcopy(report)
    hostile["convolutions"][0]["name"] = HOSTILE
    hostile["convolutions"][1]["frozen"] = HOSTILE
    hostile["graph"]["nodes"][0]["name"] = HOSTILE
    hostile["operators"][0]["op_type"] = HOSTILE
    hostile["model"]["inputs"] = [HOSTILE]
    ordinary, page = Page(render_report(report)), Page(render_report(hostile, HOSTILE))
    assert len(page.codes["script"]) == len(ordinary.codes["script"])
    assert page.text.count(HOSTILE) >= 5
    figures = json.loads(page.codes["script"][0])
    assert figures["layers"][0]["name"] == figures["graph"]["nodes"][0]["name"] == HOSTILE


def test_every_score_is_in_a_bin_and_the_cut_is_the_highest_dropped(report: dict[str, Any]) -> None:
    scores = figures_of(report)["scores"]
    for entry in scores["layers"]:
        convolution = report["convolutions"][entry["layer"]]
        kept = set(convolution["kept"])
        assert sum(entry["kept"]) == len(kept)
        assert sum(entry["dropped"]) == convolution["filters_before"] - len(kept)
        dropped = [s for i, s in enumerate(convolution["scores"]) if i not in kept]
        assert entry["cut"] == (max(dropped) if dropped else None)


def test_steps_go_from_the_original_to_the_returned_model(report: dict[str, Any]) -> None:
    steps = [s for s in figures_of(report)["steps"] if s["kind"] == "round"]
    assert [s["label"] for s in steps] == ["original", "round 1", "round 2"]
    assert steps[0]["metric"] == report["metric"]["before"]
    assert steps[-1]["metric"] == report["metric"]["after"]
    assert steps[-1]["macs"] == report["cost"]["after"]["macs"]


@pytest.mark.parametrize("lack", ["recovery", "scores", "metric", "macs"])
def test_what_a_run_did_not_have_is_left_out_in_words(report: dict[str, Any], lack: str) -> None:
    """As with `recovery: none`, a random criterion, no hold-out, an open shape."""
    poorer = copy.deepcopy(report)
    if lack == "recovery":
        poorer["recovery"] = None
    elif lack == "scores":
        poorer["loss"] = poorer["engine"] = None
        for convolution in poorer["convolutions"]:
            convolution["scores"] = None
    elif lack == "metric":
        poorer["metric"] |= {"before": None, "after": None, "samples": 0}
        poorer["recovery"]["metric"] |= {"before": None, "after": None}
        for entry in poorer["rounds"]:
            entry["metric"] = None
    else:
        for side in ("before", "after"):
            poorer["cost"][side]["macs"] = None
    said = {
        "recovery": "Recovery was not asked for.",
        "scores": "Nothing was scored.",
        "metric": "Nothing was held out",
        "macs": "unknown",
    }
    assert said[lack] in Page(render_report(poorer)).text


def test_five_hundred_layers_make_a_page_of_under_a_megabyte(report: dict[str, Any]) -> None:
    page = render_report(stretched(report, 500))
    assert len(page) < 2**20
    assert "/stage49/unit249/conv_b/Conv" in Page(page).text


def test_the_script_was_built_from_the_sources_beside_it() -> None:
    digest = hashlib.sha256()
    for path in sorted((SOURCES / "src").iterdir()):
        digest.update(f"{path.name}\n".encode() + path.read_bytes())
    digest.update((SOURCES / "package.json").read_bytes())
    assert SCRIPT.startswith(f"/* sources: {digest.hexdigest()}\n"), "run `make charts`"


def test_the_script_names_the_versions_and_licences_of_what_is_in_it() -> None:
    wanted = json.loads((SOURCES / "package.json").read_text())["dependencies"]
    notices = SCRIPT[: SCRIPT.index("*/")]
    for name, version in wanted.items():
        assert re.search(rf"^{re.escape(name)} {re.escape(version)}$", notices, re.M)
    assert notices.count("Permission") >= len(wanted)


def test_trained_blocks_are_listed_with_what_was_not_kept(report: dict[str, Any]) -> None:
    changed = copy.deepcopy(report)
    block = {"name": "relu<3>", "layers": ["a", "b"], "trained": 10, "kept": False}
    block |= {"error_before": 0.25, "error_after": 0.375, "reason": "it is not lower"}
    changed["recovery"]["blocks"] = [block, block | {"kept": True, "reason": None}]
    text = "".join(Page(render_report(changed)).text.split())
    assert "relu<3>20.250.375no:itisnotlowerrelu<3>20.250.375yes" in text
    changed["recovery"]["blocks"] = []
    assert "was trained" not in Page(render_report(changed)).text
