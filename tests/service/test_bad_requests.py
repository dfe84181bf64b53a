"""Every way a request can be wrong, and the problem it gets."""

from __future__ import annotations

import socket
import time
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest

from tests.support.problems import assert_problem
from tests.support.server import Server

FILE = b"ok"
BOTH = {"model": ("m", FILE), "bundle": ("b", FILE)}
ID = "0" * 64


@dataclass(frozen=True)
class Bad:
    name: str
    status: int
    code: str
    url: str = "/v1/prune"
    method: str = "POST"
    send: dict[str, Any] = field(default_factory=dict)


def text(**parts: str) -> dict[str, Any]:
    return {name: (None, value) for name, value in parts.items()}


def raw(body: bytes, content_type: str = "multipart/form-data; boundary=x") -> dict[str, Any]:
    return {"content": body, "headers": {"content-type": content_type}}


PART = b'--x\r\nContent-Disposition: form-data; name="model"; filename="m"\r\n\r\nok\r\n'

TABLE = [
    Bad("no route", 404, "not_found", url="/v2/prune"),
    Bad("wrong method", 405, "method_not_allowed", method="PUT"),
    Bad("no body", 415, "unsupported_media_type"),
    Bad("json body", 415, "unsupported_media_type", send={"json": {}}),
    Bad("form body", 415, "unsupported_media_type", send={"data": {"model": "x"}}),
    Bad("no boundary", 400, "multipart_invalid", send=raw(PART, "multipart/form-data")),
    Bad("garbage", 400, "multipart_invalid", send=raw(b"garbage")),
    Bad("empty multipart", 400, "multipart_invalid", send=raw(b"")),
    Bad("cut in a header", 400, "multipart_invalid", send=raw(PART[:30])),
    Bad("cut in a part", 400, "multipart_invalid", send=raw(PART)),
    Bad("part without name", 400, "multipart_invalid", send=raw(b"--x\r\nA: b\r\n\r\nok\r\n--x--")),
    Bad("huge part header", 400, "multipart_invalid", send=raw(b"--x\r\nA: " + b"b" * 10**5)),
    Bad(
        "long boundary",
        400,
        "multipart_invalid",
        send=raw(b"", f"multipart/form-data; boundary={'x' * 999}"),
    ),
    Bad(
        "base64 part",
        400,
        "multipart_invalid",
        send=raw(PART.replace(b"\r\n\r\n", b"\r\nContent-Transfer-Encoding: base64\r\n\r\n")),
    ),
    Bad("no bundle", 422, "part_missing", send={"files": {"model": ("m", FILE)}}),
    Bad("no model", 422, "part_missing", send={"files": {"bundle": ("b", FILE)}}),
    Bad("unknown part", 422, "part_unknown", send={"files": {**BOTH, "x": ("x", FILE)}}),
    Bad(
        "part twice",
        422,
        "part_duplicate",
        send={"files": [("model", ("m", FILE)), ("model", ("m", FILE))]},
    ),
    Bad(
        "too many parts",
        413,
        "too_many_parts",
        send={"files": {**BOTH, **text(options="{}", model_id=ID, bundle_id=ID)}},
    ),
    Bad("model and id", 422, "parts_conflict", send={"files": {**BOTH, **text(model_id=ID)}}),
    Bad("empty model", 422, "upload_empty", send={"files": {**BOTH, "model": ("m", b"")}}),
    Bad(
        "model too large",
        413,
        "model_too_large",
        send={"files": {"model": ("m", bytes(2**20 + 1))}},
    ),
    Bad(
        "bundle too large",
        413,
        "upload_too_large",
        send={"files": {"bundle": ("b", bytes(2**21 + 1))}},
    ),
    Bad(
        "declared too large",
        413,
        "upload_too_large",
        send={"files": {"bundle": ("b", bytes(2**22))}},
    ),
    Bad(
        "long options",
        413,
        "text_part_too_large",
        send={"files": {**BOTH, **text(options=" " * 1001)}},
    ),
    Bad(
        "options not utf-8",
        400,
        "multipart_invalid",
        send={"files": {**BOTH, "options": (None, b"\xff")}},
    ),
    Bad("options not json", 422, "options_invalid", send={"files": {**BOTH, **text(options="{")}}),
    Bad(
        "unknown option",
        422,
        "options_invalid",
        send={"files": {**BOTH, **text(options='{"x":1}')}},
    ),
    Bad(
        "unknown model",
        404,
        "model_not_found",
        send={"files": {"bundle": ("b", FILE), **text(model_id=ID)}},
    ),
    Bad(
        "no id",
        404,
        "bundle_not_found",
        send={"files": {"model": ("m", FILE), **text(bundle_id="../x")}},
    ),
    Bad(
        "key with space",
        400,
        "idempotency_key_invalid",
        send={"headers": {"idempotency-key": "a b"}},
    ),
    Bad("job", 404, "job_not_found", method="GET", url=f"/v1/jobs/{'0' * 32}"),
    Bad("odd job id", 404, "job_not_found", method="GET", url="/v1/jobs/..%2e"),
    Bad("job model", 404, "job_not_found", method="GET", url="/v1/jobs/x/model"),
    Bad("delete job", 404, "job_not_found", method="DELETE", url="/v1/jobs/x"),
    Bad("cancel job", 404, "job_not_found", url="/v1/jobs/x/cancel"),
    Bad("bad limit", 422, "request_invalid", method="GET", url="/v1/jobs?limit=0"),
    Bad("bad cursor", 422, "request_invalid", method="GET", url="/v1/jobs?cursor=.."),
    Bad("bad state", 422, "request_invalid", method="GET", url="/v1/jobs?state=lost"),
    Bad("model id", 404, "model_not_found", method="GET", url="/v1/models/x"),
    Bad("channels", 404, "model_not_found", method="GET", url=f"/v1/models/{ID}/channels"),
    Bad("delete model", 404, "model_not_found", method="DELETE", url=f"/v1/models/{ID}"),
    Bad("bundle id", 404, "bundle_not_found", method="GET", url=f"/v1/bundles/{ID}"),
    Bad("problem", 404, "not_found", method="GET", url="/problems/none"),
    Bad("empty upload", 422, "upload_empty", url="/v1/models", send={"content": b""}),
    Bad("upload json", 422, "request_invalid", url="/v1/models", send={"json": {}}),
    Bad(
        "upload text",
        415,
        "unsupported_media_type",
        url="/v1/models",
        send={"content": b"x", "headers": {"Content-Type": "text/plain"}},
    ),
    Bad("upload no file", 422, "part_unknown", url="/v1/models", send={"files": {"f": FILE}}),
    Bad("url is text", 422, "request_invalid", url="/v1/models", send={"json": {"url": "\u00e9"}}),
    Bad(
        "url in many chunks",
        413,
        "body_too_large",
        url="/v1/models",
        send={
            "content": (bytes(2**16) for _ in range(40)),
            "headers": {"Content-Type": "application/json"},
        },
    ),
    Bad(
        "raw too large",
        413,
        "model_too_large",
        url="/v1/models",
        send={"content": bytes(2**20 + 1)},
    ),
    Bad(
        "raw too large",
        413,
        "upload_too_large",
        url="/v1/bundles",
        send={"content": bytes(2**21 + 1)},
    ),
    Bad(
        "streamed too large",
        413,
        "upload_too_large",
        url="/v1/bundles",
        send={"content": (bytes(2**16) for _ in range(40))},
    ),
]


@pytest.mark.parametrize("bad", TABLE, ids=lambda bad: f"{bad.name}: {bad.code}")
def test_bad_request_gets_its_problem(server: Server, bad: Bad) -> None:
    response = server.client.request(bad.method, bad.url, **bad.send)
    assert_problem(response, bad.status, bad.code)


def test_refused_uploads_leave_nothing_behind(server: Server) -> None:
    assert server.leftovers() == []
    assert server.client.get("/healthz").json() == {"status": "ok"}


@pytest.mark.parametrize(
    ("path", "content_type"),
    [
        ("/v1/bundles", "application/octet-stream"),
        ("/v1/bundles", "application/json"),
        ("/v1/sessions", "application/json"),
    ],
)
def test_a_body_that_stands_still_is_given_up(server: Server, path: str, content_type: str) -> None:
    with socket.create_connection(("127.0.0.1", int(server.url.rsplit(":", 1)[1]))) as connection:
        connection.sendall(
            f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: {content_type}\r\n"
            "Content-Length: 1000\r\n\r\nsome bytes".encode()
        )
        connection.settimeout(20)
        answer = b"".join(iter(lambda: connection.recv(65536), b""))
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b"upload_stalled" in answer


def test_a_client_that_goes_away_in_an_upload_leaves_nothing(server: Server) -> None:
    with socket.create_connection(("127.0.0.1", int(server.url.rsplit(":", 1)[1]))) as connection:
        connection.sendall(
            b"POST /v1/bundles HTTP/1.1\r\nHost: localhost\r\n"
            b"Content-Length: 1000000\r\n\r\nsome bytes"
        )
    end = time.monotonic() + 5
    while server.leftovers() and time.monotonic() < end:
        time.sleep(0.02)
    assert server.leftovers() == []


def test_the_answer_arrives_although_the_client_still_sends(server: Server) -> None:
    def endless() -> Any:
        for _ in range(400):
            yield bytes(2**16)

    response = httpx.post(f"{server.url}/v1/bundles", content=endless(), timeout=30)
    assert_problem(response, 413, "upload_too_large")
