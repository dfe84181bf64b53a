"""What onnxruntime-training gets wrong, mostly without an error, when a graph is given to it as is.

Each test takes the naive path first, so that it fails when the trap is gone, and shows that the
engine is not caught in it.
"""

from __future__ import annotations

import io
import subprocess
from collections.abc import Iterator
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from numpy.typing import NDArray

from graph_ops.engines.base import ScoringGraph
from graph_ops.engines.ort_training.engine import OrtTrainingEngine
from graph_ops.engines.ort_training.environment import training_python
from graph_ops.engines.ort_training.gradients import TOTAL, gradient_name
from graph_ops.engines.ort_training.process import TrainingProcess
from graph_ops.engines.reduction import values_by_name
from graph_ops.engines.standard import StandardEngine
from graph_ops.engines.sums import set_outputs
from graph_ops.engines.tape import BackwardTape
from graph_ops.errors import EngineUnsupportedError
from tests.graph_ops.engines.spec_graphs import Feeds, every_spec, spec_graph
from tests.support.training import needs_training

pytestmark = needs_training

SPECS = {spec.name: spec for spec in every_spec()}
WRONG = 0.1
"""Relative error from which on a gradient is plainly wrong."""

SILENTLY_WRONG = [
    "Conv: SAME_UPPER",
    "Conv: SAME_LOWER strided",
    "LeakyRelu <alpha=-0.5> (x)",
    "Where: both branches",
    "Pow: constant of higher rank",
]


@pytest.fixture(scope="module")
def process() -> Iterator[TrainingProcess]:
    process = TrainingProcess()
    yield process
    process.close()


def naive_gradients(
    process: TrainingProcess, graph: ScoringGraph, feeds: Feeds
) -> dict[str, NDArray[Any]]:
    """Gradients of the graph as it is: what the engine does, without its canonicalisation."""
    model = graph.model.clone()
    values = values_by_name(model)
    names = [tap.name for tap in graph.taps]
    tape = BackwardTape(model.graph, graph.shapes, frozenset(), model.graph.opset_imports[""])
    total = tape.op("ReduceSum", values[graph.loss], tape.ints([0]), keepdims=0)
    total.name = TOTAL
    set_outputs(model, [total, values[graph.loss], *(values[name] for name in names)])
    payload = np.frombuffer(ir.to_proto(model).SerializeToString(), np.uint8)
    request = {"action": "open", "stops": [], "loss": graph.loss, "products": [], "gradients": []}
    process.ask({**request, "handed_out": names}, {"model": payload})
    arrays = process.arrays(process.ask({"action": "run"}, feeds))
    return {name: np.array(arrays[gradient_name(name)]) for name in names}


def relative_error(found: NDArray[Any], expected: NDArray[Any]) -> float:
    if found.shape != expected.shape:
        return np.inf
    return float(np.abs(found - expected).max() / np.abs(expected).max())


@pytest.mark.parametrize("name", SILENTLY_WRONG)
def test_the_graph_as_it_is_gives_a_wrong_gradient_without_an_error(
    name: str, process: TrainingProcess
) -> None:
    graph, feeds = spec_graph(SPECS[name])
    _, _, expected = StandardEngine().open_activations(graph).run(feeds)
    naive = naive_gradients(process, graph, feeds)
    assert max(relative_error(naive[n], expected[n]) for n in naive) > WRONG
    engine = OrtTrainingEngine()
    _, _, found = engine.open_activations(graph).run(feeds)
    engine.close()
    assert max(relative_error(found[n], expected[n]) for n in found) < 1e-4


def test_a_value_used_twice_by_one_node_gets_two_gradients_of_one_name(
    process: TrainingProcess,
) -> None:
    name = next(n for n, spec in SPECS.items() if "Mul(x, x)" in spec.nodes)
    graph, feeds = spec_graph(SPECS[name])
    with pytest.raises(EngineUnsupportedError, match="Duplicate definition of name"):
        naive_gradients(process, graph, feeds)
    _, _, expected = StandardEngine().open_activations(graph).run(feeds)
    engine = OrtTrainingEngine()
    _, _, found = engine.open_activations(graph).run(feeds)
    engine.close()
    assert max(relative_error(found[n], expected[n]) for n in found) < 1e-4


TRAINING_MODE = """
import io, sys
import numpy as np, onnx, onnx_ir as ir
import onnxruntime as ort
from onnxruntime.capi import _pybind_state as state
sent = np.load(io.BytesIO(sys.stdin.buffer.read()))
x, payload = sent["x"], sent["model"].tobytes()
builder, wanted = state.OrtModuleGraphBuilder(), state.OrtModuleGraphBuilderConfiguration()
wanted.initializer_names = sent["weights"].tolist()
wanted.initializer_names_to_train, wanted.input_names_require_grad = [], ["x"]
builder.initialize(payload, wanted)
builder.build(state.TrainingGraphTransformerConfiguration(), [list(x.shape)])
optimized = ir.from_proto(onnx.load_from_string(builder.get_forward_model()))
modes = [n.attributes["training_mode"].value for n in optimized.graph
         if n.op_type.startswith("BatchNorm")]
assert modes == [1], modes
weights = ir.from_proto(onnx.load_from_string(payload)).graph.initializers
for value in [v for v in optimized.graph.inputs if v.name in weights]:
    optimized.graph.inputs.remove(value)
    value.const_value = weights[value.name].const_value
    optimized.graph.initializers.add(value)
options = ort.SessionOptions()
made = state.GradientGraphBuilder(
    ir.to_proto(optimized).SerializeToString(), {"score/total"}, {"x"}, "score/total", options
)
made.build()
built = ir.from_proto(onnx.load_from_string(made.get_model()))
names = {o.name: o for n in built.graph for o in n.outputs}
if names["x_grad"] not in built.graph.outputs:
    built.graph.outputs.append(names["x_grad"])
session = ort.InferenceSession(ir.to_proto(built).SerializeToString(), options)
feeds = {"x": x, "score/total_grad": np.ones((), np.float32)}
inputs = {i.name for i in session.get_inputs()}
(found,) = session.run(["x_grad"], {k: v for k, v in feeds.items() if k in inputs})
sys.stdout.buffer.flush()
with open(sys.argv[1], "wb") as file:
    np.save(file, found)
"""


def test_the_training_optimizer_puts_batch_normalization_into_training_mode(
    tmp_path: Any, process: TrainingProcess
) -> None:
    """Batch statistics make the loss independent of shifts, and the gradient nearly vanish."""
    spec = next(
        s for n, s in SPECS.items() if n.startswith("BatchNormalization") and "x" in s.inputs
    )
    graph, feeds = spec_graph(spec)
    _, _, expected = StandardEngine().open_activations(graph).run(feeds)
    model = graph.model.clone()
    values = values_by_name(model)
    tape = BackwardTape(model.graph, graph.shapes, frozenset(), model.graph.opset_imports[""])
    total = tape.op("ReduceSum", values[graph.loss], tape.ints([0]), keepdims=0)
    total.name = TOTAL
    set_outputs(model, [total])
    sent = io.BytesIO()
    np.savez(
        sent,
        x=feeds["x"],
        model=np.frombuffer(ir.to_proto(model).SerializeToString(), np.uint8),
        weights=np.asarray(list(model.graph.initializers)),
    )
    result = tmp_path / "gradient.npy"
    command = [str(training_python()), "-I", "-c", TRAINING_MODE, str(result)]
    done = subprocess.run(command, input=sent.getvalue(), capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()[-2000:]
    assert relative_error(np.load(result), expected["x/tap"]) > WRONG
    engine = OrtTrainingEngine()
    _, _, found = engine.open_activations(graph).run(feeds)
    engine.close()
    assert relative_error(found["x/tap"], expected["x/tap"]) < 1e-4
