"""`/v1/jobs/{id}/events`: every state in order, resumable, at any server process."""

from __future__ import annotations

import json
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from tests.service.conftest import Start
from tests.support.problems import assert_problem
from tests.support.prune_requests import submit
from tests.support.server import Server


@dataclass
class Event:
    number: int
    kind: str
    data: dict[str, Any]


def events_in(lines: Iterator[str]) -> Iterator[Event]:
    fields: dict[str, str] = {}
    for line in lines:
        name, _, value = line.partition(": ")
        if line == "" and "data" in fields:
            yield Event(int(fields["id"]), fields["event"], json.loads(fields["data"]))
        if line == "":
            fields = {}
        else:
            fields[name] = value


def listen(url: str, job_id: str, after: int | None = None) -> list[Event]:
    """All events to the end of the stream."""
    headers = {} if after is None else {"Last-Event-ID": str(after)}
    with httpx.stream("GET", f"{url}/v1/jobs/{job_id}/events", headers=headers, timeout=30) as it:
        assert it.status_code == 200
        assert it.headers["content-type"].startswith("text/event-stream")
        return list(events_in(it.iter_lines()))


def states(events: list[Event]) -> list[str]:
    return [event.data["state"] for event in events if event.kind == "state"]


def test_every_state_and_the_progress_are_told_as_they_happen(server: Server) -> None:
    job_id = submit(server, b"sleep 1.5")
    began = time.monotonic()
    with httpx.stream("GET", f"{server.url}/v1/jobs/{job_id}/events", timeout=30) as stream:
        seen = [(event, time.monotonic() - began) for event in events_in(stream.iter_lines())]
    events = [event for event, _ in seen]
    assert states(events) == ["queued", "running", "succeeded"]
    progress = [(event, at) for event, at in seen if event.kind == "progress"]
    assert progress[0][0].data["phase"] == "sleeping"
    assert progress[0][1] < seen[-1][1] - 0.3, "progress came with the end"
    numbers = [event.number for event in events]
    assert numbers == sorted(set(numbers))
    job = server.client.get(f"/v1/jobs/{job_id}").json()
    assert job["times"] == {e.data["state"]: e.data["at"] for e in events if e.kind == "state"}


def test_a_client_goes_on_after_the_last_event_it_has(server: Server) -> None:
    job_id = submit(server, b"ok")
    server.wait_for(job_id)
    events = listen(server.url, job_id)
    for index, event in enumerate(events[:-1]):
        assert listen(server.url, job_id, event.number) == events[index + 1 :]
    done = server.client.get(
        f"/v1/jobs/{job_id}/events", headers={"Last-Event-ID": str(events[-1].number)}
    )
    assert done.status_code == 204


def test_curl_follows_a_job(server: Server) -> None:
    job_id = submit(server, b"raise ProofError")
    done = subprocess.run(
        ["curl", "-sSfN", f"{server.url}/v1/jobs/{job_id}/events"],
        check=True,
        capture_output=True,
        text=True,
        timeout=30,
    )
    last = list(events_in(iter(done.stdout.splitlines())))[-1]
    assert last.data["state"] == "failed"
    assert last.data["code"] == "proof_failed"


def test_a_cancelled_job_tells_both_steps(server: Server) -> None:
    job_id = submit(server, b"sleep 5")
    server.wait_for(job_id, "running")
    server.client.post(f"/v1/jobs/{job_id}/cancel")
    assert states(listen(server.url, job_id)) == ["queued", "running", "cancelling", "cancelled"]


@pytest.mark.parametrize("number", ["x", "-1", "1.5", ""])
def test_a_number_that_is_none_is_a_problem(server: Server, number: str) -> None:
    job_id = submit(server, b"ok")
    response = server.client.get(f"/v1/jobs/{job_id}/events", headers={"Last-Event-ID": number})
    assert_problem(response, 422, "request_invalid")
    assert_problem(server.client.get("/v1/jobs/nobody/events"), 404, "job_not_found")


def test_the_stream_of_a_deleted_job_ends(server: Server) -> None:
    job_id = submit(server, b"sleep 5")
    result: list[Event] = []
    thread = threading.Thread(target=lambda: result.extend(listen(server.url, job_id)))
    thread.start()
    server.wait_for(job_id, "running")
    server.client.delete(f"/v1/jobs/{job_id}")
    thread.join(10)
    assert not thread.is_alive()
    assert "running" in states(result)


def test_many_clients_see_the_same(server: Server) -> None:
    job_id = submit(server, b"sleep 1")
    results: list[list[Event]] = [[] for _ in range(30)]
    threads = [
        threading.Thread(target=lambda r=r: r.extend(listen(server.url, job_id))) for r in results
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert all(states(result) == ["queued", "running", "succeeded"] for result in results)


def listen_until_cut_off(server: Server, job_id: str) -> list[Event]:
    """Events up to the moment when the API, killed once the job runs, is gone."""
    seen: list[Event] = []
    path = f"{server.url}/v1/jobs/{job_id}/events"
    with suppress(httpx.HTTPError), httpx.stream("GET", path, timeout=30) as stream:
        for event in events_in(stream.iter_lines()):
            seen.append(event)
            if states(seen) == ["queued", "running"]:
                api = server.role("api")
                assert api is not None
                api.kill()
    return seen


def test_a_client_goes_on_when_the_api_has_been_killed(start: Start) -> None:
    with start() as server:
        job_id = submit(server, b"sleep 4")
        server.wait_for(job_id, "running")
        seen = listen_until_cut_off(server, job_id)
        # The socket is the supervisor's: the next API answers whoever connects meanwhile.
        seen += listen(server.url, job_id, seen[-1].number)
        assert states(seen) == ["queued", "running", "succeeded"]
        numbers = [event.number for event in seen]
        assert numbers == sorted(set(numbers))
