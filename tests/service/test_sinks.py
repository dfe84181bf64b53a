"""Received files: a disk that takes no more is a problem, whenever it shows."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from service.hashed_file import BLOCK_BYTES
from service.problems import Problem
from service.sinks import FileSink


def sink_at(path: Path) -> FileSink:
    return FileSink(
        path,
        "a.npz",
        max_bytes=30 * BLOCK_BYTES,
        too_large_code="too_large",
        part="file",
        on_bytes=print,
    )


def fail(*_: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def test_a_disk_that_is_full_while_the_bytes_come(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sink = sink_at(tmp_path / "body")
    monkeypatch.setattr(os, "write", fail)
    sink.write(b"bytes")
    with pytest.raises(Problem) as caught:
        # It shows when the memory of what was not written is wanted again.
        sink.write(bytes(20 * BLOCK_BYTES))
    assert caught.value.code == "insufficient_storage"
    sink.abandon()
    assert not (tmp_path / "body").exists()


def test_a_disk_that_is_full_at_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sink = sink_at(tmp_path / "body")
    sink.write(b"bytes")
    monkeypatch.setattr(os, "write", fail)
    with pytest.raises(Problem) as caught:
        sink.finish()
    assert caught.value.code == "insufficient_storage"
    assert not (tmp_path / "body").exists()


def test_a_disk_that_turns_out_to_be_full_when_it_is_flushed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sink = sink_at(tmp_path / "body")
    sink.write(b"bytes")
    received = sink.finish()
    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(Problem) as caught:
        received.flush()
    assert caught.value.code == "insufficient_storage"
