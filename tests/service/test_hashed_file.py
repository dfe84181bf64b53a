"""Files that are hashed while they are written: whole, in order, and soon on the disk."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service import hashed_file
from service.hashed_file import BLOCK_BYTES, HashedFile

BYTES = bytes(range(251)) * (10 * BLOCK_BYTES // 251 + 1)


@pytest.fixture
def cached_blocks(monkeypatch: pytest.MonkeyPatch) -> int:
    """Files that are large after so many blocks."""
    monkeypatch.setattr(hashed_file, "_CACHED_BYTES", 2 * BLOCK_BYTES)
    return 2


def write(path: Path, sizes: list[int]) -> None:
    """Write pieces of `BYTES`, one of each size, and hold file and digest against them."""
    file, end = HashedFile(path), 0
    for size in sizes:
        file.append(BYTES[end : end + size])
        end += size
    sha256 = file.finish()
    expected = BYTES[:end]
    assert path.read_bytes() == expected
    assert sha256 == hashlib.sha256(expected).hexdigest()
    path.unlink()


def is_past_the_cache(fd: int) -> bool:
    return bool(fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_DIRECT)


@settings(max_examples=30, deadline=None)
@given(
    st.lists(
        st.integers(0, 3 * BLOCK_BYTES) | st.sampled_from([1, BLOCK_BYTES, 2 * BLOCK_BYTES]),
        max_size=8,
    ).filter(lambda sizes: sum(sizes) <= len(BYTES))
)
def test_every_byte_is_written_and_hashed_however_they_come(
    tmp_path_factory: pytest.TempPathFactory, sizes: list[int]
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(hashed_file, "_CACHED_BYTES", 2 * BLOCK_BYTES)
        write(tmp_path_factory.mktemp("files") / "file", sizes)


def test_only_the_whole_blocks_of_a_large_file_go_past_the_cache(
    tmp_path: Path, cached_blocks: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "probe"
    try:
        os.close(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_DIRECT))
    except OSError:
        pytest.skip("the file system has nothing but the cache")
    written: list[tuple[int, bool]] = []

    def note(fd: int, data: memoryview) -> int:
        written.append((len(data), is_past_the_cache(fd)))
        return real_write(fd, data)

    real_write = os.write
    monkeypatch.setattr(os, "write", note)
    write(tmp_path / "file", [4 * BLOCK_BYTES + 7])
    assert written == [(BLOCK_BYTES, False)] * 2 + [(BLOCK_BYTES, True)] * 2 + [(7, False)]


def refused_flag(fd: int, command: int, flags: int = 0) -> int:
    """A file system without `O_DIRECT`."""
    if flags & os.O_DIRECT:
        raise OSError(errno.EINVAL, "Invalid argument")
    return int(real_fcntl(fd, command, flags))


def refused_bytes(fd: int, data: memoryview) -> int:
    """One that says so later."""
    if is_past_the_cache(fd):
        raise OSError(errno.EINVAL, "Invalid argument")
    return real_write(fd, data)


def short(fd: int, data: memoryview) -> int:
    """One that takes less than it is given."""
    return real_write(fd, data[: max(4096, len(data) // 2)])


real_fcntl, real_write = fcntl.fcntl, os.write


@pytest.mark.parametrize(
    ("module", "name", "deed"),
    [(fcntl, "fcntl", refused_flag), (os, "write", refused_bytes), (os, "write", short)],
    ids=["flag", "bytes", "short"],
)
def test_a_file_system_that_takes_less_gets_the_bytes_all_the_same(
    tmp_path: Path,
    cached_blocks: int,
    monkeypatch: pytest.MonkeyPatch,
    module: object,
    name: str,
    deed: Callable[..., int],
) -> None:
    monkeypatch.setattr(module, name, deed)
    write(tmp_path / "file", [5 * BLOCK_BYTES + 100])


def test_the_disk_is_given_every_byte_once_while_they_come(
    tmp_path: Path, cached_blocks: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    given_to: list[tuple[int, int]] = []
    begin = hashed_file._begin_write_back

    def note(fd: int, start: int, end: int) -> None:
        begin(fd, start, end)
        assert os.fstat(fd).st_size == end, "bytes are given that are not written yet"
        given_to.append((start // BLOCK_BYTES, end // BLOCK_BYTES))

    monkeypatch.setattr(hashed_file, "_WRITE_BACK_BYTES", 2 * BLOCK_BYTES)
    monkeypatch.setattr(hashed_file, "_begin_write_back", note)
    write(tmp_path / "file", [BLOCK_BYTES // 2] * 11)
    assert given_to == [(0, 2), (2, 4)]


def test_what_is_given_up_is_closed(tmp_path: Path) -> None:
    file = HashedFile(tmp_path / "file")
    file.append(BYTES[: 8 * BLOCK_BYTES])
    file.close()
    file.close()
    assert file.is_closed


def test_a_file_that_is_there_is_not_touched(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"something")
    with pytest.raises(FileExistsError):
        HashedFile(tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == b"something"
