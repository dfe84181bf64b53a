"""The canonicalisation pass as a whole: names kept, stops where gradients end, refusals by name."""

from __future__ import annotations

import pytest

from graph_ops.engines.base import ScoringGraph
from graph_ops.engines.ort_training import trainable
from graph_ops.engines.ort_training.rewrites import NATIVE
from graph_ops.engines.ort_training.trainable import TrainableGraph, make_trainable
from graph_ops.engines.reduction import values_by_name
from graph_ops.errors import EngineUnsupportedError
from tests.graph_ops.engines.spec_graphs import every_spec, spec_graph

SPECS = {spec.name: spec for spec in every_spec()}


def made(graph: ScoringGraph) -> TrainableGraph:
    model = graph.model.clone()
    values = values_by_name(model)
    taps = [values[tap.name] for tap in graph.taps]
    return make_trainable(model, graph.shapes, values[graph.loss], taps)


def graph_of(name: str) -> ScoringGraph:
    return spec_graph(SPECS[name])[0]


@pytest.mark.parametrize("name", ["LRN: 5 of 7", "Conv: SAME_UPPER", "HardSwish(x)"])
def test_the_users_graph_is_untouched_and_names_are_kept(name: str) -> None:
    graph = graph_of(next(n for n in SPECS if n.startswith(name.split(":")[0])))
    before = [node.op_type for node in graph.model.graph]
    result = made(graph)
    assert [node.op_type for node in graph.model.graph] == before
    kept = set(values_by_name(result.model))
    assert {graph.loss, *(tap.name for tap in graph.taps)} <= kept
    assert {str(o.name) for o in graph.model.graph.outputs} <= kept


def test_gradients_end_in_identities() -> None:
    name = next(n for n, s in SPECS.items() if "Floor" in s.nodes)
    result = made(graph_of(name))
    assert result.stops
    values = values_by_name(result.model)
    for stop in result.stops:
        producer = values[stop].producer()
        assert producer is not None
        assert producer.op_type == "Identity"


def test_no_node_reads_a_value_twice() -> None:
    name = next(n for n, s in SPECS.items() if "Add(x, x)" in s.nodes)
    for node in made(graph_of(name)).model.graph:
        assert len(set(node.inputs)) == len(node.inputs)


def test_an_operator_without_a_form_there_is_named_with_its_node(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(trainable, "NATIVE", NATIVE - {"Sigmoid"})
    name = next(n for n, s in SPECS.items() if "= Sigmoid(x)" in s.nodes)
    with pytest.raises(EngineUnsupportedError, match="Sigmoid") as caught:
        made(graph_of(name))
    operators = caught.value.details["operators"]
    assert isinstance(operators, dict)
    assert list(operators) == ["Sigmoid"]
    assert "'y'" in operators["Sigmoid"]
