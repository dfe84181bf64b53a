"""A real server in its own process, on a free loopback port."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil

REPOSITORY = Path(__file__).resolve().parents[2]
MISBEHAVING_CHILD = "tests.support.misbehaving_child"

_ADDRESS = re.compile(r"running on (http://127\.0\.0\.1:\d+)")
_START_SECONDS = 60.0


@dataclass
class Server:
    """A running server."""

    url: str
    client: httpx.Client
    process: subprocess.Popen[bytes]
    data_dir: Path
    log_path: Path

    @property
    def log(self) -> str:
        return self.log_path.read_text()

    def kill_role(self, name: str) -> None:
        """Take one role away without notice, and the connections that it had."""
        process = self.role(name)
        assert process is not None
        process.kill()
        process.wait(10)
        self.client.close()
        self.client = httpx.Client(base_url=self.url, timeout=60)

    def role(self, name: str) -> psutil.Process | None:
        """The process that is the server's `api` or `worker`, if it is alive."""
        for process in psutil.Process(self.process.pid).children():
            with suppress(psutil.Error):
                if process.environ().get("ROLE") == name:
                    return process
        return None

    def children(self) -> list[psutil.Process]:
        """Processes that do native work, and what they started."""
        roles = psutil.Process(self.process.pid).children()
        return [process for role in roles for process in native_work(role)]

    def spare(self, role: str = "worker") -> psutil.Process:
        """A child of a role that waits for the next job or inspection."""
        parent = self.role(role)
        assert parent is not None
        end = time.monotonic() + 10
        while time.monotonic() < end:
            for process in parent.children():
                if _is_spare(process):
                    return process
            time.sleep(0.02)
        raise AssertionError(f"no child waits:\n{self.log}")

    def leftovers(self) -> list[Path]:
        """Temporary files."""
        return temporary_files(self.data_dir)

    def terminate(self) -> int:
        """Ask it to stop, as an operator would; its exit status."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(30)

    def kill(self) -> None:
        """Take all of it away without notice."""
        roles = psutil.Process(self.process.pid).children()
        self.process.kill()
        self.process.wait(10)
        psutil.wait_procs(roles, timeout=10)

    def forget(self) -> None:
        """Delete all jobs, so that the next test finds none."""
        while items := self.client.get("/v1/jobs?limit=200").json()["items"]:
            for job in items:
                self.client.delete(f"/v1/jobs/{job['id']}")

    def wait_for(
        self, job_id: str, *states: str, seconds: float = 20, pause_s: float = 0.02
    ) -> dict[str, object]:
        """The job once it is in one of the states (any final one when none is named)."""
        wanted = states or ("succeeded", "failed", "cancelled", "expired")
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            job: dict[str, object] = self.client.get(f"/v1/jobs/{job_id}").json()
            if job.get("state") in wanted:
                return job
            time.sleep(pause_s)
        raise AssertionError(f"job {job_id} is not {wanted}: {job}\n{self.log}")


def temporary_files(data_dir: Path) -> list[Path]:
    """All but the lock files of the processes that use the folder."""
    return [path for path in (data_dir / "tmp").glob("*/*") if path.name != ".owner"]


@contextmanager
def running_server(folder: Path, until: str = "/readyz", **settings: object) -> Iterator[Server]:
    """`python -m service` with these settings, ready; stopped at the end by its pid.

    Args:
        folder: Holds the data folder and the log; a second server may go on with it.
        until: Path that answers 200 when the server is to be handed out.
        settings: Environment variables, in lower case.
    """
    with _started(folder, settings) as (process, log_path, start):
        url = _wait_for_address(process, log_path, start)
        with httpx.Client(base_url=url, timeout=60) as client:
            _wait_until_ready(client, until, log_path)
            server = Server(url, client, process, folder / "data", log_path)
            try:
                yield server
            finally:
                server.client.close()


@contextmanager
def running_worker(
    folder: Path, name: str, **settings: object
) -> Iterator[subprocess.Popen[bytes]]:
    """`ROLE=worker python -m service`, taking jobs; stopped at the end by its pid.

    Args:
        folder: Holds the data folder, which an API may share, and the log.
        name: The worker's name.
        settings: Environment variables, in lower case.
    """
    settings = {"role": "worker", "worker_name": name, **settings}
    with _started(folder, settings, f"{name}.log") as (process, log_path, start):
        end = time.monotonic() + _START_SECONDS
        while b" jobs at a time" not in log_path.read_bytes()[start:]:
            assert time.monotonic() < end, log_path.read_text()
            assert process.poll() is None, log_path.read_text()
            time.sleep(0.02)
        yield process


@contextmanager
def _started(
    folder: Path, settings: dict[str, object], log_name: str = "server.log"
) -> Iterator[tuple[subprocess.Popen[bytes], Path, int]]:
    """The process, its log, and where in it this run begins."""
    log_path = folder / log_name
    environment = {
        **os.environ,
        "HOST": "127.0.0.1",
        "PORT": "0",
        "DATA_DIR": str(folder / "data"),
        "MIN_FREE_DISK_BYTES": "0",
        **{name.upper(): str(value) for name, value in settings.items()},
    }
    start = log_path.stat().st_size if log_path.exists() else 0
    with log_path.open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "service"],
            cwd=REPOSITORY,
            env=environment,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    try:
        yield process, log_path, start
    finally:
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
        process.wait()


def native_work(role: psutil.Process) -> list[psutil.Process]:
    """Processes that do native work for an API or a worker, and what they started."""
    try:
        return [p for p in role.children(recursive=True) if not _is_spare(p)]
    except psutil.Error:
        return []


def _is_spare(process: psutil.Process) -> bool:
    """Whether a child still waits for work: it moves into its work folder when it gets some."""
    try:
        return process.cmdline()[-1:] == ["-"] and process.cwd() == "/"
    except psutil.Error:
        return True


def _wait_for_address(process: subprocess.Popen[bytes], log_path: Path, start: int) -> str:
    end = time.monotonic() + _START_SECONDS
    while time.monotonic() < end and process.poll() is None:
        match = _ADDRESS.search(log_path.read_bytes()[start:].decode())
        if match:
            return match.group(1)
        time.sleep(0.02)
    raise AssertionError(f"the server did not start:\n{log_path.read_text()}")


def _wait_until_ready(client: httpx.Client, path: str, log_path: Path) -> None:
    end = time.monotonic() + _START_SECONDS
    while time.monotonic() < end:
        response = client.get(path)
        if response.status_code == 200:
            return
        time.sleep(0.05)
    raise AssertionError(f"the server is not ready: {response.text}\n{log_path.read_text()}")
