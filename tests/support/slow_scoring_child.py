"""A child that takes its time over every shard of a scoring, and says that it begins one.

`SHARD_SECONDS` is the time; a line `round shard` is added to the file `SCORED_SHARDS` when a shard
is done.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

from service import child
from service.shards import mailbox


class _SlowMailbox(mailbox.HelperMailbox):
    def claim(self) -> int | None:
        shard = super().claim()
        if shard is not None:
            time.sleep(float(os.environ["SHARD_SECONDS"]))
            with Path(os.environ["SCORED_SHARDS"]).open("a") as file:
                file.write(f"{self.number} {shard}\n")
        return shard


if __name__ == "__main__":
    for module in (mailbox, child):
        setattr(module, _SlowMailbox.__base__.__name__, _SlowMailbox)
    child.main(child.ACTIONS, child.import_library)
