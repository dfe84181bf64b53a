"""One trace a job: from the request that sent it, through the queue, to the phases in the child."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from service.runner import _environment, _report_of
from service.tracing import Tracing, TracingUnavailableError, open_tracing, valid_traceparent
from tests.support.collector import Collector, running_collector
from tests.support.digits_jobs import upload_digits
from tests.support.server import Server, running_server

CALLER = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
TRACE_ID, CALLERS_SPAN = CALLER.split("-")[1:3]
OPTIONS: dict[str, Any] = {"max_samples": 64, "steps": 2, "target": {"filters": 4}}


@pytest.fixture(scope="module")
def collector() -> Iterator[Collector]:
    with running_collector() as collector:
        yield collector


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, collector: Collector) -> Iterator[Server]:
    settings = {"traces_url": collector.url, "otel_bsp_schedule_delay": 100, "ort_threads": 1}
    with running_server(tmp_path_factory.mktemp("traces"), **settings) as server:
        yield server


def finished(server: Server, options: dict[str, Any], **headers: str) -> str:
    body = {**upload_digits(server.client), "options": options}
    response = server.client.post("/v1/jobs", json=body, headers=headers)
    job_id: str = response.json()["id"]
    assert server.wait_for(job_id, seconds=90)["state"] == "succeeded"
    return job_id


def test_a_job_is_one_trace_below_the_callers_span(server: Server, collector: Collector) -> None:
    began = time.time()
    job_id = finished(server, OPTIONS, traceparent=CALLER)
    collector.wait_for(lambda: bool(collector.named("attempt")))
    spans = [span for span in collector.spans if span.trace_id == TRACE_ID]
    (submit,) = [span for span in spans if span.name == "submit"]
    (queue,) = [span for span in spans if span.name == "queue"]
    (attempt,) = [span for span in spans if span.name == "attempt"]
    assert submit.parent_id == CALLERS_SPAN
    assert (submit.service, attempt.service) == (
        "onnx-filter-pruner-api",
        "onnx-filter-pruner-worker",
    )
    assert queue.parent_id == attempt.parent_id == submit.span_id
    assert attempt.attributes == {"job.id": job_id, "job.attempt": 1, "job.rounds": 0}
    phases = [span for span in spans if span.parent_id == attempt.span_id]
    names = [span.name for span in sorted(phases, key=lambda span: span.begin_s)]
    for name in ("load", "analyse", "score", "select", "recover", "cut", "write", "prove"):
        assert name in names
    rounds = [span.attributes["round"] for span in phases if span.name == "score"]
    assert sorted(rounds) == [1, 2]
    for span in phases:
        assert began - 1 < attempt.begin_s <= span.begin_s + 0.1 <= span.end_s + 0.1
        assert span.end_s <= attempt.end_s + 0.1


def test_a_job_without_a_caller_has_a_trace_of_its_own(
    server: Server, collector: Collector
) -> None:
    job_id = finished(server, {**OPTIONS, "seed": 1}, traceparent="00-nonsense")
    mine = {"job.id": job_id, "job.kind": "prune"}
    collector.wait_for(lambda: any(span.attributes == mine for span in collector.spans))
    (submit,) = [span for span in collector.spans if span.attributes == mine]
    assert submit.parent_id == ""
    assert submit.trace_id != TRACE_ID


def test_a_caller_that_is_not_sampled_is_not_traced(server: Server, collector: Collector) -> None:
    trace_id = "a" * 32
    finished(server, {**OPTIONS, "seed": 2}, traceparent=f"00-{trace_id}-{'b' * 16}-00")
    finished(server, {**OPTIONS, "seed": 3}, traceparent=CALLER.replace("4736", "4737"))
    last = TRACE_ID.replace("4736", "4737")
    collector.wait_for(lambda: any(span.trace_id == last for span in collector.named("attempt")))
    assert trace_id not in {span.trace_id for span in collector.spans}


@pytest.mark.parametrize("text", ["", "00-0-0-00", CALLER.upper(), "01" + CALLER[2:], CALLER + "-"])
def test_what_is_no_traceparent_is_left_out(text: str) -> None:
    assert valid_traceparent(text) is None
    assert valid_traceparent(CALLER) == CALLER


def test_without_a_url_nothing_of_it_is_imported() -> None:
    code = (
        "import sys, service.app, service.worker, service.child\n"
        "from service.tracing import open_tracing\n"
        "open_tracing(None, 'api', 'a')\n"
        "print([name for name in sys.modules if name.startswith('opentelemetry.sdk')])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120
    )
    assert done.stdout.strip() == "[]"
    assert type(open_tracing(None, "api", "a")) is Tracing


def test_a_url_without_the_extra_is_a_clear_refusal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "service.otlp", raising=False)
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace", None)
    with pytest.raises(TracingUnavailableError, match=r"onnx-filter-pruner\[otel\]"):
        open_tracing("http://127.0.0.1:1/v1/traces", "api", "a")


def test_children_see_nothing_of_the_collectors_secrets(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "authorization=secret")
    assert not [name for name in _environment(tmp_path) if name.startswith("OTEL")]


@pytest.mark.parametrize(
    "line", [b'{"ended": {"phase": "x"}}', b'{"ended": 3}', b'{"ended": {"phase":1,"number":"x"}}']
)
def test_a_child_that_reports_nonsense_is_not_heard(line: bytes) -> None:
    assert _report_of(line) is None
