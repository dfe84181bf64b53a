"""What a model is and what can be pruned, without a bundle."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from graph_ops.analysis import analyse
from graph_ops.blocks import Block
from graph_ops.bundle import guess_preprocessing
from graph_ops.canonical import bind_shapes
from graph_ops.channel_classes import ChannelClasses
from graph_ops.constant_weights import store_computed_weights
from graph_ops.cost import CostModel
from graph_ops.graph import graph_inputs
from graph_ops.model import ModelLimits, SourceModel, load_model
from graph_ops.options import PruneOptions
from graph_ops.run import input_specs
from graph_ops.selection import Selector
from graph_ops.sharing import unshare


def inspect_model(
    model: str | Path | bytes | SourceModel, *, limits: ModelLimits | None = None
) -> dict[str, Any]:
    """Inputs, outputs, opset, MACs, parameters, number of filters and of prunable ones.

    `preprocessing_guess` is what a network with this input was most likely trained on, as the
    option `preprocessing` takes it; None where the input is no image. Nothing uses it by itself.

    Raises:
        ModelError: the model cannot be used.
    """
    source = load_model(model, limits=limits)
    classes = _classes(source)
    cost = CostModel(classes)
    macs, parameters, _ = cost.totals(np.zeros(classes.count, dtype=np.bool_))
    graph = source.model.graph
    selector = Selector(classes, classes.is_prunable, PruneOptions())
    alive = np.ones(classes.count, dtype=np.bool_)
    guess = guess_preprocessing(input_specs(source.model))
    return {
        "sha256": source.sha256,
        "bytes": source.size_bytes,
        "ir_version": source.model.ir_version,
        "opset": graph.opset_imports.get("", 0),
        "producer": source.model.producer_name or None,
        "inputs": [_value(v) for v in graph_inputs(graph)],
        "outputs": [_value(v) for v in graph.outputs],
        "nodes": len(graph),
        "macs": macs if cost.are_macs_complete else None,
        "parameters": parameters,
        "convolutions": len(classes.channels.convolutions),
        "filters": sum(c.filter_count for c in classes.channels.convolutions if c.is_producer),
        "prunable_filters": selector.count_prunable(alive),
        "preprocessing_guess": None if guess is None else guess.settings,
    }


def describe_channels(
    model: str | Path | bytes | SourceModel, *, limits: ModelLimits | None = None
) -> dict[str, Any]:
    """The channel classes: which convolutions they hold, what each saves, and what is frozen.

    Classes that the same convolutions produce are listed as one block; each of its classes saves
    the same when it is the first to go. `balanced` classes are bound by a grouped convolution and
    go in sets that leave its groups equally wide.

    Raises:
        ModelError: the model cannot be used.
    """
    source = load_model(model, limits=limits)
    classes = _classes(source)
    selector = Selector(classes, classes.is_prunable, PruneOptions())
    cost = CostModel(classes)
    frozen = []
    for convolution in classes.channels.convolutions:
        ids = classes.of_filters(convolution)
        reasons = {classes.reason(int(c)) for c in ids if classes.is_frozen[c]} - {None}
        if convolution.filters is None:
            reasons = {convolution.why_whole}
        if reasons:
            count = int(classes.is_frozen[ids].sum()) if ids.size else convolution.filter_count
            frozen.append(
                {
                    "convolution": convolution.name,
                    "filters": count,
                    "of": convolution.filter_count,
                    "reasons": sorted(str(r) for r in reasons),
                }
            )
    return {
        "sha256": source.sha256,
        "blocks": [_block(classes, cost, block) for block in selector.blocks],
        "frozen": frozen,
    }


def _classes(source: SourceModel) -> ChannelClasses:
    model = source.clone()
    store_computed_weights(model)
    unshare(model)
    return analyse(model, bind_shapes(model, {}))


def _block(classes: ChannelClasses, cost: CostModel, block: Block) -> dict[str, Any]:
    convolutions = classes.channels.convolutions
    meter = cost.meter(np.zeros(classes.count, dtype=np.bool_))
    macs, parameters, size = meter.saving([block.classes[0]])
    followers = [
        c.name
        for i, c in enumerate(convolutions)
        if i not in block.convolutions and np.isin(classes.of_filters(c), block.classes).any()
    ]
    return {
        "convolutions": [
            {"name": convolutions[p].name, "filters_per_class": n}
            for p, n in zip(block.convolutions, block.filters_per_class, strict=True)
        ],
        "followers": followers,
        "classes": len(block.classes),
        "balanced": bool(classes.balances.is_bound[list(block.classes)].any()),
        "saves_per_class": {"macs": macs, "parameters": parameters, "bytes": size},
    }


def _value(value: Any) -> dict[str, Any]:
    dims = [d if isinstance(d, int) else (d.value or "?") for d in value.shape or ()]
    dtype = value.dtype.name.lower() if value.dtype is not None else None
    return {"name": value.name, "dtype": dtype, "shape": dims}
