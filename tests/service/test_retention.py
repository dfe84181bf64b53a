"""What has had its time is removed, and what is needed stays."""

from __future__ import annotations

import os
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa

from service.database import Database
from tests.service.conftest import Start
from tests.support.problems import assert_problem
from tests.support.prune_requests import job_body, prune, submit, upload
from tests.support.server import Server

FAST = {"sweep_interval_s": 0.2}


@pytest.fixture(scope="module")
def settings() -> dict[str, object]:
    return {**FAST, "upload_retention_s": 3600}


def wait_until_gone(server: Server, path: str, seconds: float = 15) -> None:
    end = time.monotonic() + seconds
    while server.client.get(path).status_code != 404:
        assert time.monotonic() < end, server.log
        time.sleep(0.05)


def test_results_go_first_and_the_record_later(start: Start) -> None:
    with start(**FAST, job_retention_s=1.5) as server:
        model = prune(server, idempotency_key="k").headers["content-location"]
        url = model.removesuffix("/model")
        job = server.client.get(url).json()
        ended = datetime.fromisoformat(job["times"]["succeeded"])
        expires = datetime.fromisoformat(job["expires_at"])
        assert timedelta(seconds=1) < expires - ended < timedelta(seconds=2)
        expired = server.wait_for(job["id"], "expired")
        assert "model" not in expired["links"]  # type: ignore[operator]
        assert_problem(server.client.get(model), 410, "job_expired")
        assert_problem(server.client.post(f"{url}/retry"), 409, "job_not_retryable")
        assert not (server.data_dir / "jobs" / job["id"]).exists()
        wait_until_gone(server, url)
        assert prune(server, idempotency_key="k").status_code == 200, "the key is free again"


def test_nothing_goes_before_its_time(idle: Server) -> None:
    location = prune(idle).headers["content-location"]
    job = idle.client.get(location.removesuffix("/model")).json()
    days = datetime.fromisoformat(job["expires_at"]) - datetime.now(UTC)
    assert timedelta(days=29) < days <= timedelta(days=30)
    time.sleep(1)
    assert idle.client.get(location).content == b"pruned ok"
    assert idle.client.get(f"/v1/models/{job['model_id']}").status_code == 200


def test_zero_keeps_for_ever(start: Start) -> None:
    with start(**FAST, job_retention_s=0, upload_retention_s=0) as server:
        location = prune(server).headers["content-location"]
        job = server.client.get(location.removesuffix("/model")).json()
        assert job["expires_at"] is None
        assert server.client.get(f"/v1/models/{job['model_id']}").json()["expires_at"] is None


def age(server: Server, kind: str, upload_id: str, seconds: float) -> None:
    """Let an upload look as if it was last used so long ago."""
    at = time.time() - seconds
    os.utime(server.data_dir / f"{kind}s" / upload_id / "about.json", (at, at))


def test_uploads_go_unless_a_job_still_needs_them(idle: Server) -> None:
    unused = upload(idle, "bundle", b"unused")
    job_id = submit(idle, b"sleep 20")
    needed = idle.client.get(f"/v1/jobs/{job_id}").json()["model_id"]
    age(idle, "model", needed, 7200)
    age(idle, "bundle", unused, 7200)
    wait_until_gone(idle, f"/v1/bundles/{unused}")
    folder = idle.data_dir / "models" / needed
    assert folder.exists()
    idle.client.delete(f"/v1/jobs/{job_id}")
    end = time.monotonic() + 15
    while folder.exists():  # asking for the model would inspect it, which sleeps
        assert time.monotonic() < end, idle.log
        time.sleep(0.05)
    assert idle.client.get(f"/v1/models/{needed}").status_code == 404


def test_every_use_gives_an_upload_its_time_again(idle: Server) -> None:

    def expires_in(bundle: str) -> float:
        text = idle.client.get(f"/v1/bundles/{bundle}").json()["expires_at"]
        return (datetime.fromisoformat(text) - datetime.now(UTC)).total_seconds()

    body = job_body(idle)
    bundle = body["bundle_id"]
    assert 3500 < expires_in(bundle) <= 3600
    age(idle, "bundle", bundle, 1800)
    assert 1700 < expires_in(bundle) <= 1800
    idle.client.post("/v1/jobs", json=body)
    assert 3500 < expires_in(bundle) <= 3600
    age(idle, "bundle", bundle, 1800)
    upload(idle, "bundle")
    assert 3500 < expires_in(bundle) <= 3600


def test_folders_that_belong_to_no_job_go(idle: Server) -> None:
    location = prune(idle).headers["content-location"]
    orphan = idle.data_dir / "jobs" / "nobody"
    orphan.mkdir()
    young = idle.data_dir / "jobs" / "young"
    young.mkdir()
    for folder in (orphan, idle.data_dir / location.removeprefix("/v1/")):
        _make_old(folder if folder.name == "nobody" else folder.parent)
    end = time.monotonic() + 10
    while orphan.exists() and time.monotonic() < end:
        time.sleep(0.05)
    assert not orphan.exists()
    assert young.exists()
    assert idle.client.get(location).content == b"pruned ok"


def test_the_engine_forgets_what_is_done_with(idle: Server) -> None:
    prune(idle)
    database = Database(f"sqlite:///{idle.data_dir / 'jobs.sqlite'}")
    try:
        count = (
            "SELECT count(*) FROM workflow_status JOIN jobs ON workflow_uuid = workflow_id "
            "WHERE status = 'SUCCESS'"
        )
        end = time.monotonic() + 10
        while _scalar(database, count) == 0 and time.monotonic() < end:
            time.sleep(0.05)
        assert _scalar(database, count) == 1
        with database.write() as connection:
            long_ago = {"at": int((time.time() - 7200) * 1000)}
            connection.execute(sa.text("UPDATE workflow_status SET completed_at = :at"), long_ago)
        while _scalar(database, count) and time.monotonic() < end:
            time.sleep(0.05)
        assert _scalar(database, count) == 0
    finally:
        database.close()


def _scalar(database: Database, query: str) -> int:
    with database.read() as connection:
        return int(connection.execute(sa.text(query)).scalar_one())


def _make_old(folder: Path) -> None:
    day_ago = time.time() - 86400
    os.utime(folder, (day_ago, day_ago))
