"""Received files: on their way to the disk while they still come."""

from __future__ import annotations

import errno
import hashlib
import os
from pathlib import Path

import pytest

from service import sinks
from service.problems import Problem
from service.sinks import FileSink


def sink_at(path: Path) -> FileSink:
    return FileSink(
        path, "a.npz", max_bytes=1000, too_large_code="too_large", part="file", on_bytes=print
    )


def test_the_disk_is_given_every_byte_once_while_they_come(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[tuple[int, int]] = []
    begin = sinks._begin_write_back

    def note(fd: int, start: int, end: int) -> None:
        begin(fd, start, end)
        assert os.fstat(fd).st_size == end, "bytes are given that are not written yet"
        given.append((start, end))

    monkeypatch.setattr(sinks, "_WRITE_BACK_BYTES", 100)
    monkeypatch.setattr(sinks, "_begin_write_back", note)
    sink = sink_at(tmp_path / "body")
    for size in (60, 60, 99, 1, 250, 7):
        sink.write(bytes(size))
    received = sink.finish()
    received.flush()
    assert given == [(0, 120), (120, 220), (220, 470)]
    assert received.sha256 == hashlib.sha256(bytes(477)).hexdigest()


def test_a_disk_that_turns_out_to_be_full_is_a_problem(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(fd: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    sink = sink_at(tmp_path / "body")
    sink.write(b"bytes")
    received = sink.finish()
    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(Problem) as caught:
        received.flush()
    assert caught.value.code == "insufficient_storage"
