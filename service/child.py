"""What runs inside a child process: one piece of native work, confined and reported.

`python -m service.child WORKDIR` reads `request.json` there, does it, and leaves the results in
the same folder, or a `problem.json` and exit status 1. Progress goes out as JSON lines on what
was standard output; anything that native code prints goes to standard error. The other half is
`service.runner`.

`graph_ops` is imported by the actions, after the process has confined itself; or beforehand, in a
child that is started before there is work (`python -m service.child -`) and gets its folder on
standard input.
"""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
import errno
import json
import os
import resource
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, NoReturn

from graph_ops.errors import PrunerError
from service.files import write_json
from service.protocol import DISK_FULL, PARENT_PID_VARIABLE, SCRATCH, WAIT
from service.shards.mailbox import HelperMailbox, Mailbox

if TYPE_CHECKING:
    from graph_ops.bundle import BundleLimits
    from graph_ops.model import ModelLimits
    from graph_ops.progress import PhaseCallback, PhaseTime, Progress
    from graph_ops.result import PruneResult

Request = dict[str, Any]
Action = Callable[[Request, Path, "ProgressWriter"], None]

_PR_SET_PDEATHSIG = 1
_PR_SET_NO_NEW_PRIVS = 38
_PROGRESS_INTERVAL_S = 0.1
_NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT})
_OOM_SCORE_OF_FIRST_VICTIM = "1000"


class ProgressWriter:
    """Writes progress lines for the server, no more often than a person can read them."""

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream
        self._phase = ""
        self._last_at = 0.0

    def __call__(self, progress: Progress) -> None:
        """Report; skipped when the last report of the same phase is too fresh."""
        at = time.monotonic()
        ends = progress.done >= progress.total
        if progress.phase == self._phase and not ends and at - self._last_at < _PROGRESS_INTERVAL_S:
            return
        self._phase, self._last_at = progress.phase, at
        line = {
            "phase": progress.phase,
            "done": progress.done,
            "total": progress.total,
            "message": progress.message,
        }
        self._stream.write(json.dumps(line) + "\n")
        self._stream.flush()

    def on_phase(self, time_: PhaseTime) -> None:
        """Say when a phase was."""
        self._stream.write(json.dumps({"ended": dataclasses.asdict(time_)}) + "\n")
        self._stream.flush()

    def phases(self, request: Request) -> PhaseCallback:
        """What the library is to call: nothing is said where the job is not traced."""
        return self.on_phase if request["traceparent"] else lambda _: None


def prune(request: Request, workdir: Path, progress: ProgressWriter) -> None:
    """Prune a model; leaves the model, `report.json`, `scores.npz`, points, `results.json`."""
    from graph_ops.checkpoint import Checkpoint
    from graph_ops.from_scores import merge_states
    from graph_ops.pruning import prune as prune_model

    states = [Path(path) for path in request["states"]]

    result = prune_model(
        Path(request["model"]),
        Path(request["bundle"]),
        request["options"],
        progress=progress,
        scores=merge_states(states) if states else None,
        checkpoint=Checkpoint(request["checkpoint"]),
        exchange=_exchange(request, workdir),
        on_phase=progress.phases(request),
        model_limits=_model_limits(request),
        bundle_limits=_bundle_limits(request),
    )
    names = _leave(result, workdir)
    result.write_scores(workdir / "scores.npz")
    names["scores"] = "scores.npz"
    for number, point in enumerate(result.points, start=1):
        (workdir / f"point-{number}.onnx").write_bytes(point.model)
        write_json(workdir / f"point-{number}.json", point.report)
        names[f"points/{number}"] = f"point-{number}.onnx"
        names[f"points/{number}/report"] = f"point-{number}.json"
    write_json(workdir / "results.json", names)


def cut(request: Request, workdir: Path, progress: ProgressWriter) -> None:
    """Cut by hand or by saved scores; leaves the model, `report.json` and `results.json`."""
    from graph_ops.by_hand import cut_channels
    from graph_ops.from_scores import cut_from_scores, merge_states

    task, bundle = request["task"], request["bundle"]
    if task.get("channels") is None:
        result = cut_from_scores(
            Path(request["model"]),
            merge_states([Path(path) for path in request["states"]]),
            request["options"],
            progress=progress,
            model_limits=_model_limits(request),
        )
    else:
        shapes = task.get("sample_shapes")
        result = cut_channels(
            Path(request["model"]),
            task["channels"],
            None if bundle is None else Path(bundle),
            request["options"],
            sample_shapes=None if shapes is None else {n: tuple(s) for n, s in shapes.items()},
            progress=progress,
            model_limits=_model_limits(request),
            bundle_limits=_bundle_limits(request),
        )
    write_json(workdir / "results.json", _leave(result, workdir))


def score(request: Request, workdir: Path, progress: ProgressWriter) -> None:
    """Take scores that fit those there are; leaves `scores.npz` and `results.json`."""
    from graph_ops.pruning import score as score_model
    from graph_ops.scores import ScoreState

    state = score_model(
        Path(request["model"]),
        Path(request["bundle"]),
        request["options"],
        progress=progress,
        exchange=_exchange(request, workdir),
        on_phase=progress.phases(request),
        model_limits=_model_limits(request),
        bundle_limits=_bundle_limits(request),
    )
    for path in request["states"]:
        state.require(ScoreState.load(path).digest)
    state.save(workdir / "scores.npz")
    write_json(workdir / "results.json", {"scores": "scores.npz"})


def help_score(request: Request, workdir: Path, progress: ProgressWriter) -> None:
    """Score shards of a job that runs elsewhere; leaves them in the mailbox."""
    from graph_ops.checkpoint import Checkpoint
    from graph_ops.pruning import help_score as help_with
    from graph_ops.score_shards import SharedScoring

    help_with(
        Path(request["model"]),
        Path(request["bundle"]),
        request["options"],
        SharedScoring(request["round"], request["shards"]),
        exchange=HelperMailbox(workdir, request["round"]),
        on_phase=progress.phases(request),
        checkpoint=Checkpoint(request["checkpoint"]),
        model_limits=_model_limits(request),
        bundle_limits=_bundle_limits(request),
    )


def merge(request: Request, workdir: Path, progress: ProgressWriter) -> None:
    """Add up score states of one model; leaves `merged.npz` and `merge.json`."""
    from graph_ops.from_scores import merge_states, open_bound
    from graph_ops.model import load_model
    from graph_ops.options import parse_options

    state = merge_states([Path(path) for path in request["states"]])
    if request["model"] is not None:
        source = load_model(Path(request["model"]), limits=_model_limits(request))
        network = open_bound(source, parse_options(request["options"]), state.binding)
        state.require(network.digest)
    state.save(workdir / "merged.npz")
    facts = {"samples": state.samples, "mean_loss": state.mean_loss}
    write_json(workdir / "merge.json", facts)


def inspect(request: Request, workdir: Path, progress: ProgressWriter) -> None:
    """Describe a model; leaves `inspection.json`."""
    from graph_ops.inspection import inspect_model

    facts = inspect_model(Path(request["model"]), limits=_model_limits(request))
    write_json(workdir / "inspection.json", facts)


def channels(request: Request, workdir: Path, progress: ProgressWriter) -> None:
    """Describe a model's channel classes; leaves `channels.json`."""
    from graph_ops.inspection import describe_channels

    facts = describe_channels(Path(request["model"]), limits=_model_limits(request))
    write_json(workdir / "channels.json", facts)


def contents(request: Request, workdir: Path, progress: ProgressWriter) -> None:
    """Check a bundle as a container; leaves `contents.json`."""
    from graph_ops.bundle import describe_bundle

    found = describe_bundle(Path(request["bundle"]), limits=_bundle_limits(request))
    write_json(workdir / "contents.json", found)


def forecast(request: Request, workdir: Path, progress: ProgressWriter) -> None:
    """Estimate what a job would come to; leaves `forecast.json`."""
    from graph_ops.forecast import forecast as forecast_run

    found = forecast_run(
        Path(request["model"]),
        Path(request["bundle"]),
        request["options"],
        model_limits=_model_limits(request),
        bundle_limits=_bundle_limits(request),
    )
    write_json(workdir / "forecast.json", found)


def probe(request: Request, workdir: Path, progress: ProgressWriter) -> None:
    """Show that the library can be imported, and which engines work; leaves `probe.json`."""
    import onnx
    import onnxruntime

    import graph_ops.pruning  # noqa: F401 - that it can be imported is what is asked
    from graph_ops.engines.catalog import engine_statuses

    versions = {"onnx": onnx.__version__, "onnxruntime": onnxruntime.__version__}
    engines = [dataclasses.asdict(status) for status in engine_statuses()]
    write_json(workdir / "probe.json", {"versions": versions, "engines": engines})


ACTIONS: dict[str, Action] = {
    "prune": prune,
    "cut": cut,
    "score": score,
    "help": help_score,
    "merge": merge,
    "inspect": inspect,
    "channels": channels,
    "contents": contents,
    "forecast": forecast,
    "probe": probe,
}


def _leave(result: PruneResult, workdir: Path) -> dict[str, str]:
    """Write a model and its report; the names of both."""
    model = result.write_model(workdir / "pruned.onnx")
    write_json(workdir / "report.json", result.report)
    return {"model": model.name, "report": "report.json"}


def _exchange(request: Request, workdir: Path) -> Mailbox | None:
    """Shares out the job's scoring, where that is wanted."""
    count = int(request["score_shards"])
    return Mailbox(workdir, count) if count > 1 else None


def _model_limits(request: Request) -> ModelLimits:
    from graph_ops.model import ModelLimits

    return ModelLimits(**request["model_limits"])


def _bundle_limits(request: Request) -> BundleLimits:
    from graph_ops.bundle import BundleLimits

    return BundleLimits(**request["bundle_limits"])


def bind_to_parent() -> None:
    """Let this process die with the one that started it."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != int(os.environ.get(PARENT_PID_VARIABLE, os.getppid())):
        os._exit(1)  # the server died before its death could be noticed


def confine(file_bytes: int) -> None:
    """Limit what this process may do.

    It is the first that the kernel ends when memory runs out, leaves no core dumps, gains no
    privileges, and writes no file beyond `file_bytes`. Memory and time are watched from outside:
    a limit on address space would stop ONNX Runtime, which reserves more than it uses.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text(_OOM_SCORE_OF_FIRST_VICTIM)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    limit = file_bytes if hard == resource.RLIM_INFINITY else min(file_bytes, hard)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))


def _take_stdout() -> IO[str]:
    """The server's progress pipe; what prints to standard output goes to standard error now."""
    private = os.dup(sys.stdout.fileno())
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    return os.fdopen(private, "w", encoding="utf-8")


def _problem_of(error: BaseException) -> dict[str, Any]:
    """What goes into `problem.json`. Texts of unexpected errors stay in the log."""
    if isinstance(error, PrunerError):
        return {"code": error.code, "message": error.message, "details": error.details}
    if isinstance(error, MemoryError):
        message = "Memory could not be allocated."
        return {"code": "job_out_of_memory", "message": message, "details": {}}
    if isinstance(error, OSError) and error.errno == errno.EFBIG:
        message = "A file that had to be written is larger than a job may write."
        return {"code": "result_too_large", "message": message, "details": {}}
    if isinstance(error, OSError) and error.errno in _NO_ROOM:
        message = "The disk became full while the job ran."
        return {"code": "insufficient_storage", "message": message, "details": {}}
    message = f"The job ended with an unexpected {type(error).__name__}."
    return {"code": "job_failed", "message": message, "details": {}}


def run(workdir: Path, actions: dict[str, Action]) -> int:
    """Do what `request.json` asks; the exit status."""
    progress = ProgressWriter(_take_stdout())
    try:
        request: Request = json.loads((workdir / "request.json").read_bytes())
        confine(request["file_bytes"])
        actions[request["action"]](request, workdir, progress)
    except BaseException as error:
        if not isinstance(error, PrunerError):
            traceback.print_exc()
        return _leave_problem(workdir, _problem_of(error))
    return 0


def _leave_problem(workdir: Path, problem: dict[str, Any]) -> int:
    """Write `problem.json`; the exit status, which tells of a full disk where that fails."""
    try:
        write_json(workdir / "problem.json", problem)
    except OSError as error:
        if error.errno not in _NO_ROOM:
            raise
        return DISK_FULL
    return 1


def wait_for_work() -> Path:
    """The work folder, once the server names one on standard input; then as if started in it."""
    line = sys.stdin.readline().strip()
    if not line:
        os._exit(0)  # there will be none
    workdir = Path(line)
    os.chdir(workdir)
    os.environ["TMPDIR"] = str(workdir / SCRATCH)
    tempfile.tempdir = None
    return workdir


def main(actions: dict[str, Action], warm_up: Callable[[], None]) -> NoReturn:
    """Work in the folder that the command line names; with `-`, warm up and wait for one."""
    bind_to_parent()
    if sys.argv[1] == WAIT:
        warm_up()
        workdir = wait_for_work()
    else:
        workdir = Path(sys.argv[1])
    status = run(workdir, actions)
    sys.stderr.flush()
    # Destructors of native libraries have nothing left to do, and some crash at exit.
    os._exit(status)


def import_library() -> None:
    """Import what most jobs need; no input has been seen yet."""
    import graph_ops.pruning  # noqa: F401


if __name__ == "__main__":
    main(ACTIONS, import_library)
