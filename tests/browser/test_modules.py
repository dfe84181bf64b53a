"""The page's modules by themselves: each is imported in the browser and asked."""

from __future__ import annotations

import shlex
from typing import Any

import pytest

from service.api.web import ASSETS
from tests.support.dashboard import Dashboard


@pytest.fixture
def call(dashboard: Dashboard) -> Any:
    """Calls a function of a module with JSON-ready arguments."""
    page = dashboard.go("/")

    def call_function(module: str, name: str, *arguments: object) -> Any:
        return page.evaluate(
            "async ([path, name, args]) => (await import(path))[name](...args)",
            [f"/web/{ASSETS.digest}/{module}", name, list(arguments)],
        )

    return call_function


def test_numbers_are_short_and_exact_where_they_are_small(call: Any) -> None:
    rows = [
        ("count", 4550400, "4,550,400"),
        ("magnitude", 9999, "9,999"),
        ("magnitude", 122970, "123 k"),
        ("magnitude", 4550400, "4.55 M"),
        ("magnitude", 999999, "1.00 M"),
        ("magnitude", None, "unknown"),
        ("bytes", 999, "999 B"),
        ("bytes", 494614, "495 kB"),
        ("bytes", 1e9, "1.00 GB"),
        ("milliseconds", 0.224, "0.224 ms"),
        ("milliseconds", 1234.5, "1235 ms"),
        ("percent", 0.5899, "59 %"),
        ("percent", 0.0125, "1.3 %"),
        ("seconds", 0.2, "less than a second"),
        ("seconds", 61, "61 s"),
        ("seconds", 125, "2 min 5 s"),
        ("words", "max_macs_ratio", "Max macs ratio"),
    ]
    for name, value, expected in rows:
        assert call("lib/format.js", name, value).replace("\u00a0", " ") == expected, name


def test_changes_have_a_sign(call: Any) -> None:
    def change(*values: object) -> str:
        text: str = call("lib/format.js", "change", *values)
        return text.replace("\u00a0", " ")

    assert change(100, 59) == "−41 %"
    assert change(100, 102) == "+2 %"
    assert change(100, 100) == "±0 %"
    assert change(None, 3) == ""
    assert call("lib/format.js", "metricChange", "accuracy", 0.99, 0.975) == "−1.50 points"


def test_the_front_holds_what_no_other_beats(call: Any) -> None:
    points = [(5, 0.9), (3, 0.8), (4, 0.7), (1, 0.2), (3, 0.6), (6, 0.9)]
    as_points = [{"x": x, "y": y} for x, y in points]
    gains = call("lib/pareto.js", "front", as_points, True)
    assert [(p["x"], p["y"]) for p in gains] == [(1, 0.2), (3, 0.8), (5, 0.9)]
    losses = call("lib/pareto.js", "front", as_points, False)
    assert [(p["x"], p["y"]) for p in losses] == [(1, 0.2)]


def test_events_are_read_as_the_standard_says(call: Any) -> None:
    def parse(text: str) -> Any:
        return call("api/events.js", "parseEvent", text)

    event = parse('id: 7\nevent: progress\ndata: {"done": 3}')
    assert event == {"id": "7", "type": "progress", "data": {"done": 3}}
    assert parse('data: {"a":\ndata: 1}')["data"] == {"a": 1}
    assert parse(": still here") is None
    assert parse("retry: 1000") is None


def test_problems_belong_somewhere(call: Any) -> None:
    def place(**problem: object) -> str:
        found: str = call("lib/problems.js", "placeOf", problem)
        return found

    assert place(code="model_truncated") == "model"
    assert place(code="bundle_shape") == "bundle"
    assert place(code="target_unreachable") == "goal"
    assert place(code="options_invalid", fields=[{"field": "steps", "problem": ""}]) == "options"
    bad_target = [{"field": "target.filters", "problem": ""}]
    assert place(code="options_invalid", fields=bad_target) == "goal"
    assert place(code="queue_full") == "run"


def test_addresses_say_what_is_shown(call: Any) -> None:
    assert call("lib/router.js", "link", "prune") == "#/"
    address = call("lib/router.js", "link", "jobs", {"id": "a b", "query": {"x": "1"}})
    assert address == "#/jobs/a%20b?x=1"
    assert call("lib/router.js", "parseRoute", address)["id"] == "a b"
    assert call("lib/router.js", "parseRoute", "")["view"] == "prune"


def test_snippets_survive_a_shell_whatever_the_names_are(call: Any) -> None:
    run = {
        "model": 'it\'s; $(here) "x".onnx',
        "bundle": "cal.npz",
        "options": {"target": {"filters": 8}, "exclude": ["a*", "b c"]},
        "origin": "http://localhost:8000",
        "hasKey": True,
    }
    words = shlex.split(call("options/snippets.js", "curl", run).replace("\\\n", " "))
    assert words[words.index("-H") + 1] == "Authorization: Bearer $API_KEY"
    assert 'model=@"it\'s; $(here) \\"x\\".onnx"' in words
    assert 'options={"target":{"filters":8},"exclude":["a*","b c"]}' in words
    words = shlex.split(call("options/snippets.js", "cli", run).replace("\\\n", " "))
    assert words[2] == run["model"]
    flags = words[words.index("--filters") :]
    assert flags == ["--filters", "8", "--exclude", "a*", "--exclude", "b c"]
    compile(call("options/snippets.js", "python", run), "snippet", "exec")


def test_a_schema_becomes_fields(call: Any) -> None:
    schema = {
        "$defs": {
            "Target": {
                "properties": {"ratio": {"anyOf": [{"type": "number"}, {"type": "null"}]}},
                "type": "object",
            },
            "Kind": {"enum": ["a", "b"], "type": "string"},
        },
        "properties": {
            "target": {"anyOf": [{"$ref": "#/$defs/Target"}, {"type": "null"}]},
            "kind": {"$ref": "#/$defs/Kind", "default": "a"},
            "globs": {"type": "array", "items": {"type": "string"}, "default": ["*"]},
            "odd": {"type": "object"},
        },
    }
    fields = call("options/schema.js", "readSchema", schema)
    assert [f["name"] for f in fields["targets"]] == ["ratio"]
    assert [(f["name"], f["isList"], f["choices"]) for f in fields["options"]] == [
        ("kind", False, ["a", "b"]),
        ("globs", True, None),
    ]
