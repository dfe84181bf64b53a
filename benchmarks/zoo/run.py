"""Exports a network in one process and prunes each of its variants in another."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import zlib
from collections.abc import Sequence
from enum import Enum
from pathlib import Path
from typing import Any

from benchmarks.zoo.networks import Network
from benchmarks.zoo.results import Results

ROOT = Path(__file__).parents[2]
CPU_LIMIT_S = 400
"""Processor time for the exports of a network together, and for each case."""
TIME_LIMIT_S = 1800
"""Time by the clock, for a machine that does other things as well."""
MODELS = ROOT / "build" / "zoo"
"""Exported models, while they are needed."""
MEMORY_LIMIT_MIB = 8 * 1024
BOTH_ENGINES_ONE_IN = 8
"""Share of the networks that are scored with both engines."""
BOTH_ENGINES_VARIANT = "torchscript-folded"
ERROR_LINES = 12
KEPT_MIB = 150
"""Exports of a network that take more room are not kept."""


class Keep(Enum):
    """Which exported models stay after they were measured."""

    NONE = "none"
    SMALL = "small"


def measure_network(
    network: Network, variants: Sequence[str], python: Path, results: Results, keeps: Keep
) -> None:
    """Measure the variants of a network, and keep what comes of each."""
    folder = MODELS / network.id
    problem = ""
    missing = [v for v in variants if v not in exported(folder)["variants"]]
    if missing:
        command = [str(python), str(ROOT / "benchmarks/zoo/export.py")]
        problem = run([*command, network.library, network.name, str(folder), "least", *missing])
    facts = exported(folder)
    for variant in variants:
        outcome = facts["variants"].get(variant, {"error": problem or "no result"})
        side = outcome.get("side", facts.get("side"))
        case = {"side": side, "export": outcome}
        if "error" in outcome:
            case |= {"outcome": "not exported", "error": outcome["error"]}
        else:
            case |= measure_case(network, variant, folder, side)
        results.put(network.id, variant, case)
        if keeps is Keep.NONE:
            for file in folder.glob(f"{variant}.onnx*"):
                file.unlink()
    size = sum(f.stat().st_size for f in folder.glob("*")) if folder.exists() else 0
    if folder.exists() and (keeps is Keep.NONE or size > KEPT_MIB << 20):
        shutil.rmtree(folder)


def exported(folder: Path) -> dict[str, Any]:
    """What export.py wrote, with the variants that are there."""
    path = folder / "export.json"
    facts: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {"variants": {}}
    return facts


def measure_case(network: Network, variant: str, folder: Path, side: int) -> dict[str, Any]:
    """What came of one exported model; a process that dies tells how."""
    model, result = folder / f"{variant}.onnx", folder / f"{variant}.json"
    command = [sys.executable, "-m", "benchmarks.zoo.measure", str(model), str(result)]
    command += ["--side", str(side)]
    is_sampled = zlib.crc32(network.id.encode()) % BOTH_ENGINES_ONE_IN == 0
    if is_sampled and variant == BOTH_ENGINES_VARIANT:
        command.append("--both-engines")
    result.unlink(missing_ok=True)
    problem = run(command)
    if result.exists():
        facts: dict[str, Any] = json.loads(result.read_text())
        return facts
    is_over = problem.startswith("more than")
    return {"outcome": "over the limits" if is_over else "crashed", "error": problem}


def run(command: Sequence[str]) -> str:
    """Run a child under the limits; why it failed, or an empty string."""
    limits = [f"--data={MEMORY_LIMIT_MIB << 20}", f"--cpu={CPU_LIMIT_S}"]
    limited = ["prlimit", *limits, *command]
    try:
        done = subprocess.run(
            limited, cwd=ROOT, capture_output=True, text=True, timeout=TIME_LIMIT_S, check=False
        )
    except subprocess.TimeoutExpired:
        return f"more than {TIME_LIMIT_S} s"
    if done.returncode == 0:
        return ""
    if done.returncode == -signal.SIGXCPU or done.returncode == -signal.SIGKILL:
        return f"more than {CPU_LIMIT_S} s of processor time"
    if any(word in done.stderr for word in ("MemoryError", "bad_alloc", "not enough memory")):
        return f"more than {MEMORY_LIMIT_MIB} MiB"
    tail = "\n".join(done.stderr.strip().splitlines()[-ERROR_LINES:])
    return tail or f"exit status {done.returncode}"
