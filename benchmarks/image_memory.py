"""Peak memory while a bundle of images is opened and read from end to end, by number of images.

Each bundle is read in a process of its own, by the thread count of the machine. The images are
photo-like JPEG files of 256 × 256; `crop` keeps 32 × 32 of each, so that the largest bundle needs
little disk. Memory beyond what the imports took is told.

    python -m benchmarks.image_memory
"""

from __future__ import annotations

import io
import json
import subprocess
import sys
import tarfile
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as arrow
from PIL import Image
from pyarrow import parquet

from benchmarks.tables import markdown_table
from graph_ops.bundle import open_bundle, parse_preprocessing

COUNTS = (500, 2000, 8000, 32000)
KINDS = ("tar", "parquet")
SIDE = 256
DIFFERENT = 64
SETTINGS = {"resize": 48, "crop": 32}
MIB = 1 << 20


def encoded_images() -> list[bytes]:
    """A few JPEG files with the smoothness of photos."""
    rng = np.random.default_rng(0)
    files = []
    for _ in range(DIFFERENT):
        small = Image.fromarray(rng.integers(0, 256, (24, 24, 3), dtype=np.uint8))
        stream = io.BytesIO()
        small.resize((SIDE, SIDE), Image.Resampling.BICUBIC).save(stream, "JPEG", quality=85)
        files.append(stream.getvalue())
    return files


def write_tar(path: Path, files: list[bytes], count: int) -> None:
    """A WebDataset shard."""
    with tarfile.open(path, "w") as archive:
        for i in range(count):
            for suffix, content in ((".jpg", files[i % DIFFERENT]), (".cls", b"%d" % (i % 10))):
                info = tarfile.TarInfo(f"{i:06}{suffix}")
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))


def write_parquet(path: Path, files: list[bytes], count: int) -> None:
    """An image set in row groups of 100, as `datasets` writes them."""
    kind = arrow.struct([("bytes", arrow.binary()), ("path", arrow.string())])
    schema = arrow.schema([("image", kind), ("label", arrow.int64())])
    with parquet.ParquetWriter(path, schema) as writer:
        for begin in range(0, count, 100):
            part = range(begin, min(begin + 100, count))
            images = [{"bytes": files[i % DIFFERENT], "path": None} for i in part]
            table = {"image": images, "label": [i % 10 for i in part]}
            writer.write_table(arrow.table(table, schema=schema))


def read(path: Path) -> dict[str, float]:
    """Read a bundle in this process: memory in MiB before and at its peak, seconds."""
    settings = parse_preprocessing(SETTINGS)
    before, began = peak_mib(), time.perf_counter()
    with open_bundle(path, preprocessing=settings) as bundle:
        for name in bundle.names:
            for _ in bundle.stream(name):
                pass
    return {"before": before, "peak": peak_mib(), "seconds": time.perf_counter() - began}


def peak_mib() -> float:
    """The most that was resident in this process so far."""
    with Path("/proc/self/status").open() as status:
        return next(int(line.split()[1]) / 1024 for line in status if line.startswith("VmHWM"))


def main() -> None:
    """Measure every kind and count, and print a table."""
    if len(sys.argv) > 1:
        print(json.dumps(read(Path(sys.argv[1]))))
        return
    files = encoded_images()
    rows = []
    for kind in KINDS:
        for count in COUNTS:
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder) / f"bundle.{kind}"
                (write_tar if kind == "tar" else write_parquet)(path, files, count)
                command = [sys.executable, "-m", "benchmarks.image_memory", str(path)]
                done = subprocess.run(command, check=True, capture_output=True, text=True)
                found = json.loads(done.stdout)
                more = found["peak"] - found["before"]
                rows.append(
                    [kind, f"{count:,}", f"{path.stat().st_size / MIB:,.0f}", f"{more:.0f}"]
                )
    print(markdown_table(["kind", "images", "bundle, MiB", "memory more, MiB"], rows))


if __name__ == "__main__":
    main()
