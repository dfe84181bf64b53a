"""Downloads: strong ETags, 304, ranges, HEAD."""

from __future__ import annotations

import base64
import hashlib

import pytest

from tests.support.problems import assert_problem
from tests.support.prune_requests import prune
from tests.support.server import Server

CONTENT = b"pruned ok 0123456789"
ETAG = f'"{hashlib.sha256(CONTENT).hexdigest()}"'


@pytest.fixture(scope="module")
def url(server: Server) -> str:
    location: str = prune(server, b"ok 0123456789").headers["content-location"]
    return location


@pytest.mark.parametrize("tags", [ETAG, f"W/{ETAG}", f'"other", {ETAG}', "*"])
def test_a_client_that_has_it_gets_304(server: Server, url: str, tags: str) -> None:
    response = server.client.get(url, headers={"if-none-match": tags})
    assert response.status_code == 304
    assert response.content == b""
    assert response.headers["etag"] == ETAG


def test_a_client_that_has_another_version_gets_it(server: Server, url: str) -> None:
    assert server.client.get(url, headers={"if-none-match": '"other"'}).content == CONTENT


@pytest.mark.parametrize("result", ["model", "report", "scores"])
def test_head_tells_what_get_would(server: Server, url: str, result: str) -> None:
    path = url.removesuffix("model") + result
    head, get = server.client.head(path), server.client.get(path)
    assert head.status_code == 200
    assert head.content == b""
    for name in ("content-length", "etag", "content-type", "content-disposition", "repr-digest"):
        assert head.headers[name] == get.headers[name]
    assert get.headers["etag"] == f'"{hashlib.sha256(get.content).hexdigest()}"'
    digest = base64.b64encode(hashlib.sha256(get.content).digest()).decode()
    assert get.headers["repr-digest"] == f"sha-256=:{digest}:"


@pytest.mark.parametrize(
    ("wanted", "content"),
    [
        ("bytes=0-3", CONTENT[:4]),
        ("bytes=10-", CONTENT[10:]),
        ("bytes=-5", CONTENT[-5:]),
        ("bytes=5-9999", CONTENT[5:]),
    ],
)
def test_ranges_give_parts(server: Server, url: str, wanted: str, content: bytes) -> None:
    response = server.client.get(url, headers={"range": wanted})
    assert response.status_code == 206
    assert response.content == content
    assert response.headers["etag"] == ETAG
    assert response.headers["content-range"].endswith(f"/{len(CONTENT)}")


@pytest.mark.parametrize("wanted", ["bytes=9-3", "bytes=-", "bytes=x", "rows=0-3", "bytes=0-1;"])
def test_ranges_that_make_no_sense_are_ignored(server: Server, url: str, wanted: str) -> None:
    response = server.client.get(url, headers={"range": wanted})
    assert response.status_code == 200
    assert response.content == CONTENT


def test_a_range_outside_the_file_is_a_problem(server: Server, url: str) -> None:
    response = server.client.get(url, headers={"range": "bytes=100-"})
    assert_problem(response, 416, "range_not_satisfiable")
    assert response.headers["content-range"] == f"bytes */{len(CONTENT)}"


def test_if_range_of_another_version_gets_the_whole(server: Server, url: str) -> None:
    headers = {"range": "bytes=0-3", "if-range": '"other"'}
    assert server.client.get(url, headers=headers).content == CONTENT
    headers["if-range"] = ETAG
    assert server.client.get(url, headers=headers).content == CONTENT[:4]
