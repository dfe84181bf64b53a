"""Targets: from the option a person gives to the bounds of each round."""

from __future__ import annotations

import math

import numpy as np

from graph_ops.errors import UnreachableTargetError
from graph_ops.graph import constant_array, input_at, int_of
from graph_ops.network import TaylorPrunableNetwork
from graph_ops.options import PruneOptions
from graph_ops.recovery.weights import BIAS_INPUT
from graph_ops.selection import Goal, Selection

METADATA_BYTES = 1024
"""Room kept for names and digests in the metadata of a model with a size in bytes as target."""

BIASED = frozenset({"Conv", "ConvTranspose", "Gemm"})
"""Operators that recovery may give a bias they did not have."""
ENTRY_BYTES = 256
"""Room for the name of a new stored tensor, in its entry and at its node."""


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
    if target.max_size_bytes is None:
        return Goal()  # where it ends is searched for
    rest = max(0, network.source.size_bytes - size) + _metadata_bytes(options)
    rest += recovery_bytes(network)
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
        + recovery_bytes(network),
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


def recovery_bytes(network: TaylorPrunableNetwork) -> int:
    """Most that recovery can add to the size of the file.

    Biases where there were none, and vectors that were stored once for several nodes.
    """
    if network.options.recovery == "none":
        return 0
    graph = network.original.graph
    vectors = [graph.initializers[use.copy] for use in network.shared]
    sizes = [v.const_value.nbytes for v in vectors if v.const_value is not None]
    for node in graph:
        weight = constant_array(node.inputs[1]) if node.op_type in BIASED else None
        if weight is not None and input_at(node, BIAS_INPUT) is None:
            sizes.append(max(weight.shape) * weight.itemsize * int_of(node, "group", 1))
    return sum(sizes) + ENTRY_BYTES * len(sizes)


def _metadata_bytes(options: PruneOptions) -> int:
    """Most that the metadata adds to the file; the options stand in it as JSON."""
    return METADATA_BYTES + len(options.model_dump_json(indent=1))
