"""The whole curve in one run: models of many sizes along one ranking, each with its proof.

The bundle is scored once. Each point is cut from the original, proven, recovered and measured like
a result of its own; what they share is the scores, the original's outputs on the hold-out, and the
clock.
"""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np

from graph_ops.bundle import Dataset
from graph_ops.checkpoint import SavedRun
from graph_ops.conclusion import Conclusion
from graph_ops.goals.latency import search_latency
from graph_ops.goals.ranking import Ranking
from graph_ops.network import TaylorPrunableNetwork
from graph_ops.recovery import Originals
from graph_ops.result import CurvePoint, PruneResult
from graph_ops.rounds import Course
from graph_ops.run import Run
from graph_ops.scores import ScoreState
from graph_ops.selection import Goal
from graph_ops.targets import goal_of, unreachable


def prune_along(
    run: Run,
    network: TaylorPrunableNetwork,
    dataset: Dataset,
    scores: ScoreState | None,
    saved: SavedRun,
    conclusion: Conclusion,
) -> PruneResult:
    """Models evenly spaced on the way to the target; the result is the last, with all points.

    Raises:
        UnreachableTargetError: the target cannot be reached, and the options want no less.
        ModelTooLargeError: a model is over 2 GB.
    """
    count = run.options.points
    assert count is not None
    ranking = Ranking(run, network, dataset, saved, scores)
    ends = _ends(run, ranking, dataset, conclusion)
    network.originals = Originals()
    points: list[CurvePoint] = []
    result: PruneResult | None = None
    for number, goal in enumerate(ends, start=1):
        run.tell("search", number - 1, count, f"point {number} of {count}")
        known = _recall(saved, number)
        if known is not None and number < count:
            points.append(known)
            continue
        selection = ranking.set_to(goal)
        if not selection.is_reached and run.options.on_unreachable == "error":
            raise unreachable(network, selection, goal)
        ranking.note_round(selection)
        reason = "target_reached" if selection.is_reached else "nothing_more_to_prune"
        result = conclusion.result(Course(reason, ranking.scores))
        points.append(CurvePoint(result.report, result.model))
        _keep(saved, number, points[-1])
        ranking.note({"point": number})
    assert result is not None
    curve = [_entry(number, point.report) for number, point in enumerate(points, start=1)]
    for entry in curve:
        entry["is_efficient"] = not any(_beats(other, entry) for other in curve)
    return replace(result, report={**result.report, "curve": curve}, points=tuple(points))


def _ends(run: Run, ranking: Ranking, dataset: Dataset, conclusion: Conclusion) -> list[Goal]:
    """The goal of each point; a run that goes on reads no clock again, and so has the same."""
    network, options = ranking.network, run.options
    count = options.points or 1
    if options.target.max_latency_ratio is None:
        network.reset()
        return [goal_of(network, options, k / count, 0) for k in range(1, count + 1)]
    whole = network.cost.totals(np.zeros_like(network.dropped))[0]
    if not ranking.findings:
        _, feeds = conclusion.evidence.latency_feeds()
        search_latency(run, network, dataset, ranking.scores, SavedRun(None, "", 0), feeds)
        ranking.note({"end_macs": network.cost.totals(network.dropped)[0]})
    end = ranking.findings[0]["end_macs"]
    return [Goal(macs=whole - (whole - end) * k / count) for k in range(1, count + 1)]


def _entry(number: int, report: dict[str, Any]) -> dict[str, Any]:
    """A point of the report's curve."""
    after, metric, proof = report["cost"]["after"], report["metric"], report["proof"]
    return {
        "point": number,
        "filters": report["filters"]["after"],
        "macs": after["macs"],
        "parameters": after["parameters"],
        "bytes": after["bytes"],
        "latency_ms": after["latency_ms"],
        "latency_ratio": after["latency_ms"] / report["cost"]["before"]["latency_ms"],
        "metric": metric["after"],
        "change_low": metric["change_low"],
        "change_high": metric["change_high"],
        "max_rel_diff": proof["max_rel_diff"],
        "higher_is_better": report["metric"]["higher_is_better"],
    }


def _beats(a: dict[str, Any], b: dict[str, Any]) -> bool:
    """Whether a point is no worse in size and metric, and better in one."""
    if a["metric"] is None or b["metric"] is None:
        return False
    sign = 1 if a["higher_is_better"] else -1
    gain, saving = sign * (a["metric"] - b["metric"]), b["bytes"] - a["bytes"]
    return bool(gain >= 0 and saving >= 0 and (gain > 0 or saving > 0))


def _keep(saved: SavedRun, number: int, point: CurvePoint) -> None:
    saved.keep_file(f"point-{number:02d}.onnx", point.model)
    saved.keep_file(f"point-{number:02d}.json", json.dumps(point.report).encode())


def _recall(saved: SavedRun, number: int) -> CurvePoint | None:
    model = saved.read_file(f"point-{number:02d}.onnx")
    report = saved.read_file(f"point-{number:02d}.json")
    if model is None or report is None:
        return None
    return CurvePoint(json.loads(report), model)
