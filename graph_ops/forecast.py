"""What a run would come to, without running it: no scores are taken and nothing is cut.

Which filters go is decided by scores, which are the work itself. The forecast ranks by weight
magnitude in their place. What the target is given in is then close to the result; the other
quantities depend on which filters go, and are rough.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np

from graph_ops.bundle import BundleLimits, open_bundle
from graph_ops.model import ModelLimits, load_model
from graph_ops.network import TaylorPrunableNetwork
from graph_ops.options import Criterion, PruneOptions, parse_options
from graph_ops.run import bind, input_specs
from graph_ops.selection import Selector
from graph_ops.targets import goal_of, unreachable


def forecast(
    model: str | Path | bytes,
    bundle: str | Path | bytes,
    options: PruneOptions | dict[str, Any] | str | None = None,
    *,
    model_limits: ModelLimits | None = None,
    bundle_limits: BundleLimits | None = None,
) -> dict[str, Any]:
    """Check model, bundle and options against each other, and estimate the result.

    Args:
        model: Path or bytes of a model.
        bundle: Path or bytes of a bundle.
        options: What to reach and how.
        model_limits: Bounds on the model file.
        bundle_limits: Bounds on the bundle.

    Returns:
        `before` and `after` with `filters`, `macs` (None where not known) and `parameters`;
        `after` is None for targets that are searched for;
        `is_reachable`; `rounds`; `samples` scored in each, and `held_out`.

    Raises:
        PrunerError: as `prune`, as far as it shows before any work; `UnreachableTargetError`
            included.
    """
    opts = parse_options(options)
    source = load_model(model, limits=model_limits)
    specs = input_specs(source.model)
    with open_bundle(
        bundle,
        limits=bundle_limits or BundleLimits(),
        preprocessing=opts.preprocessing,
        inputs=specs,
    ) as opened:
        dataset = bind(opened, specs, opts)
        shapes = dataset.input_shapes
        network = TaylorPrunableNetwork(
            source, opts, sample_shapes=shapes, targets=dataset.target_info
        )
        by_magnitude = opts.model_copy(update={"criterion": Criterion.MAGNITUDE_L2})
        ranked = TaylorPrunableNetwork(source, by_magnitude, sample_shapes=shapes)
        common = {"samples": len(dataset.scored), "held_out": len(dataset.held_out)}
        if opts.target.is_searched:
            # How far the search goes is what the work finds out.
            before = _cost(network)
            return {"before": before, "after": None, "is_reachable": True, "rounds": 1, **common}
        goal = goal_of(network, opts, 1.0, 0)
        # What a gradient cannot reach stays, whatever the ranking says.
        selector = Selector(ranked.classes, network.prunable, opts)
        selection = selector.select(np.nan_to_num(ranked.scores()), ranked.alive, goal, ranked.cost)
        if not selection.is_reached and opts.on_unreachable == "error":
            raise unreachable(network, selection, goal)
        before = _cost(network)
        network.apply(selection)
        return {
            "before": before,
            "after": _cost(network),
            "is_reachable": selection.is_reached,
            "rounds": _rounds(opts, selection.filters),
            **common,
        }


def _cost(network: TaylorPrunableNetwork) -> dict[str, int | None]:
    macs, parameters, _ = network.cost.totals(network.dropped)
    return {
        "filters": network.count_filters(),
        "macs": macs if network.cost.are_macs_complete else None,
        "parameters": parameters,
    }


def _rounds(options: PruneOptions, filters: int) -> int:
    if options.filters_per_step is not None:
        return max(1, math.ceil(filters / options.filters_per_step))
    return options.rounds or 1
