"""The `Prefer` header."""

from __future__ import annotations

import pytest

from service.preferences import parse_prefer


@pytest.mark.parametrize(
    ("lines", "patience_s", "applied"),
    [
        ([], None, ""),
        (["return=minimal"], None, ""),
        (["respond-async"], 0, "respond-async"),
        (["wait=7"], 7, "wait=7"),
        (["wait = 7"], 7, "wait=7"),
        (['wait="7"'], 7, "wait=7"),
        (["respond-async, wait=7"], 7, "respond-async, wait=7"),
        (["wait=7", "Respond-Async"], 7, "respond-async, wait=7"),
        (["wait=7; x=1, wait=9"], 7, "wait=7"),
        (["wait=-1"], None, ""),
        (["wait=soon"], None, ""),
        (["wait=" + "9" * 50], None, ""),
        ([",,;"], None, ""),
    ],
)
def test_what_a_client_prefers(lines: list[str], patience_s: float | None, applied: str) -> None:
    preferences = parse_prefer(lines)
    assert preferences.patience_s == patience_s
    assert preferences.applied == applied
