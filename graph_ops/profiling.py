"""Which operators a model spends its time in, by ONNX Runtime's own profiler.

The profiler writes one event per operator and run. Names are those of the graph that ONNX Runtime
made of the model: a Conv and its Relu are one `FusedConv`, and layout changes are operators too.
"""

from __future__ import annotations

import errno
import json
import os
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import onnx_ir as ir

from graph_ops.runtime import Array, Session

RUNS = (3, 20)
"""Profiled runs, without the first: at least, at most."""
_KERNEL = "_kernel_time"


@dataclass(frozen=True)
class OperatorTime:
    """What all operators of one type take in one run.

    Attributes:
        op_type: Their type in the graph that ONNX Runtime runs.
        nodes: How many there are.
        ms: Sum over them of each one's median time.
    """

    op_type: str
    nodes: int
    ms: float


def operator_times(
    model: ir.Model,
    feeds: Mapping[str, Array],
    *,
    budget_s: float = 0.2,
    threads: int | None = None,
) -> list[OperatorTime]:
    """Time per type of operator, the longest first.

    On a GPU the profiler sees when a kernel was started and not how long it ran.

    Args:
        model: The model.
        feeds: One batch.
        budget_s: No further run is begun after this many seconds (three are always made).
        threads: Threads within an operator; None for as many as there are.

    Raises:
        ModelRunError: ONNX Runtime refuses the model.
        OSError: ENOSPC, the profile was cut short: the disk is full.
    """
    with tempfile.TemporaryDirectory(prefix="onnx-profile-") as folder:
        profile = Path(folder) / "run"
        session = Session(model, keep_memory=False, threads=threads, profile=profile)
        session.run(feeds)
        begin, runs = time.perf_counter(), 0
        while runs < RUNS[0] or (runs < RUNS[1] and time.perf_counter() - begin < budget_s):
            session.run(feeds)
            runs += 1
        try:
            events = json.loads(session.end_profile().read_bytes())
        except (FileNotFoundError, ValueError):
            # ONNX Runtime does not say that it could not write all of it.
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(profile)) from None
    return _times(events)


def _times(events: list[dict[str, object]]) -> list[OperatorTime]:
    """Sums over nodes of the median over runs; the first run of each node does not count."""
    spent: dict[tuple[str, str], list[float]] = defaultdict(list)
    for event in events:
        name, arguments = str(event.get("name", "")), event.get("args")
        if event.get("cat") != "Node" or not name.endswith(_KERNEL):
            continue
        assert isinstance(arguments, dict)
        microseconds = event["dur"]
        assert isinstance(microseconds, int | float)
        spent[str(arguments["op_name"]), name].append(microseconds / 1e3)
    by_type: dict[str, list[float]] = defaultdict(list)
    for (op_type, _), times in spent.items():
        by_type[op_type].append(statistics.median(times[1:] or times))
    found = [OperatorTime(op_type, len(ms), sum(ms)) for op_type, ms in by_type.items()]
    return sorted(found, key=lambda t: (-t.ms, t.op_type))
