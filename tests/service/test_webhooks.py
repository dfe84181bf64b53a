"""Webhooks: signed, sent until they arrive, and never to where the service alone can reach."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import sqlalchemy as sa

from service.database import WEBHOOKS, Database
from service.outbound import OutboundGuard, UrlRefused, is_public, new_client
from service.webhooks import WebhookSender, secret_of, signature_of
from tests.support.keys import client_with, make_key
from tests.support.problems import assert_problem
from tests.support.prune_requests import job_body
from tests.support.receiver import Receiver, running_receiver
from tests.support.server import MISBEHAVING_CHILD, Server, running_server

SECRET = "a secret of the tests, long enough"


@pytest.fixture(scope="module")
def receiver() -> Iterator[Receiver]:
    with running_receiver() as running:
        yield running


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, receiver: Receiver) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("server")
    settings: dict[str, Any] = {"child_module": MISBEHAVING_CHILD, "executions": folder / "n"}
    with running_server(
        folder,
        webhook_secret=SECRET,
        webhook_first_pause_s=0.2,
        webhook_attempts=3,
        outbound_hosts="*.example.com",
        outbound_private_hosts=receiver.address,
        **settings,
    ) as running:
        yield running


@pytest.fixture(autouse=True)
def fresh(receiver: Receiver) -> None:
    receiver.requests.clear()
    receiver.answers.clear()


def send(server: Server, url: str, model: bytes = b"ok") -> str:
    response = server.client.post("/v1/jobs", json=job_body(server, model, webhook_url=url))
    assert response.status_code == 202, response.text
    job_id: str = response.json()["id"]
    return job_id


def test_the_signature_is_that_of_the_specification() -> None:
    assert (
        signature_of(
            "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
            "msg_p5jXN8AQM9LWM0D4loKWxJek",
            1614265330,
            b'{"test": 2432232314}',
        )
        == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
    )


def test_the_end_of_a_job_is_told_and_signed(server: Server, receiver: Receiver) -> None:
    job_id = send(server, f"{receiver.url}/hook?a=b")
    receiver.wait_for(1)
    path, headers, body = receiver.requests[0]
    assert path == "/hook?a=b"
    assert headers["host"] == receiver.address
    message = json.loads(body)
    assert message["type"] == "job.succeeded"
    assert message["data"]["id"] == job_id
    assert message["data"]["links"]["model"] == f"/v1/jobs/{job_id}/model"
    secret = server.client.get("/v1/webhooks/secret").json()["secret"]
    assert secret == secret_of(SECRET, "")
    expected = signature_of(secret, headers["webhook-id"], int(headers["webhook-timestamp"]), body)
    assert headers["webhook-signature"] == expected


def test_failures_are_told_too_and_sent_again_under_one_id(
    server: Server, receiver: Receiver
) -> None:
    receiver.answers[:] = [(500, {}), (302, {"Location": "http://127.0.0.1:9/"})]
    send(server, f"{receiver.url}/hook", b"raise ProofError")
    receiver.wait_for(3)
    assert len({headers["webhook-id"] for _, headers, _ in receiver.requests}) == 1
    assert {json.loads(body)["data"]["code"] for _, _, body in receiver.requests} == {
        "proof_failed"
    }


def test_a_message_that_never_arrives_is_given_up(server: Server, receiver: Receiver) -> None:
    receiver.answers[:] = [(503, {})] * 3
    send(server, f"{receiver.url}/hook")
    receiver.wait_for(3)
    send(server, f"{receiver.url}/next")
    receiver.wait_for(4)
    assert [path for path, _, _ in receiver.requests] == ["/hook"] * 3 + ["/next"]


def test_a_message_outlives_everything_that_is_killed(tmp_path: Path) -> None:
    with running_receiver() as receiver:
        settings: dict[str, Any] = {
            "child_module": MISBEHAVING_CHILD,
            "executions": tmp_path / "n",
            "webhook_secret": SECRET,
            "webhook_first_pause_s": 3,
            "outbound_private_hosts": receiver.address,
        }
        receiver.answers[:] = [(500, {})]
        with running_server(tmp_path, **settings) as server:
            job_id = send(server, f"{receiver.url}/hook")
            receiver.wait_for(1)
            server.kill()
        with running_server(tmp_path, **settings):
            receiver.wait_for(2, seconds=75)
        assert json.loads(receiver.requests[1][2])["data"]["id"] == job_id


def test_no_message_uses_up_attempts_behind_hosts_that_hang(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    database = Database(f"sqlite:///{tmp_path / 'jobs.sqlite'}")
    database.create()
    columns = {"job_id": "j", "owner": "", "url": "https://x.example.com/", "body": "{}"}
    rows = [{"id": f"msg_{n}", **columns, "attempts": 0, "due_at": 0.0} for n in range(40)]
    with database.write() as connection:
        connection.execute(WEBHOOKS.insert(), rows)
    goes_on, stop, posted = threading.Event(), threading.Event(), list[str]()

    def hang(_: WebhookSender, __: httpx.Client, message: Any) -> str:
        posted.append(message.id)
        goes_on.wait(60)
        return "delivered"

    monkeypatch.setattr(WebhookSender, "_post", hang)
    sender = WebhookSender(database, OutboundGuard([], []), SECRET, 3, 1.0)
    thread = threading.Thread(target=sender.run, args=(stop,))
    thread.start()
    try:
        wait_until(lambda: len(posted) == 16)
        stop.wait(1.5)  # three more looks
        with database.read() as connection:
            claimed = connection.execute(sa.select(sa.func.sum(WEBHOOKS.c.attempts))).scalar()
        assert claimed == len(posted) == 16
        goes_on.set()
        wait_until(lambda: len(posted) == 40)
    finally:
        goes_on.set()
        stop.set()
        thread.join()
    assert len(set(posted)) == 40
    database.close()


def wait_until(is_true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not is_true():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.parametrize(
    "url",
    [
        "http://hooks.example.com/",
        "https://example.com/",
        "https://hooks.example.org/",
        "https://hooks.example.com.evil.org/",
        "https://user:password@hooks.example.com/",
        "https://127.0.0.1/",
        "https://[::1]/",
        "ftp://hooks.example.com/",
        "file:/etc/passwd",
        "https:///path",
        "//hooks.example.com/",
        "gopher",
        "http://127.0.0.1:1/",
    ],
)
def test_urls_that_are_not_allowed_are_refused(server: Server, url: str) -> None:
    answer = server.client.post("/v1/jobs", json=job_body(server, webhook_url=url))
    assert_problem(answer, 422, "webhook_not_allowed")


@pytest.mark.parametrize(
    "address",
    [
        *("127.0.0.1", "10.0.0.1", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1"),
        *("0.0.0.0", "224.0.0.1", "255.255.255.255", "198.18.0.1", "192.0.2.1"),
        *("::1", "::", "fe80::1%eth0", "fc00::1", "ff02::1", "::ffff:127.0.0.1", "2002:7f00:1::"),
    ],
)
def test_addresses_that_are_not_public(address: str) -> None:
    assert not is_public(address)


def test_public_addresses_are() -> None:
    assert is_public("8.8.8.8")
    assert is_public("2001:4860:4860::8888")


def resolve_to(monkeypatch: pytest.MonkeyPatch, *addresses: str) -> None:
    def fake(host: str, port: int, *_: object, **__: object) -> list[Any]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (a, port)) for a in addresses]

    monkeypatch.setattr("service.outbound.socket.getaddrinfo", fake)


@pytest.mark.parametrize("addresses", [("10.0.0.1",), ("8.8.8.8", "127.0.0.1")])
def test_a_name_with_a_private_address_is_refused(
    monkeypatch: pytest.MonkeyPatch, addresses: tuple[str, ...]
) -> None:
    resolve_to(monkeypatch, *addresses)
    guard = OutboundGuard(["hooks.example.com"], [])
    with pytest.raises(UrlRefused, match="private address"):
        guard.address_of(guard.check("https://hooks.example.com/"))


def test_the_connection_goes_to_the_address_that_was_checked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A name that resolves to something else the second time gains nothing."""
    resolve_to(monkeypatch, "8.8.8.8")
    seen: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        return httpx.Response(200)

    guard = OutboundGuard(["hooks.example.com"], [])
    with (
        httpx.Client(transport=httpx.MockTransport(answer)) as client,
        guard.stream(client, "POST", "https://hooks.example.com:8443/x"),
    ):
        pass
    (request,) = seen
    assert request.url.host == "8.8.8.8"
    assert request.headers["host"] == "hooks.example.com:8443"
    assert request.extensions["sni_hostname"] == "hooks.example.com"


def test_redirects_are_checked_like_any_url(receiver: Receiver) -> None:
    guard = OutboundGuard([], [receiver.address])
    receiver.answers[:] = [(302, {"Location": "/second"})]
    with new_client(5) as client:
        with guard.follow(client, "GET", f"{receiver.url}/first") as response:
            assert response.status_code == 200
        assert [path for path, _, _ in receiver.requests] == ["/first", "/second"]
        for target in ("http://127.0.0.1:9/", "https://localhost/", "file:/etc/passwd"):
            receiver.answers[:] = [(302, {"Location": target})]
            with (
                pytest.raises(UrlRefused),
                guard.follow(client, "GET", f"{receiver.url}/first"),
            ):
                pass
        receiver.answers[:] = [(302, {"Location": "/again"})] * 20
        with (
            pytest.raises(UrlRefused, match="redirects more than"),
            guard.follow(client, "GET", f"{receiver.url}/first"),
        ):
            pass


def test_a_secret_is_for_those_who_submit(server: Server) -> None:
    with client_with(server, make_key(server, "looker", "read")) as client:
        assert_problem(client.get("/v1/webhooks/secret"), 403, "forbidden")
