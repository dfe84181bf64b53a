"""schemathesis over the OpenAPI document: no 5xx, and every answer is one that is documented.

    make test-slow ARGS="tests/service/test_openapi_fuzz.py"

OPENAPI_EXAMPLES is the number of requests for each operation of the long form.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.keys import make_key
from tests.support.server import REPOSITORY, running_server

CHECKS = [
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
    "ignored_auth",
]
LONG = int(os.environ.get("OPENAPI_EXAMPLES", "40"))


def fuzz(tmp_path: Path, examples: int, with_key: bool, phases: str = "examples,fuzzing") -> None:
    """Send requests that the document allows, and some that it does not."""
    with running_server(tmp_path, job_timeout_s=20) as server:
        header = ["-H", f"Authorization:Bearer {make_key(server, 'fuzz')}"] if with_key else []
        done = subprocess.run(
            [
                *(sys.executable, "-m", "schemathesis.cli", "run", f"{server.url}/openapi.json"),
                *("--checks", ",".join(CHECKS), "--phases", phases, "--no-color"),
                *("--max-examples", str(examples), "--seed", "1", "--no-shrink"),
                *("--generation-database", "none", "--suppress-health-check", "all"),
                *("--request-timeout", "60", *header),
            ],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(REPOSITORY), "PYTHONWARNINGS": "ignore"},
            capture_output=True,
            text=True,
            timeout=1700,
        )
        print(done.stdout[-6000:])
        assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
        assert server.client.get("/healthz").status_code == 200
        assert server.process.poll() is None
        assert "ended with status" not in server.log, "no process had to be started again"


def test_answers_are_those_of_the_document(tmp_path: Path) -> None:
    fuzz(tmp_path, 2, with_key=True)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("with_key", [True, False], ids=["with a key", "without keys"])
def test_many_answers_are_those_of_the_document(tmp_path: Path, with_key: bool) -> None:
    fuzz(tmp_path, LONG, with_key, "examples,coverage,fuzzing")
