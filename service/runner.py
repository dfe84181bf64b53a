"""One child process from start to end: spawned, watched, limited, and its end understood.

Model and bundle bytes are only ever parsed in a child. Whatever happens there (a segmentation
fault in native code, memory without end, a loop) ends as a `ChildFailure` with a code here, and
the server lives on. The other half, what happens inside, is `service.child`.

The two talk through a work folder: `request.json` in, result files or `problem.json` out, and
progress as JSON lines on the child's standard output.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import signal
import sys
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

import service
from service.files import read_json, write_json
from service.problem_types import PROBLEM_TYPES
from service.protocol import (
    DISK_FULL,
    LISTEN_FD_VARIABLE,
    LOCK_FD_VARIABLE,
    PARENT_PID_VARIABLE,
    SCRATCH,
    WAIT,
    PhaseReport,
    ProgressReport,
)

_POLL_S = 0.05
_LINE_LIMIT = 64 * 2**10
_STDERR_TAIL_BYTES = 16 * 2**10
_PROBLEM_LIMIT_BYTES = 2**20
_PROGRESS_TEXT_LIMIT = 200
_LATEST_S = 2.0**32
"""No child's clock is later, whatever it says: nanoseconds since the epoch have to fit 64 bits."""
_WITHHELD = frozenset({"DATABASE_URL", "WEBHOOK_SECRET", LISTEN_FD_VARIABLE, LOCK_FD_VARIABLE})
"""Variables that a process which reads hostile input has no business to know."""

log = logging.getLogger("service.runner")


@dataclass(frozen=True)
class Limits:
    """What one child may use."""

    timeout_s: float
    memory_bytes: int
    file_bytes: int


class ChildFailure(Exception):  # noqa: N818 - an outcome, not a bug
    """The child gave no result.

    Attributes:
        code: A key of `PROBLEM_TYPES`.
        detail: Sentence for a person.
        members: JSON-ready facts.
    """

    def __init__(self, code: str, detail: str, **members: Any) -> None:
        super().__init__(f"{code}: {detail}")
        self.code = code
        self.detail = detail
        self.members = members


async def run_child(
    module: str,
    workdir: Path,
    request: dict[str, Any],
    limits: Limits,
    on_progress: Callable[[ProgressReport], None] = lambda _: None,
    on_phase: Callable[[PhaseReport], None] = lambda _: None,
    spares: Spares | None = None,
) -> None:
    """Run `python -m module workdir` and return when it has succeeded.

    When the caller is cancelled the child and its group are killed before the cancellation goes
    on.

    Args:
        module: Module whose `__main__` part does what `request.json` asks.
        workdir: Its folder; results are found there afterwards.
        request: Written to `request.json`.
        limits: Time, resident memory and file size.
        on_progress: Called on the event loop for each report.
        on_phase: Called on it when a phase has ended, where the request asks for that.
        spares: Children of the same module that wait for work.

    Raises:
        ChildFailure: it gave no result; the code says why.
    """
    (workdir / SCRATCH).mkdir(exist_ok=True)
    (workdir / "problem.json").unlink(missing_ok=True)
    write_json(workdir / "request.json", {**request, "file_bytes": limits.file_bytes})
    process = None if spares is None else await spares.take(workdir)
    if process is None:
        process = await start_child(module, workdir)
    filling = None if spares is None else asyncio.create_task(spares.fill())
    tail: deque[bytes] = deque()
    assert process.stdout is not None
    assert process.stderr is not None
    readers = [
        asyncio.create_task(_read_reports(process.stdout, on_progress, on_phase)),
        asyncio.create_task(_read_tail(process.stderr, tail)),
    ]
    overrun: ChildFailure | None = None
    try:
        overrun = await _watch(process, limits)
    finally:
        _kill_group(process)
        await _settle(process, readers)
    if filling is not None:
        await filling
    stderr = b"".join(tail)[-_STDERR_TAIL_BYTES:].decode("utf-8", "replace")
    failure = overrun or _failure_of_exit(process.returncode, workdir)
    if failure is not None:
        # What a child says about its input stays out of the log; what crashed it does not.
        is_bug = failure.code in ("job_crashed", "job_failed")
        last_words = _indented(stderr) if is_bug else ""
        log.warning("child in %s: %s%s", workdir.name, failure.code, last_words)
        raise failure


async def start_child(module: str, workdir: Path | None) -> asyncio.subprocess.Process:
    """Start a child in its work folder, or one that waits for its folder."""
    waits = workdir is None
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        module,
        WAIT if workdir is None else str(workdir),
        stdin=asyncio.subprocess.PIPE if waits else asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        limit=_LINE_LIMIT,
        cwd=workdir or "/",
        env=_environment(None if workdir is None else workdir / SCRATCH),
        start_new_session=True,
    )


class Spares:
    """Children that have imported their library and wait for work: most of a short job's time.

    Each is used once, like any other child. Used on one event loop.

    Args:
        module: As for `run_child`.
        count: How many to keep.
    """

    def __init__(self, module: str, count: int) -> None:
        self._module = module
        self._count = count
        self._starting = 0
        self._waiting: deque[asyncio.subprocess.Process] = deque()

    async def fill(self) -> None:
        """Start what is missing, if that is possible."""
        self._waiting = deque(p for p in self._waiting if p.returncode is None)
        while len(self._waiting) + self._starting < self._count:
            self._starting += 1
            try:
                process = await start_child(self._module, None)
            except OSError as error:
                log.warning("no child could be started beforehand: %s", error)
                return
            finally:
                self._starting -= 1
            self._waiting.append(process)

    async def take(self, workdir: Path) -> asyncio.subprocess.Process | None:
        """A child that works in this folder from now on; None when none waits."""
        while self._waiting:
            process = self._waiting.popleft()
            if process.returncode is not None:
                continue
            assert process.stdin is not None
            try:
                process.stdin.write(f"{workdir}\n".encode())
                await process.stdin.drain()
            except OSError:  # it has died just now
                continue
            process.stdin.close()
            return process
        return None


def _is_secret(name: str) -> bool:
    return name in _WITHHELD or name.startswith(("AWS_", "PG", "OTEL_"))


def _environment(scratch: Path | None) -> dict[str, str]:
    """The child's environment: ours without secrets, and imports that depend on no folder."""
    package_root = str(Path(service.__file__).resolve().parent.parent)
    paths = [package_root, *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
    ours = {name: value for name, value in os.environ.items() if not _is_secret(name.upper())}
    return {
        **ours,
        "PYTHONPATH": os.pathsep.join(dict.fromkeys(str(Path(p).resolve()) for p in paths)),
        "PYTHONSAFEPATH": "1",
        "PYTHONFAULTHANDLER": "1",
        **({} if scratch is None else {"TMPDIR": str(scratch)}),
        PARENT_PID_VARIABLE: str(os.getpid()),
    }


async def _watch(process: asyncio.subprocess.Process, limits: Limits) -> ChildFailure | None:
    """Wait for the end; what was overrun if the child has to be ended."""
    deadline = time.monotonic() + limits.timeout_s
    ended = asyncio.create_task(process.wait())
    try:
        watched = psutil.Process(process.pid)
    except psutil.NoSuchProcess:
        await ended
        return None
    try:
        while True:
            done, _ = await asyncio.wait({ended}, timeout=_POLL_S)
            if done:
                return None
            if time.monotonic() > deadline:
                return ChildFailure(
                    "job_timeout",
                    f"It ran longer than {limits.timeout_s:g} seconds and was ended.",
                    limit_s=limits.timeout_s,
                )
            used = _resident_bytes(watched)
            if used > limits.memory_bytes:
                return ChildFailure(
                    "job_out_of_memory",
                    f"It used {used} bytes of memory, more than the {limits.memory_bytes} it "
                    "may, and was ended.",
                    limit_bytes=limits.memory_bytes,
                    used_bytes=used,
                )
    finally:
        if not ended.done():
            ended.cancel()


def _resident_bytes(process: psutil.Process) -> int:
    """Private resident memory of a process and its descendants.

    Pages of memory-mapped files count as shared: the kernel takes them back when it needs room.
    """
    total = 0
    with contextlib.suppress(psutil.Error):
        for member in (process, *process.children(recursive=True)):
            with contextlib.suppress(psutil.Error):
                memory = member.memory_info()
                total += max(memory.rss - memory.shared, 0)
    return total


def _kill_group(process: asyncio.subprocess.Process) -> None:
    """End the child and everything it started; it leads a session of its own."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)


async def _settle(process: asyncio.subprocess.Process, readers: list[asyncio.Task[None]]) -> None:
    """Reap the child and close its pipes, also when the caller is being cancelled."""

    async def settle() -> None:
        await process.wait()
        await asyncio.wait(readers, timeout=2.0)
        for reader in readers:
            reader.cancel()

    task = asyncio.create_task(settle())
    while not task.done():
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError:
            if task.cancelled():
                raise
            continue


def _failure_of_exit(returncode: int | None, workdir: Path) -> ChildFailure | None:
    """What the end of a child means; None for success."""
    if returncode == 0:
        return None
    if returncode is not None and returncode < 0:
        return _failure_of_signal(-returncode)
    if returncode == DISK_FULL:
        return ChildFailure("insufficient_storage", "The disk became full while the job ran.")
    problem = read_json(workdir / "problem.json", _PROBLEM_LIMIT_BYTES)
    if isinstance(problem, dict) and problem.get("code") in PROBLEM_TYPES:
        details = problem.get("details")
        message = problem.get("message")
        failure = ChildFailure(str(problem["code"]), str(message))
        failure.members = details if isinstance(details, dict) else {}
        return failure
    return ChildFailure(
        "job_crashed",
        f"The process ended with exit status {returncode} and gave no reason.",
        exit_status=returncode,
    )


def _failure_of_signal(number: int) -> ChildFailure:
    try:
        name = signal.Signals(number).name
    except ValueError:
        name = f"signal {number}"
    if number == signal.SIGKILL:
        return ChildFailure(
            "job_out_of_memory",
            "The system ended the process (SIGKILL), as it does when memory runs out.",
            signal=name,
        )
    return ChildFailure(
        "job_crashed", f"The process was ended by {name} in native code.", signal=name
    )


async def _read_reports(
    stream: asyncio.StreamReader,
    on_progress: Callable[[ProgressReport], None],
    on_phase: Callable[[PhaseReport], None],
) -> None:
    while True:
        try:
            line = await stream.readline()
        except ValueError:  # a line over the limit: not ours, skip it
            continue
        if not line:
            return
        report = _report_of(line)
        if isinstance(report, ProgressReport):
            on_progress(report)
        elif report is not None:
            on_phase(report)


def _report_of(line: bytes) -> ProgressReport | PhaseReport | None:
    """What a line reports, or None when it is something else."""
    try:
        data = json.loads(line)
        if "ended" in data:
            ended = data["ended"]
            return PhaseReport(
                str(ended["phase"])[:_PROGRESS_TEXT_LIMIT],
                None if ended["number"] is None else int(ended["number"]),
                min(max(float(ended["begin_s"]), 0.0), _LATEST_S),
                min(max(float(ended["end_s"]), 0.0), _LATEST_S),
            )
        return ProgressReport(
            str(data["phase"])[:_PROGRESS_TEXT_LIMIT],
            int(data["done"]),
            int(data["total"]),
            str(data.get("message", ""))[:_PROGRESS_TEXT_LIMIT],
        )
    except (ValueError, TypeError, KeyError, OverflowError, AttributeError):
        return None


async def _read_tail(stream: asyncio.StreamReader, tail: deque[bytes]) -> None:
    """Keep the last of a stream, whatever its length."""
    kept = 0
    while data := await stream.read(4096):
        tail.append(data)
        kept += len(data)
        while kept - len(tail[0]) >= _STDERR_TAIL_BYTES:
            kept -= len(tail.popleft())


def _indented(text: str) -> str:
    return "".join(f"\n    {line}" for line in text.strip().splitlines())
