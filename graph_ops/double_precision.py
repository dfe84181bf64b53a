"""Models in float64: what is left of a difference when rounding is taken out of it.

ONNX Runtime has no convolution in float64, so ONNX's own reference implementation computes. It is
slow; one sample is enough to tell rounding from an error of the surgery.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from onnx import GraphProto, ValueInfoProto
from onnx.reference import ReferenceEvaluator

from graph_ops.errors import ModelRunError
from graph_ops.float_shadow import HALVES, widen
from graph_ops.memory import give_back_memory
from graph_ops.model import lift_constants
from graph_ops.runtime import Array


class DoubleSession:
    """A copy of a model that stores and computes in float64.

    Args:
        model: The model; its inputs keep their element types, and are cast.

    Raises:
        ModelRunError: the reference implementation does not know an operator.
    """

    def __init__(self, model: ir.Model) -> None:
        copy = model.clone()
        lift_constants(copy)
        widen(copy, HALVES | {ir.DataType.FLOAT}, ir.DataType.DOUBLE)
        self.output_names = [str(value.name) for value in copy.graph.outputs]
        proto = ir.to_proto(copy)
        del copy
        with _as_run_error("load"):
            self._evaluator = ReferenceEvaluator(proto)
        del proto.graph.initializer[:]  # the evaluator has its own arrays of them
        self._proto = proto

    def run(self, feeds: Mapping[str, Array], outputs: Sequence[str] | None = None) -> list[Array]:
        """Outputs for the feeds (all of them by default).

        Raises:
            ModelRunError: the reference implementation fails.
        """
        names = list(outputs) if outputs is not None else self.output_names
        with _as_run_error("run"), np.errstate(all="ignore"):
            return [np.asarray(array) for array in self._evaluator.run(names, dict(feeds))]

    def run_all(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Every value that is computed, by its name.

        Raises:
            ModelRunError: the reference implementation fails.
        """
        with _as_run_error("run"), np.errstate(all="ignore"):
            found = self._evaluator.run(None, dict(feeds), intermediate=True)
        assert isinstance(found, dict)
        return {name: value for name, value in found.items() if isinstance(value, np.ndarray)}

    def steps(
        self, feeds: Mapping[str, Array], instead: Mapping[str, Array]
    ) -> Iterator[tuple[str, Array]]:
        """Every value that the nodes compute, one node after the other.

        Args:
            feeds: One batch.
            instead: Values that go on in place of what was computed, where shapes agree.

        Raises:
            ModelRunError: the reference implementation fails.
        """
        graph = self._proto.graph
        opsets = {o.domain: o.version for o in self._proto.opset_import}
        values: dict[str, Array] = {**self._evaluator.rt_inits_, **feeds}
        for node in graph.node:
            names = [name for name in node.output if name]
            alone = GraphProto(node=[node], output=[ValueInfoProto(name=name) for name in names])
            with _as_run_error("run"), np.errstate(all="ignore"):
                found = ReferenceEvaluator(alone, opsets).run(None, values)
            for name, value in zip(names, map(np.asarray, found), strict=True):
                yield name, value
                known = instead.get(name)
                goes_on = known is not None and known.shape == value.shape
                values[name] = known if known is not None and goes_on else value


@dataclass(frozen=True)
class Answers:
    """What a model said to one batch, in place of the model.

    Attributes:
        output_names: Names of its outputs.
        arrays: The outputs by name.
    """

    output_names: list[str]
    arrays: Mapping[str, Array]

    def run(self, feeds: Mapping[str, Array], outputs: Sequence[str] | None = None) -> list[Array]:
        """The outputs (all of them by default)."""
        return [self.arrays[name] for name in outputs or self.output_names]


def answers_in_double(model: ir.Model, feeds: Mapping[str, Array]) -> Answers:
    """What a model says in float64; it is not kept, for it takes twice the room of the file.

    Args:
        model: The model.
        feeds: One batch.

    Raises:
        ModelRunError: the reference implementation cannot.
    """
    session = DoubleSession(model)
    names = session.output_names
    answers = Answers(names, dict(zip(names, session.run(feeds), strict=True)))
    del session
    gc.collect()  # the evaluator is part of a cycle
    give_back_memory()
    return answers


@contextmanager
def _as_run_error(verb: str) -> Iterator[None]:
    """Turns what the reference implementation raises, which may be anything, into our error."""
    try:
        yield
    except Exception as error:
        reason = str(error).partition("\n")[0]
        raise ModelRunError(
            f"ONNX's reference implementation cannot {verb} the model in float64: "
            f"{type(error).__name__}: {reason}"
        ) from error
