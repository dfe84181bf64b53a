"""Targets: from the option a person gives to the bounds of each round."""

from __future__ import annotations

import math

import numpy as np

from graph_ops.errors import UnreachableTargetError
from graph_ops.network import TaylorPrunableNetwork
from graph_ops.options import PruneOptions
from graph_ops.selection import Goal, Selection

METADATA_BYTES = 1024
"""Room kept for names and digests in the metadata of a model with a size in bytes as target."""


def goal_of(
    network: TaylorPrunableNetwork, options: PruneOptions, share: float, dropped: int
) -> Goal:
    """The goal of a round that should get `share` of the way to the target.

    Args:
        network: The network; ratios are of what it was at first.
        options: The target.
        share: 0 to 1.
        dropped: Filters dropped so far.
    """
    target = options.target
    macs, parameters, size = network.cost.totals(np.zeros_like(network.dropped))
    if target.filters is not None:
        return Goal(filters=max(0, math.ceil(target.filters * share) - dropped))
    total = sum(c.filter_count for c in network.convolutions if c.is_producer)
    if target.filter_ratio is not None:
        away = math.ceil(total * (1 - target.filter_ratio) - 1e-9)
        return Goal(filters=max(0, math.ceil(away * share) - dropped))
    if target.max_macs_ratio is not None:
        return Goal(macs=macs * (1 - (1 - target.max_macs_ratio) * share))
    if target.max_params_ratio is not None:
        return Goal(parameters=parameters * (1 - (1 - target.max_params_ratio) * share))
    assert target.max_size_bytes is not None
    rest = max(0, network.source.size_bytes - size) + _metadata_bytes(options)
    rest += network.recovery_bytes
    goal = target.max_size_bytes - rest
    return Goal(size_bytes=size - (size - goal) * share)


def unreachable(
    network: TaylorPrunableNetwork, selection: Selection, goal: Goal
) -> UnreachableTargetError:
    """The error that says how far the network could go.

    Args:
        network: The network before the selection.
        selection: Everything that may still go.
        goal: What was wanted.
    """
    dropped = network.dropped.copy()
    dropped[list(selection.classes)] = True
    before = network.cost.totals(np.zeros_like(dropped))
    after = network.cost.totals(dropped)
    target = network.options.target
    filters = sum(
        int(dropped[network.classes.of_filters(c)].sum())
        for c in network.convolutions
        if c.is_producer
    )
    best = {
        "filters_dropped": filters,
        "macs_ratio": after[0] / before[0] if before[0] else None,
        "params_ratio": after[1] / before[1] if before[1] else None,
        "size_bytes": after[2]
        + max(0, network.source.size_bytes - before[2])
        + _metadata_bytes(network.options)
        + network.recovery_bytes,
    }
    return UnreachableTargetError(
        f"Target {target.kind} = {target.value:g} cannot be reached: dropping every filter that "
        f"may go drops {filters}, leaves {after[0] / max(1, before[0]):.1%} of the MACs and "
        f"{after[1] / max(1, before[1]):.1%} of the parameters. Lower min_filters, widen include, "
        'or set on_unreachable to "best".',
        target=target.kind,
        wanted=target.value,
        best=best,
        goal={k: v for k, v in vars(goal).items() if v is not None},
    )


def _metadata_bytes(options: PruneOptions) -> int:
    """Most that the metadata adds to the file; the options stand in it as JSON."""
    return METADATA_BYTES + len(options.model_dump_json(indent=1))
