"""Peak memory does not grow with the bundle: measured in a process of its own."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as arrow
import pytest
from PIL import Image
from pyarrow import parquet

from tests.support.bundles import safetensors_bytes, sparse_npz, write_deflated_npz

MIB = 1 << 20
ROW = (3, 224, 224)
ROW_BYTES = 3 * 224 * 224 * 4

# Prints the peak before and after, and the rows seen. `ru_maxrss` starts at the parent's size
# where the child was forked from it, so the peak is read from /proc (and is the child's own).
READER = """
import json, sys
import numpy as np
from graph_ops.bundle import Dataset, InputSpec, open_bundle

def peak_bytes():
    with open("/proc/self/status") as status:
        return next(int(l.split()[1]) * 1024 for l in status if l.startswith("VmHWM"))

before = peak_bytes()
rows = 0
with open_bundle(sys.argv[1]) as bundle:
    digest = bundle.sha256
    dataset = Dataset.bind(bundle, [InputSpec("image", np.dtype(np.float32), (None, 3, 224, 224))])
    dataset.check_labels(10)
    for split in ("scored", "held_out"):
        for batch in dataset.batches(split):
            assert not batch.inputs["image"].any()
            rows += batch.size
print(json.dumps([before, peak_bytes(), rows]))
"""


def read_in_child(path: Path) -> tuple[int, int, int]:
    """Peak before reading and at the end, in bytes, and the number of rows read."""
    done = subprocess.run(
        [sys.executable, "-c", READER, str(path)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    before, after, rows = json.loads(done.stdout)
    return before, after, rows


def sparse_safetensors(path: Path, samples: int) -> Path:
    size = samples * ROW_BYTES
    header = {
        "image": {"dtype": "F32", "shape": [samples, *ROW], "data_offsets": [0, size]},
        "labels": {"dtype": "U8", "shape": [samples], "data_offsets": [size, size + samples]},
    }
    path.write_bytes(safetensors_bytes(header, b""))
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size + size + samples)
    return path


@pytest.mark.parametrize("kind", ["stored", "deflated", "safetensors"])
def test_300_mb_take_a_few_batches_of_memory(tmp_path: Path, kind: str) -> None:
    samples = 300 * MIB // ROW_BYTES
    labels = np.arange(samples) % 10
    path = tmp_path / "b"
    if kind == "stored":
        sparse_npz(path, "image", (samples, *ROW), "<f4", labels=labels)
    elif kind == "safetensors":
        sparse_safetensors(path, samples)
    else:
        # Zeros alone would pack beyond the ratio that is allowed.
        noise = np.random.default_rng(0).integers(0, 1 << 62, 1 << 19)
        image = np.zeros((samples, *ROW), np.float32)
        write_deflated_npz(path, image=image, labels=labels, ballast=noise)
    before, after, rows = read_in_child(path)
    assert rows == samples
    # A batch is 18 MiB, and lives beside its predecessor and a block of the stream.
    assert after - before < 80 * MIB


def test_2_gb_peak_under_600_mb(tmp_path: Path) -> None:
    samples = (2 << 30) // ROW_BYTES + 1
    path = sparse_npz(
        tmp_path / "b", "image", (samples, *ROW), "<f4", labels=np.arange(samples) % 10
    )
    assert path.stat().st_size > 2 << 30
    _, after, rows = read_in_child(path)
    assert rows == samples
    assert after < 600 * 1000**2


IMAGE_READER = """
import json, sys
from graph_ops.bundle import open_bundle, parse_preprocessing

def peak_bytes():
    with open("/proc/self/status") as status:
        return next(int(l.split()[1]) * 1024 for l in status if l.startswith("VmHWM"))

before = peak_bytes()
rows = 0
with open_bundle(sys.argv[1], preprocessing=parse_preprocessing({"crop": 64})) as bundle:
    for _, block in bundle.stream("image"):
        rows += len(block)
    labels = len(bundle.read("labels", range(bundle.arrays["labels"].samples)))
print(json.dumps([before, peak_bytes(), rows, labels]))
"""


def images_that_do_not_pack(count: int) -> Iterator[bytes]:
    """BMP files of noise, 256 × 256: decoded fast, and as large packed as they are unpacked."""
    noise = np.random.default_rng(0).integers(0, 256, (256 + count, 256, 3), dtype=np.uint8)
    for begin in range(count):
        stream = io.BytesIO()
        Image.fromarray(noise[begin : begin + 256]).save(stream, "BMP")
        yield stream.getvalue()


def write_images(path: Path, kind: str, count: int) -> None:
    if kind == "tar":
        with tarfile.open(path, "w") as archive:
            for i, content in enumerate(images_that_do_not_pack(count)):
                info = tarfile.TarInfo(f"{i % 3}/{i}.bmp")
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
        return
    struct = arrow.struct([("bytes", arrow.binary()), ("path", arrow.string())])
    schema = arrow.schema([("image", struct), ("label", arrow.int64())])
    with parquet.ParquetWriter(path, schema) as writer:
        for i, content in enumerate(images_that_do_not_pack(count)):
            row = {"image": [{"bytes": content, "path": None}], "label": [i % 3]}
            writer.write_table(arrow.table(row, schema=schema))


@pytest.mark.parametrize("kind", ["tar", "parquet"])
def test_150_mb_of_images_take_a_few_images_of_memory(tmp_path: Path, kind: str) -> None:
    count = 800
    path = tmp_path / "b"
    write_images(path, kind, count)
    assert path.stat().st_size > 150 * MIB
    command = [sys.executable, "-c", IMAGE_READER, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    before, after, rows, labels = json.loads(done.stdout)
    assert (rows, labels) == (count, count)
    assert after - before < 100 * MIB
