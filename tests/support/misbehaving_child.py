"""A child that does to its server what hostile or unlucky native work would do.

It is confined like the real one (`service.child.run`); the first line of the model file says what
happens. `ok` leaves small results, so that the ways of jobs can be tested without a model.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from graph_ops import errors
from service.child import ProgressWriter, main
from service.files import write_json
from service.protocol import ProgressReport


def act(line: str, workdir: Path, progress: ProgressWriter) -> None:
    """Do what a line says: a word and an argument."""
    word, _, argument = line.partition(" ")
    if word == "segfault":
        ctypes.string_at(0)
    elif word == "abort":
        os.abort()
    elif word == "vanish":
        os.kill(os.getpid(), signal.SIGKILL)
    elif word == "exit":
        os._exit(int(argument))
    elif word == "memory":
        hoard = []
        while True:
            hoard.append(bytearray(os.urandom(2**20)) * 8)
    elif word == "overallocate":
        bytearray(2**62)
    elif word == "sleep":
        progress(ProgressReport("sleeping", 1, 4, argument))
        time.sleep(float(argument.split()[0]))
    elif word == "need":
        if not Path(argument).exists():
            raise errors.ProofError("The test asked for this error.")
    elif word == "parricide":
        os.kill(os.getppid(), signal.SIGKILL)
        time.sleep(60)
    elif word == "family":
        subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
        progress(ProgressReport("family", 1, 1))
        time.sleep(600)
    elif word == "file":
        (workdir / "big").write_bytes(bytes(int(argument)))
    elif word == "raise":
        raise getattr(errors, argument)("The test asked for this error.", field="x", status=7)
    elif word == "bug":
        raise RuntimeError("a secret of the implementation")
    elif word == "noise":
        os.write(1, b"printed by native code\n" * 1000)
        os.write(2, b"x" * 10**6)
    elif word == "link":
        (workdir / "pruned.onnx").symlink_to("/etc/hostname")


def crash_in_each_round(checkpoint: Path, rounds: int) -> None:
    """Finish one round, as a checkpoint tells it, and crash; until there are `rounds`."""
    checkpoint.mkdir(exist_ok=True)
    done = len(list(checkpoint.glob("round-*.npz")))
    if done < rounds:
        (checkpoint / f"round-{done + 1:04d}.npz").touch()
        os.abort()


def prune(request: dict[str, Any], workdir: Path, progress: ProgressWriter) -> None:
    """Act, then leave results."""
    with Path(os.environ["EXECUTIONS"]).open("a") as executions:
        executions.write("one\n")
    content = Path(request["model"]).read_bytes()
    line = content.split(b"\n")[0].decode(errors="replace")
    if line.startswith("rounds "):
        crash_in_each_round(Path(request["checkpoint"]), int(line.split()[1]))
    act(line, workdir, progress)
    progress(ProgressReport("done", 4, 4))
    if not (workdir / "pruned.onnx").is_symlink():
        (workdir / "pruned.onnx").write_bytes(b"pruned " + content)
    write_json(workdir / "report.json", {"schema": 1, "options": request["options"]})
    (workdir / "scores.npz").write_bytes(b"scores")
    write_json(
        workdir / "results.json",
        {"model": "pruned.onnx", "report": "report.json", "scores": "scores.npz"},
    )


def inspect(request: dict[str, Any], workdir: Path, progress: ProgressWriter) -> None:
    """Act, then leave facts."""
    with Path(os.environ["EXECUTIONS"]).open("a") as executions:
        executions.write("one\n")
    path = Path(request.get("model") or request["bundle"])
    with path.open("rb") as file:
        act(file.readline(100).decode(errors="replace").strip(), workdir, progress)
    for name in ("inspection.json", "channels.json"):
        write_json(workdir / name, {"bytes": path.stat().st_size})
    write_json(workdir / "contents.json", {"arrays": []})
    costs = {"filters": 1, "macs": None, "parameters": 1}
    forecast = {"before": costs, "after": costs, "is_reachable": True}
    write_json(workdir / "forecast.json", forecast | {"rounds": 1, "samples": 2, "held_out": 3})


def probe(request: dict[str, Any], workdir: Path, progress: ProgressWriter) -> None:
    """There is nothing to find out."""
    write_json(workdir / "probe.json", {"versions": {}, "engines": []})


ACTIONS = {
    "prune": prune,
    "inspect": inspect,
    "channels": inspect,
    "contents": inspect,
    "forecast": inspect,
    "probe": probe,
}


if __name__ == "__main__":
    main(ACTIONS, lambda: None)
