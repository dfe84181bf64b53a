"""The shape of every error response, asserted in one place."""

from __future__ import annotations

from typing import Any

import httpx

from service.problem_types import PROBLEM_TYPES


def assert_problem(response: httpx.Response, status: int, code: str) -> dict[str, Any]:
    """Assert that a response is this problem, and return its document."""
    assert response.headers["content-type"] == "application/problem+json", response.text
    document: dict[str, Any] = response.json()
    assert document["code"] == code, document
    assert response.status_code == document["status"] == status == PROBLEM_TYPES[code].status
    assert document["type"] == f"/problems/{code}"
    assert document["title"] == PROBLEM_TYPES[code].title
    assert len(document["detail"]) > 10
    assert document["instance"].startswith("/")
    assert "Traceback" not in response.text
    return document
