"""Read the next batch while the present one is computed.

Reading and decompressing arrays, and ONNX Runtime's own work, both let other Python threads run.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterable, Iterator
from typing import TypeVar

_Item = TypeVar("_Item")
_END = object()


def prefetched(items: Iterable[_Item], ahead: int = 1) -> Iterator[_Item]:
    """The same items in the same order, read by a thread that stays ahead.

    An error while reading is raised where the item would have come. When the consumer stops
    early, the thread stops too, after the item it is at.

    Args:
        items: Where they come from.
        ahead: Items that may wait, read but not used.
    """
    ready: queue.Queue[tuple[object, BaseException | None]] = queue.Queue(maxsize=ahead)
    is_abandoned = threading.Event()

    def hand_over(item: object, error: BaseException | None = None) -> bool:
        while not is_abandoned.is_set():
            try:
                ready.put((item, error), timeout=0.1)
            except queue.Full:
                continue
            return True
        return False

    def read() -> None:
        try:
            for item in items:
                if not hand_over(item):
                    return
        except BaseException as error:
            hand_over(_END, error)
        else:
            hand_over(_END)

    reader = threading.Thread(target=read, name="prefetch", daemon=True)
    reader.start()
    try:
        while True:
            item, error = ready.get()
            if error is not None:
                raise error
            if item is _END:
                return
            yield item  # type: ignore[misc]  # everything but _END came from `items`
    finally:
        is_abandoned.set()
        reader.join()
