"""Scores are summed as soon as backward has their gradient, so that nothing is kept for them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx.parser
import onnx_ir as ir
import pytest
from onnx import numpy_helper

from graph_ops import TaylorPrunableNetwork
from graph_ops.engines.batch_size import with_batch_size
from graph_ops.engines.standard import StandardEngine
from graph_ops.engines.sums import SummedTensor, joined
from graph_ops.loss import TARGET_INPUT
from graph_ops.runtime import Session

BLOCKS = 4
HEAD = """
<ir_version: 9, opset_import: ["" : 17]>
agraph (float[N, 16, 8, 8] x0) => (float[N, 16] y)
"""
BLOCK = """
  a{n} = Conv <pads = [1, 1, 1, 1]> (x{n}, w{n})
  b{n} = Relu (a{n})
  p{n} = GlobalAveragePool (b{n})
  q{n} = Conv (p{n}, squeeze{n})
  r{n} = Relu (q{n})
  s{n} = Conv (r{n}, excite{n})
  t{n} = Sigmoid (s{n})
  x{m} = Mul (t{n}, b{n})
"""


def squeezed() -> bytes:
    """Four convolutions with squeeze-and-excitation: maps in whole blocks, and single positions."""
    body = "".join(BLOCK.format(n=n, m=n + 1) for n in range(BLOCKS))
    tail = f"g = GlobalAveragePool (x{BLOCKS}) y = Flatten (g)"
    model = onnx.parser.parse_model(f"{HEAD} {{ {body} {tail} }}")
    rng = np.random.default_rng(0)
    shapes = {"w": (16, 16, 3, 3), "squeeze": (4, 16, 1, 1), "excite": (16, 4, 1, 1)}
    for number in range(BLOCKS):
        for name, shape in shapes.items():
            array = rng.standard_normal(shape).astype(np.float32)
            model.graph.initializer.append(numpy_helper.from_array(array, f"{name}{number}"))
    return model.SerializeToString()


def executed(model: ir.Model, feeds: dict[str, np.ndarray], folder: Path) -> list[str]:
    """Names of the nodes in the order in which ONNX Runtime runs them."""
    session = Session(model, threads=1, profile=folder / "profile")
    session.run(feeds)
    events = json.loads(session.end_profile().read_text())
    kernels = [e for e in events if str(e["name"]).endswith("_kernel_time")]
    return [e["name"] for e in sorted(kernels, key=lambda e: int(e["ts"]))]


def test_each_sum_is_taken_before_backward_goes_on(tmp_path: Path) -> None:
    images = np.random.default_rng(1).standard_normal((1, 16, 8, 8)).astype(np.float32)
    labels = np.zeros(1, dtype=np.int64)
    network = TaylorPrunableNetwork(squeezed(), {"engine": "standard"})
    network.update_score({"x0": images, "labels": labels})
    graph = network.scorer.graph
    assert graph is not None
    model = with_batch_size(StandardEngine().build(graph).model, 1)
    order = executed(model, {"x0": images, TARGET_INPUT: labels}, tmp_path)
    if not any("Reorder" in name for name in order):
        pytest.skip("ONNX Runtime has no blocked layout on this processor")
    pools = [k for k, name in enumerate(order) if name.startswith("grad/GlobalAveragePool")]
    convolutions = [k for k, name in enumerate(order) if name.startswith("grad/Conv")]
    assert len(pools) == BLOCKS - 1  # the last one's filters are the network's output
    passed = [sum(c < pool for c in convolutions) for pool in pools]
    assert passed == sorted(set(passed)), "between two sums lies what leads to the second gradient"


def test_what_is_joined_lies_where_it_is_said_to() -> None:
    def tensor(name: str, channels: int, positions: int = 4) -> SummedTensor:
        return SummedTensor(name, 4, channels, positions, name)

    maps, narrow = [tensor("a", 32), tensor("b", 16)], [tensor("c", 20), tensor("d", 48, 1)]
    lie = joined([maps[0], narrow[0], narrow[1], maps[1]])
    assert list(lie.items()) == [
        (maps[1], slice(0, 16)),
        (maps[0], slice(16, 48)),
        (narrow[1], slice(48, 96)),
        (narrow[0], slice(96, 116)),
    ]
