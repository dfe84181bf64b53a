"""Scoring graphs made of the rows of the gradient spec tables."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from graph_ops.canonical import scoring_copy
from graph_ops.engines.base import ScoringGraph, Tap
from tests.graph_ops.rules import gradient_harness
from tests.graph_ops.rules.gradient_harness import LOSS, GradientSpec, build_model

Feeds = dict[str, NDArray[Any]]

RULES = Path(gradient_harness.__file__).parent


def every_spec() -> list[GradientSpec]:
    """The rows of all tables, each once."""
    found: dict[str, GradientSpec] = {}
    for file in sorted(RULES.glob("test_gradients_*.py")):
        table = importlib.import_module(f"tests.graph_ops.rules.{file.stem}")
        for name, rows in vars(table).items():
            if name.endswith("_SPECS") and name != "REFUSED_SPECS":
                found |= {spec.name: spec for spec in rows}
    return list(found.values())


def spec_graph(spec: GradientSpec) -> tuple[ScoringGraph, Feeds]:
    """A spec's model with the harness' loss, its inputs as taps, and something to feed."""
    random = np.random.default_rng(abs(gradient_harness.hash_name(spec.name)))
    model = build_model(spec, random)
    copy = scoring_copy(model, {name: tuple(dims[1:]) for name, dims in spec.inputs.items()})
    gradient_harness.append_harness_loss(copy.model.graph, copy.shapes, random)
    taps = []
    for name in spec.wanted or spec.inputs:
        tapped = _tapped(copy.model.graph, name)
        copy.shapes[str(tapped.name)] = copy.shapes[name]
        taps.append(Tap(str(tapped.name), 1))
    feeds = {
        name: gradient_harness.draw(spec, name, dims, random) for name, dims in spec.inputs.items()
    }
    return ScoringGraph(copy.model, copy.shapes, LOSS, tuple(taps)), feeds


def _tapped(graph: ir.Graph, name: str) -> ir.Value:
    """An input as everybody else reads it: through an Identity, whose output can be scored."""
    source = next(v for v in graph.inputs if v.name == name)
    node = ir.node("Identity", [source])
    output = node.outputs[0]
    output.name, output.type, output.shape = f"{name}/tap", source.type, source.shape
    source.replace_all_uses_with(output, replace_graph_outputs=True)
    node.replace_input_with(0, source)
    graph.insert_before(graph[0], node)
    return output
