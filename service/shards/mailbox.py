"""How a child and its worker share out shards of a scoring: small files in the child's folder.

    shards/
      round.json             from the child of a job: the round it scores, and into how many shards
      wanted                 from the child: it has time for a shard
      take-{round}-{n}       from the worker: score this one
      scored-{round}-{n}.npz   from the child: what it came to
      arrived-{round}-{n}.npz  from the worker: what somebody else's came to
      over                   from the worker to a child that helps: there is no more to do

A child sees neither database nor other workers. Every file appears at once, by a rename. `Mailbox`
and `HelperMailbox` are the child's side; the worker's are `desk.py` and `help.py`.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from service.files import read_json, write_json

if TYPE_CHECKING:
    from graph_ops.score_shards import ScoredShard

_PAUSE_S = 0.02
_ROUND_LIMIT_BYTES = 1024
_NAME = re.compile(r"(take|scored|arrived)-(\d{1,6})-(\d{1,3})(?:\.npz)?")


class Post:
    """The files, as both sides see them.

    Args:
        workdir: The child's work folder.
    """

    def __init__(self, workdir: Path) -> None:
        self.folder = workdir / "shards"
        self.folder.mkdir(exist_ok=True)

    def round(self) -> tuple[int, int] | None:
        """The round that a job's child scores now, and its shards; None before the first."""
        found = read_json(self.folder / "round.json", _ROUND_LIMIT_BYTES)
        return None if found is None else (int(found["round"]), int(found["shards"]))

    def path(self, kind: str, number: int, shard: int) -> Path:
        """A file of a shard: `take`, `scored` or `arrived`."""
        ending = "" if kind == "take" else ".npz"
        return self.folder / f"{kind}-{number}-{shard}{ending}"

    def shards(self, kind: str, number: int) -> list[int]:
        """Shards of a round that there are such files of."""
        found = (_NAME.fullmatch(path.name) for path in self.folder.iterdir())
        rounds = ((m[1], int(m[2]), int(m[3])) for m in found if m)
        return sorted(shard for k, of, shard in rounds if (k, of) == (kind, number))

    @property
    def wanted(self) -> Path:
        """Says that the child has time for a shard."""
        return self.folder / "wanted"

    @property
    def over(self) -> Path:
        """Says that there is no more to do."""
        return self.folder / "over"

    def give(self, number: int, shard: int) -> None:
        """Let the child score a shard."""
        self.wanted.unlink(missing_ok=True)
        self.path("take", number, shard).touch()


class HelperMailbox:
    """The side of a child that helps with one round.

    Args:
        workdir: The child's work folder.
        number: The round.
    """

    def __init__(self, workdir: Path, number: int) -> None:
        self._post = Post(workdir)
        self.number = number

    def claim(self) -> int | None:
        """A shard that the worker gave; None while there is none."""
        for shard in self._post.shards("take", self.number):
            self._post.path("take", self.number, shard).unlink()
            return shard
        self._post.wanted.touch()
        return None

    def hand_in(self, shard: int, scored: ScoredShard) -> None:
        """Leave what a shard came to."""
        temporary = self._post.folder / f".scored-{shard}"
        scored.save(temporary)
        temporary.rename(self._post.path("scored", self.number, shard))

    def is_over(self) -> bool:
        """Whether there is no more to do."""
        return self._post.over.exists()

    def wait(self) -> None:
        """Let a moment pass."""
        time.sleep(_PAUSE_S)


class Mailbox:
    """The side of a job's own child, for one round after another.

    Args:
        workdir: The child's work folder.
        count: Into how many shards a scoring is split.
    """

    def __init__(self, workdir: Path, count: int) -> None:
        self._workdir, self._count, self._number = workdir, count, 0
        self._post = Post(workdir)
        self._round = HelperMailbox(workdir, 0)

    @property
    def count(self) -> int:
        """Into how many shards a scoring is split, where it has as many batches."""
        return self._count

    def begin(self, number: int, count: int) -> None:
        """Offer a round's shards; what is left of an earlier round goes."""
        for path in self._post.folder.iterdir():
            path.unlink(missing_ok=True)
        self._number, self._round = number, HelperMailbox(self._workdir, number)
        write_json(self._post.folder / "round.json", {"round": number, "shards": count})

    def claim(self) -> int | None:
        """A shard that the worker gave; None while there is none."""
        return self._round.claim()

    def hand_in(self, shard: int, scored: ScoredShard) -> None:
        """Leave what a shard came to."""
        self._round.hand_in(shard, scored)

    def arrived(self) -> Iterator[tuple[int, ScoredShard]]:
        """What others have scored."""
        from graph_ops.score_shards import ScoredShard

        for shard in self._post.shards("arrived", self._number):
            path = self._post.path("arrived", self._number, shard)
            scored = ScoredShard.load(path)
            path.unlink()
            yield shard, scored

    def wait(self) -> None:
        """Let a moment pass."""
        self._round.wait()
