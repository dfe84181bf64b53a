"""Metrics count what happened, by route and not by path."""

from __future__ import annotations

from tests.service.conftest import Start
from tests.support.prune_requests import prune


def test_requests_jobs_and_bytes_are_counted(start: Start) -> None:
    with start() as server:
        prune(server)
        prune(server, b"raise ProofError")
        for job_id in "abc":
            server.client.get(f"/v1/jobs/{job_id}")
        server.client.get("/no/such/page")
        text = server.client.get("/metrics").text
    for line in (
        'pruner_http_requests_total{method="POST",route="/v1/prune",status="200"} 1.0',
        'pruner_http_requests_total{method="POST",route="/v1/prune",status="500"} 1.0',
        'pruner_http_requests_total{method="GET",route="/v1/jobs/{job_id}",status="404"} 3.0',
        'pruner_http_requests_total{method="GET",route="unmatched",status="404"} 1.0',
        'pruner_jobs_ended_total{code="",state="succeeded"} 1.0',
        'pruner_jobs_ended_total{code="proof_failed",state="failed"} 1.0',
        'pruner_jobs{state="running"} 0.0',
        "pruner_job_seconds_count 2.0",
        "pruner_upload_bytes_total 22.0",
    ):
        assert line in text
