"""A bundle of 2 GB and a small model: no process needs more than 600 MB."""

from __future__ import annotations

import subprocess
import threading
import time
from pathlib import Path

import numpy as np
import psutil
import pytest

from tests.support.bundles import sparse_npz
from tests.support.cutting import model_of
from tests.support.server import Server, running_server

SAMPLES = 2_731  # of 3·256·256 floats: 2 GiB
LIMIT_BYTES = 600 * 1024**2


class PeakMemory:
    """The largest resident size seen of a server and of each process it starts."""

    def __init__(self, server: Server) -> None:
        self.peak_bytes: dict[int, int] = {}
        self._server = psutil.Process(server.process.pid)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> PeakMemory:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._stop.is_set():
            for process in (self._server, *self._server.children(recursive=True)):
                try:
                    size = process.memory_info().rss
                except psutil.Error:
                    continue
                self.peak_bytes[process.pid] = max(self.peak_bytes.get(process.pid, 0), size)
            time.sleep(0.01)


@pytest.mark.slow
def test_two_gigabytes_are_scored_in_less_than_600_megabytes(tmp_path: Path) -> None:
    model, bundle, output = (tmp_path / n for n in ("m.onnx", "big.npz", "pruned.onnx"))
    model.write_bytes(
        model_of(
            "[conv] a = Conv <strides = [8, 8]> (x, w)\nr = Relu(a)\n"
            "p = GlobalAveragePool(r)\nf = Flatten(p)\ny = Gemm(f, v)",
            "float[16,3,3,3] w, float[16,10] v",
            "float[N,3,256,256] x",
            "y",
            17,
        )
    )
    labels = np.arange(SAMPLES) % 10
    sparse_npz(bundle, "x", (SAMPLES, 3, 256, 256), np.float32, labels=labels)
    assert bundle.stat().st_size > 2 * 1024**3
    with running_server(tmp_path, max_upload_bytes=4 * 1024**3) as server:
        with PeakMemory(server) as memory:
            subprocess.run(
                [
                    *("curl", "-sSf", "-F", f"model=@{model}", "-F", f"bundle=@{bundle}"),
                    *("-F", 'options={"target":{"filters":4}}', f"{server.url}/v1/prune"),
                    *("-o", str(output)),
                ],
                check=True,
                timeout=300,
            )
        job = server.client.get("/v1/jobs?limit=1").json()["items"][0]
        report = server.client.get(job["links"]["report"]).json()
    assert report["bundle"]["samples"] == SAMPLES
    assert report["filters"] == {
        "before": 16,
        "after": 12,
        "prunable_before": 12,
        "prunable_after": 8,
    }
    assert len(memory.peak_bytes) >= 2  # the server and the job
    assert max(memory.peak_bytes.values()) < LIMIT_BYTES, memory.peak_bytes
