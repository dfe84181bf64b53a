"""Prunes one exported network to 0.7 of its MACs, and writes what came of it.

    .venv/bin/python -m benchmarks.zoo.measure MODEL RESULT [--both-engines]

A process of its own, so that a crash, a time limit or memory is that network's alone.
"""

from __future__ import annotations

import argparse
import json
import re
import resource
import tempfile
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from graph_ops import prune
from graph_ops.errors import NothingPrunableError, PrunerError
from graph_ops.model import load_model
from graph_ops.options import Criterion
from graph_ops.pruning import score
from graph_ops.run import input_specs

SAMPLES = 4
OPTIONS = {
    "target": {"max_macs_ratio": 0.7},
    "recovery": "none",
    "on_unreachable": "best",
    "batch_size": 2,
    "validation_fraction": 0.25,
    "engine": "standard",
}
SCORE_OPTIONS = {"batch_size": 2, "max_samples": 2, "validation_fraction": 0.0}


def write_bundle(model: Path, side: int, path: Path) -> None:
    """Noise for every input, of its own shape where that is fixed."""
    random = np.random.default_rng(0)
    arrays = {}
    for spec in input_specs(load_model(model).model):
        lengths = [d if d is not None else side for d in spec.dims[1:]]
        arrays[spec.name] = random.standard_normal((SAMPLES, *lengths)).astype(spec.dtype)
    np.savez(path, allow_pickle=False, **arrays)


def counted(reasons: list[str]) -> dict[str, int]:
    """How many convolutions have each reason, the names of nodes and tensors left out."""
    return dict(Counter(re.sub(r" ?'[^']*'", "", reason) for reason in reasons).most_common())


def pruned_facts(report: Mapping[str, Any]) -> dict[str, Any]:
    """What the table shows of a report."""
    convolutions = report["convolutions"]
    before, after = report["cost"]["before"], report["cost"]["after"]
    return {
        "opset": report["model"]["opset"],
        "convolutions": len(convolutions),
        "filters": report["filters"]["before"],
        "prunable": report["filters"]["prunable_before"],
        "macs": [before["macs"], after["macs"]],
        "parameters": [before["parameters"], after["parameters"]],
        "proof": report["proof"]["max_rel_diff"],
        "float32_proof": report["proof"]["float32_rel_diff"],
        "float64_proof": report["proof"]["float64_rel_diff"],
        "stop_reason": report["stop_reason"],
        "frozen": counted([c["frozen"] for c in convolutions if c["frozen"]]),
        "cut": sum(c["filters_after"] < c["filters_before"] for c in convolutions),
    }


def engine_gap(model: Path, bundle: Path) -> float:
    """Largest difference of the two engines' scores, relative to the largest score."""
    states = [
        score(model, bundle, SCORE_OPTIONS | {"engine": engine})
        for engine in ("standard", "ort-training")
    ]
    ours, theirs = (s.scores(Criterion.TAYLOR) for s in states)
    return float(np.nanmax(np.abs(ours - theirs)) / np.nanmax(np.abs(ours)))


def measured(model: Path, side: int, both_engines: bool) -> dict[str, Any]:
    """What came of one network."""
    with tempfile.TemporaryDirectory() as folder:
        bundle = Path(folder, "bundle.npz")
        write_bundle(model, side, bundle)
        try:
            facts = pruned_facts(prune(model, bundle, OPTIONS).report) | {"outcome": "pruned"}
        except NothingPrunableError as error:
            reasons = error.details["convolutions"]
            assert isinstance(reasons, dict)
            facts = {
                "outcome": "nothing to prune",
                "convolutions": len(reasons),
                "unexplained": [name for name, reason in reasons.items() if not reason],
                "frozen": counted([reason for reason in reasons.values() if reason]),
            }
        except PrunerError as error:
            return {"outcome": "failed", "error": f"{type(error).__name__}: {error}"}
        if both_engines and facts["outcome"] == "pruned":
            try:
                facts["engine_gap"] = engine_gap(model, bundle)
            except PrunerError as error:
                facts["engine_error"] = f"{type(error).__name__}: {error}"
    return facts


def processor_time() -> float:
    """Seconds that this process and its children have computed."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(u.ru_utime + u.ru_stime for u in used)


def main() -> None:
    parser = argparse.ArgumentParser(prog="benchmarks.zoo.measure", description=__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("result", type=Path)
    parser.add_argument("--side", type=int, required=True, help="pixels of an image")
    parser.add_argument("--both-engines", action="store_true")
    arguments = parser.parse_args()
    facts = measured(arguments.model, arguments.side, arguments.both_engines)
    facts["seconds"] = round(processor_time(), 1)
    facts["peak_mib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    arguments.result.write_text(json.dumps(facts))


if __name__ == "__main__":
    main()
