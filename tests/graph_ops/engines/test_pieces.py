"""A batch is scored in pieces of samples, side by side."""

from __future__ import annotations

import numpy as np
import onnx.parser
import onnx_ir as ir
import pytest
from onnx import numpy_helper

from graph_ops import TaylorPrunableNetwork
from graph_ops.engines import pieces
from graph_ops.engines.pieces import cut, join, piece_length, samples_at_once, side_by_side
from graph_ops.providers import THREADS_VARIABLE

NETWORK = """
<ir_version: 9, opset_import: ["" : 17]>
agraph (float[%s, 3, 8, 8] x) => (float[%s, 5] y)
{
  a = Conv <pads = [1, 1, 1, 1]> (x, w1)
  b = Relu (a)
  c = Conv (b, w2)
  d = GlobalAveragePool (c)
  y = Flatten (d)
}
"""


def network(rows: str = "N") -> bytes:
    rng = np.random.default_rng(0)
    model = onnx.parser.parse_model(NETWORK % (rows, rows))
    for name, shape in {"w1": (8, 3, 3, 3), "w2": (5, 8, 1, 1)}.items():
        array = rng.standard_normal(shape).astype(np.float32)
        model.graph.initializer.append(numpy_helper.from_array(array, name))
    return bytes(model.SerializeToString())


def batch(rows: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(1)
    images = rng.standard_normal((rows, 3, 8, 8)).astype(np.float32)
    return {"x": images, "labels": rng.integers(0, 5, rows)}


def scores(model: bytes, rows: int) -> np.ndarray:
    scored = TaylorPrunableNetwork(model)
    scored.update_score(batch(rows))
    return scored.scores()


@pytest.mark.parametrize("rows", [1, 2, 7, 32])
@pytest.mark.parametrize("at_once", [1, 3, 8, 100])
def test_pieces_are_even_and_lose_nothing(rows: int, at_once: int) -> None:
    feeds = {"x": np.arange(2 * rows).reshape(rows, 2), "labels": np.arange(rows)}
    length = piece_length(rows, at_once)
    parts = list(cut(feeds, length))
    assert length <= at_once
    assert {array.shape[0] for part in parts for array in part.values()} == {length}
    assert (len(parts) - 1) * length < rows
    x, labels = join([[part["x"], part["labels"]] for part in parts], rows)
    np.testing.assert_array_equal(x, feeds["x"])
    np.testing.assert_array_equal(labels, feeds["labels"])


@pytest.mark.parametrize("threads", ["1", "2", "5"])
@pytest.mark.parametrize("operator_bytes", [1, 2_000])
def test_scores_are_those_of_the_whole_batch(
    monkeypatch: pytest.MonkeyPatch, threads: str, operator_bytes: int
) -> None:
    whole = scores(network(), 7)  # some 1 KB of an operator's activations a sample
    monkeypatch.setattr(pieces, "OPERATOR_BYTES", operator_bytes)
    monkeypatch.setenv(THREADS_VARIABLE, threads)
    np.testing.assert_allclose(scores(network(), 7), whole, rtol=1e-5)


def test_a_network_of_a_fixed_batch_size_is_run_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = scores(network(), 4)
    monkeypatch.setattr(pieces, "OPERATOR_BYTES", 1)
    np.testing.assert_allclose(scores(network("4"), 4), whole, rtol=1e-5)


def matrix(side: int, shapes: dict[str, tuple[int | None, ...]]) -> int:
    """Samples at once of a product with a matrix of side² floats."""
    model = onnx.parser.parse_model(
        '<ir_version: 9, opset_import: ["" : 17]> agraph (float[N] x) => (float[N] y)'
        " { y = MatMul (x, w) }"
    )
    stored = numpy_helper.from_array(np.ones((side, side), np.float32), "w")
    model.graph.initializer.append(stored)
    return samples_at_once(ir.from_proto(model), shapes)


def test_large_samples_come_one_by_one_and_small_ones_together() -> None:
    assert matrix(1, {"y": (None, pieces.OPERATOR_BYTES)}) == 1
    assert matrix(1, {"y": (None, pieces.OPERATOR_BYTES // 4 - 1)}) == 2
    assert matrix(1, {"y": (None, pieces.OPERATOR_BYTES // 40)}) == 8


def test_a_large_matrix_is_read_for_many_samples_at_once() -> None:
    side = 1 << 11
    assert matrix(side, {"y": (None, side * side // 40)}) == 40


def test_the_error_of_a_piece_is_raised_when_nothing_runs_any_more() -> None:
    finished: list[int] = []

    def run(piece: dict[str, np.ndarray]) -> int:
        number = int(piece["x"][0])
        if number == 0:
            raise MemoryError
        finished.append(number)
        return number

    parts = list(cut({"x": np.arange(6)}, 1))
    with pytest.raises(MemoryError):
        side_by_side(run, parts, 2)
    before = list(finished)
    assert side_by_side(run, parts[1:], 2) == [1, 2, 3, 4, 5]
    assert finished[: len(before)] == before
