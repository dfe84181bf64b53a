"""`deploy/compose.yaml` without containers: its services as processes on a network of their own.

A network and a mount namespace stand for Compose's network: every service's name is loopback, and
each listens on the port that it has in its container. Our services get exactly the environment of
the file, over that of the image; only their data folders are elsewhere. PostgreSQL and Prometheus
are Debian's, the object storage is moto.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.postgres import PROGRAMS
from tests.support.server import REPOSITORY

FILE = REPOSITORY / "deploy" / "compose.yaml"
SERVICES: dict[str, Any] = yaml.safe_load(FILE.read_text())["services"]
SECRETS = {
    name: f"a-long-secret-of-the-tests-{number}"
    for number, name in enumerate(
        ("POSTGRES_PASSWORD", "STORAGE_SECRET", "WEBHOOK_SECRET", "GRAFANA_PASSWORD")
    )
}

_NEEDED = ("unshare", "nsenter", "ip", "mount", "runuser", "curl", "prometheus", "promtool")
_VARIABLE = re.compile(r"\$\{(\w+)(?::[-?]([^}]*))?\}")
_OF_THE_IMAGE = re.compile(r"\b(HOST|PORT|LOG_FORMAT|ORT_DISABLE_TELEMETRY)=(\S+)")
_START_S = 90.0


def environment(name: str) -> dict[str, str]:
    """The environment of a service of ours: the image's, and the file's over it."""
    image = dict(_OF_THE_IMAGE.findall((REPOSITORY / "Dockerfile").read_text()))
    named = SERVICES[name]["environment"]
    return image | {variable: _substituted(str(value)) for variable, value in named.items()}


def _substituted(text: str) -> str:
    """What Compose makes of `${NAME:-default}` and `${NAME:?message}`."""

    def value(match: re.Match[str]) -> str:
        is_required = ":?" in match.group()
        return SECRETS[match[1]] if is_required else SECRETS.get(match[1], match[2] or "")

    return _VARIABLE.sub(value, text)


class Compose:
    """The services that run.

    Args:
        folder: Their data, and their logs as `NAME.log`.
        holder: A process that keeps the namespaces.
    """

    def __init__(self, folder: Path, holder: int, stack: ExitStack) -> None:
        self.folder = folder
        self.stack = stack
        self._inside = ["nsenter", f"--net=/proc/{holder}/ns/net", f"--mount=/proc/{holder}/ns/mnt"]
        self._plain = {"PATH": os.environ["PATH"], "HOME": str(folder)}

    def run(self, *command: str | Path, **variables: str) -> str:
        """What a command says that ends well, run inside."""
        done = subprocess.run(
            [*self._inside, *map(str, command)],
            env=self._plain | variables,
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=600,
        )
        assert done.returncode == 0, f"{done.stdout}\n{done.stderr}\n{self.logs()}"
        return done.stdout

    def start(self, name: str, *command: str | Path, **variables: str) -> subprocess.Popen[bytes]:
        """Start a service inside; it is ended by its pid at the end."""
        with (self.folder / f"{name}.log").open("wb") as log:
            process = subprocess.Popen(
                [*self._inside, *map(str, command)],
                env=self._plain | variables,
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        self.stack.callback(_end, process)
        return process

    def ours(self, name: str, *arguments: str) -> tuple[list[str | Path], dict[str, str]]:
        """Command and environment of a service of ours."""
        data = self.folder / f"{name}-cache"
        command = [Path(sys.executable), "-m", "service", *arguments]
        return command, {
            **environment(name),
            "DATA_DIR": str(data),
            "PYTHONPATH": str(REPOSITORY),
            "PYTHONUNBUFFERED": "1",
        }

    def until(self, url: str, wanted: str, *options: str) -> str:
        """What a URL answers, once that has the text in it."""
        end = time.monotonic() + _START_S
        while True:
            command = [*self._inside, "curl", "--silent", "--max-time", "10", *options, url]
            found = subprocess.run(command, env=self._plain, capture_output=True, text=True).stdout
            if wanted in found:
                return found
            assert time.monotonic() < end, f"{url}: {found[:2000]}\n{self.logs()}"
            time.sleep(0.5)

    def logs(self) -> str:
        """The last words of all."""
        logs = sorted(self.folder.glob("*.log"))
        return "\n".join(f"== {log.name}\n{log.read_text()[-3000:]}" for log in logs)


@contextmanager
def running_compose(folder: Path) -> Iterator[Compose]:
    """All services but Grafana, with the keys that docs/deployment.md tells to make.

    The test is skipped where namespaces or a program are missing.
    """
    missing = [program for program in _NEEDED if shutil.which(program) is None]
    if missing or PROGRAMS is None or os.geteuid() != 0:
        pytest.skip(f"needs root, and {', '.join(missing) or 'PostgreSQL'}")
    hosts = folder / "hosts"
    hosts.write_text("".join(f"127.0.0.1 {name}\n" for name in ("localhost", *SERVICES)))
    prometheus = folder / "prometheus"
    shutil.copytree(REPOSITORY / "deploy" / "prometheus", prometheus)
    (prometheus / "prometheus.yaml").rename(prometheus / "prometheus.yml")
    script = (
        f"ip link set lo up && mount --bind {hosts} /etc/hosts && "
        f"mount --bind {prometheus} /etc/prometheus && echo ready && exec sleep infinity"
    )
    with ExitStack() as stack:
        holder = subprocess.Popen(
            ["unshare", "--net", "--mount", "sh", "-c", script], stdout=subprocess.PIPE
        )
        stack.callback(_end, holder)
        assert holder.stdout is not None
        stack.enter_context(holder.stdout)
        if holder.stdout.readline() != b"ready\n":
            pytest.skip("namespaces are not allowed here")
        compose = Compose(folder, holder.pid, stack)
        _start_database(compose)
        _start_objects(compose)
        for name in ("prometheus", "ci"):
            scope = "read" if name == "prometheus" else "submit"
            command, variables = compose.ours("api", "keys", "create", name, "--scope", scope)
            (folder / f"{name}.key").write_text(compose.run(*command, **variables))
        shutil.copy(folder / "prometheus.key", prometheus / "key")
        for name in ("api", "worker-1", "worker-2"):
            command, variables = compose.ours(name)
            compose.start(name, *command, **variables)
        compose.start(
            "prometheus",
            "prometheus",
            "--config.file=/etc/prometheus/prometheus.yml",
            f"--storage.tsdb.path={folder / 'tsdb'}",
        )
        yield compose


def _start_database(compose: Compose) -> None:
    """PostgreSQL on its usual port, for one user with a password, as its image sets it up."""
    assert PROGRAMS is not None
    # Not below pytest's folder: that is root's alone, and PostgreSQL does not run as root.
    folder = Path(compose.run("mktemp", "--directory", "--tmpdir=/tmp", "pruner-XXXXXXXX").strip())
    compose.stack.callback(shutil.rmtree, folder, ignore_errors=True)
    shutil.chown(folder, "postgres")
    as_owner = ["runuser", "-u", "postgres", "--"]
    data = folder / "data"
    options = ["-A", "trust", "-E", "UTF8", "--locale=C.UTF-8", "--no-sync"]
    compose.run(*as_owner, PROGRAMS / "initdb", "-D", data, *options)
    (data / "pg_hba.conf").write_text("local all all trust\nhost all all all scram-sha-256\n")
    database = [*as_owner, PROGRAMS / "postgres", "-D", data, "-k", folder]
    compose.start("database", *database, "-c", "listen_addresses=127.0.0.1")
    psql = [*as_owner, PROGRAMS / "psql", "-h", folder, "-d", "postgres"]
    compose.run("sh", "-c", f"until {PROGRAMS / 'pg_isready'} -q -h {folder}; do sleep 0.2; done")
    password = SECRETS["POSTGRES_PASSWORD"]
    for statement in (
        f"CREATE ROLE pruner LOGIN PASSWORD '{password}'",
        "CREATE DATABASE pruner OWNER pruner",
    ):
        compose.run(*psql, "-c", statement)


def _start_objects(compose: Compose) -> None:
    """moto on the port of the object storage, with the bucket that the file makes."""
    url = environment("api")["AWS_ENDPOINT_URL"]
    port = url.rpartition(":")[2]
    moto = [sys.executable, "-W", "ignore", "-m", "moto.server", "-H", "127.0.0.1", f"-p{port}"]
    compose.start("objects", *moto)
    bucket = f"{url}/{environment('api')['STORAGE_URL'].removeprefix('s3://')}"
    compose.until(bucket, "NoSuchBucket")
    compose.run("curl", "--silent", "--fail", "-X", "PUT", bucket)


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(45)
        except subprocess.TimeoutExpired:
            process.kill()
    process.wait()
