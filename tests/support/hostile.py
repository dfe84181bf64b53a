"""A corpus of hostile uploads: mutated models, archives, arrays and JSON, all from one seed."""

from __future__ import annotations

import functools
import io
import json
import random
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from tests.support import digits


@dataclass(frozen=True)
class Hostile:
    """One request: which part is hostile, and its bytes; the other part is a good file."""

    name: str
    part: str
    content: bytes


@functools.cache
def corpus() -> list[Hostile]:
    """At least 300 uploads, none of which can be pruned."""
    return [*_models(), *_archives(), *_bundles(), *_options()]


def _mutations(good: bytes, count: int, seed: int) -> Iterator[bytes]:
    """Cut, spliced and overwritten copies, damaged where it cannot go unnoticed."""
    chance = random.Random(seed)
    for number in range(count):
        kind = number % 4
        at = chance.randrange(len(good))
        if kind == 0:
            yield good[: chance.randrange(1, len(good) // 2)]
        elif kind == 1:
            yield chance.randbytes(16) + good[at:]
        elif kind == 2:
            data = bytearray(good)
            for _ in range(len(data) // 16):
                data[chance.randrange(len(data))] = chance.randrange(256)
            yield bytes(data)
        else:
            yield good[at:] + good[:at] if at else good[1:]


def _models() -> Iterator[Hostile]:
    good = digits.MODEL.read_bytes()
    for number, content in enumerate(_mutations(good, 120, 1)):
        yield Hostile(f"model-{number}", "model", content)
    # Lengths of fields that promise more than there is, up to 2^63.
    for bits in range(1, 64, 3):
        length = _varint(2**bits)
        yield Hostile(f"model-length-{bits}", "model", b"\x3a" + length + good[:64])
    for depth in (10, 1000, 100_000):
        yield Hostile(f"model-nested-{depth}", "model", b"\x3a\x80\x01" * depth)
    for name, content in {
        "zeros": bytes(4096),
        "text": b"not a model at all\n" * 10,
        "pickle": b"cos\nsystem\n(S'touch /tmp/pwned'\ntR.",
        "elf": b"\x7fELF" + bytes(200),
        "html": b"<html><script>alert(1)</script></html>",
    }.items():
        yield Hostile(f"model-{name}", "model", content)


def _varint(value: int) -> bytes:
    out = bytearray()
    while value >= 128:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


def _zip(entries: dict[str, bytes], **change: int) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in entries.items():
            info = zipfile.ZipInfo(name)
            info.compress_type = zipfile.ZIP_DEFLATED
            info.external_attr = change.get("mode", 0o100644) << 16
            archive.writestr(info, content)
    return buffer.getvalue()


def _archives() -> Iterator[Hostile]:
    good = digits.MODEL.read_bytes()
    names = [
        *("../m.onnx", "/etc/m.onnx", "a/../../m.onnx", "..\\m.onnx", "C:\\m.onnx", "m.onnx/"),
        *("./../m.onnx", "\x00m.onnx", "con", "a" * 5000, "m.txt"),
    ]
    for part in ("model", "bundle"):
        for number, name in enumerate(names):
            yield Hostile(f"{part}-zip-name-{number}", part, _zip({name: good}))
        for label, mode in {"link": 0o120777, "device": 0o060666, "pipe": 0o010666}.items():
            yield Hostile(f"{part}-zip-{label}", part, _zip({"m.onnx": b"/etc/passwd"}, mode=mode))
        yield Hostile(f"{part}-zip-empty", part, _zip({}))
        yield Hostile(f"{part}-zip-bomb", part, _zip({"m.onnx": bytes(64 * 2**20)}))
        yield Hostile(f"{part}-zip-many", part, _zip({f"{n}.onnx": b"x" for n in range(3000)}))
        for number, content in enumerate(_mutations(_zip({"m.onnx": good}), 24, 2)):
            yield Hostile(f"{part}-zip-mutated-{number}", part, content)
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w") as archive:
            link = tarfile.TarInfo("m.onnx")
            link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
            archive.addfile(link)
        yield Hostile(f"{part}-tar-link", part, buffer.getvalue())


def _npy(header: str, body: bytes = b"") -> bytes:
    text = header.encode("latin-1")
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text + body


def _bundles() -> Iterator[Hostile]:
    with np.load(digits.BUNDLE) as data:
        images, labels = data["image"][:20], data["labels"][:20]
    buffer = io.BytesIO()
    np.savez(buffer, image=images, labels=labels)
    for number, content in enumerate(_mutations(buffer.getvalue(), 72, 3)):
        yield Hostile(f"bundle-{number}", "bundle", content)
    headers = {
        "object": "{'descr': '|O', 'fortran_order': False, 'shape': (1,), }\n",
        "huge": "{'descr': '<f4', 'fortran_order': False, 'shape': (1000000000000,), }\n",
        "overflow": "{'descr': '<f8', 'fortran_order': 0, 'shape': (2147483647, 2147483647), }\n",
        "negative": "{'descr': '<f4', 'fortran_order': False, 'shape': (-1,), }\n",
        "code": "__import__('os').system('true')\n",
        "deep": "(" * 5000 + "\n",
        "text": "{'descr': '<U1000000', 'fortran_order': False, 'shape': (9,), }\n",
        "float": "{'descr': '<f4', 'fortran_order': False, 'shape': (1.5,), }\n",
        "missing": "{'descr': '<f4'}\n",
        "nothing": "",
    }
    for name, header in headers.items():
        content = _npy(header, b"\x80\x04N." * 4)
        yield Hostile(f"bundle-npy-{name}", "bundle", _zip({"image.npy": content}))
        yield Hostile(f"bundle-bare-npy-{name}", "bundle", content)
    for name, length in {"long": 2**63 - 1, "negative": 2**64 - 1, "short": 3}.items():
        content = struct.pack("<Q", length) + b'{"image":{"dtype":"F32"'
        yield Hostile(f"bundle-safetensors-{name}", "bundle", content)
    for number, entry in enumerate(
        [
            {"dtype": "F32", "shape": [2**40], "data_offsets": [0, 2**42]},
            {"dtype": "F32", "shape": [1], "data_offsets": [4, 0]},
            {"dtype": "X9", "shape": [1], "data_offsets": [0, 4]},
            {"dtype": "F32", "shape": [-1], "data_offsets": [0, 4]},
            {"dtype": "F32", "shape": "1", "data_offsets": [0, 4]},
        ]
    ):
        header = json.dumps({"image": entry}).encode()
        content = struct.pack("<Q", len(header)) + header + bytes(4)
        yield Hostile(f"bundle-safetensors-entry-{number}", "bundle", content)
    yield Hostile("bundle-gzip-bomb", "bundle", zlib.compress(bytes(16 * 2**20)))


def _options() -> Iterator[Hostile]:
    texts = [
        *('{"target": {"filters": -1}}', '{"target": {}}', '{"seed": 1e400}', "{'a': 1}", "[]"),
        *('{"steps": "many"}', '{"unknown": 1}', '{"batch_size": 0}', '"x"', "null1", "\ufeff{}"),
        *('{"include": [1]}', '{"target": {"filters": 1, "filter_ratio": 0.5}}', "NaN", "{", "1"),
        *('{"max_samples": 1.5}', '{"criterion": "\\ud800"}', '{"loss": {"a": 1}}', "[" * 30000),
        '{"target": ' * 5000,
        '{"seed": ' + "9" * 20000 + "}",
    ]
    for number, text in enumerate(texts):
        yield Hostile(f"options-{number}", "options", text.encode("utf-8", "surrogatepass"))
