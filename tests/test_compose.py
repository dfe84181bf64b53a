"""What `deploy/compose.yaml` describes, run: one job goes all the way through it.

make test-slow ARGS="tests/test_compose.py"
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.support.compose import running_compose
from tests.support.server import REPOSITORY

API = "http://api:8000"
PROMETHEUS = "http://prometheus:9090/api/v1"


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_job_goes_through_all_services_and_prometheus_sees_it(tmp_path: Path) -> None:
    with running_compose(tmp_path) as compose:
        key = (tmp_path / "ci.key").read_text().strip()
        bearer = f"Authorization: Bearer {key}"
        ready = json.loads(compose.until(f"{API}/readyz", '"status":"ready"', "-H", bearer))
        assert set(ready["checks"].values()) == {"ok"}
        said = compose.run(REPOSITORY / "scripts" / "smoke.sh", API, PRUNER_API_KEY=key)
        assert "FAILED" not in said
        objects = compose.until("http://objects:8333/pruner?list-type=2", "pruned.onnx")
        assert "<Key>models/" in objects

        compose.run("promtool", "check", "config", "/etc/prometheus/prometheus.yml")
        targets = json.loads(compose.until(f"{PROMETHEUS}/targets", '"health":"up"'))
        assert [t["labels"]["instance"] for t in targets["data"]["activeTargets"]] == ["api:8000"]
        groups = json.loads(compose.until(f"{PROMETHEUS}/rules", "PrunerApiDown"))["data"]["groups"]
        rules = [rule for group in groups for rule in group["rules"]]
        assert len(rules) > 5
        ended = 'pruner_jobs_ended_total{state="succeeded"}'
        query = ["--get", "--data-urlencode", f"query={ended}"]
        compose.until(f"{PROMETHEUS}/query", '"instance":"api:8000"', *query)
        slots = ["--get", "--data-urlencode", "query=count(pruner_worker_slots)"]
        compose.until(f"{PROMETHEUS}/query", ',"2"]', *slots)
