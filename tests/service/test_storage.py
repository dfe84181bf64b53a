"""The data folder: what dead processes leave is cleared, what living ones use is not."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from service.storage import DataDirInUseError, Storage


def test_temporary_files_go_with_the_process_that_made_them(tmp_path: Path) -> None:
    living, dead = Storage(tmp_path), Storage(tmp_path)
    living.open()
    dead.open()
    in_use, left = living.new_temporary(), dead.new_temporary()
    for fd in dead._locks:  # as its end would
        os.close(fd)
    other = Storage(tmp_path)
    other.open()
    assert in_use.exists()
    assert not left.exists()
    other.close()
    living.close()
    assert not in_use.exists()


def test_what_others_put_there_goes_after_an_hour(tmp_path: Path) -> None:
    storage = Storage(tmp_path)
    storage.open()
    old, young = tmp_path / "tmp" / "old", tmp_path / "tmp" / "young"
    old.write_text("x")
    young.write_text("x")
    hours_ago = time.time() - 7200
    os.utime(old, (hours_ago, hours_ago))
    storage.clear_leftovers()
    assert young.exists()
    assert not old.exists()
    storage.close()


@pytest.mark.parametrize(("first", "second"), [(True, True), (True, False), (False, True)])
def test_a_server_of_its_own_shares_with_nobody(tmp_path: Path, first: bool, second: bool) -> None:
    holder = Storage(tmp_path)
    holder.lock(exclusively=first)
    with pytest.raises(DataDirInUseError):
        Storage(tmp_path).lock(exclusively=second)
    holder.close()
    free = Storage(tmp_path)
    free.lock(exclusively=second)
    free.close()


def test_roles_share(tmp_path: Path) -> None:
    roles = [Storage(tmp_path) for _ in range(3)]
    for role in roles:
        role.lock(exclusively=False)
    for role in roles:
        role.close()
