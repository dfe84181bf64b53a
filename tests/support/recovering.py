"""Networks whose removed channels can be made up for exactly, and their recovery."""

from __future__ import annotations

import io
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from numpy.typing import NDArray

from graph_ops.bundle import Dataset, open_bundle
from graph_ops.channel_classes import ChannelClasses
from graph_ops.graph import graph_inputs
from graph_ops.recovery import Recovery, RefittedWeights, recover
from graph_ops.run import input_specs
from graph_ops.runtime import Session
from graph_ops.surgery import cut
from tests.support.cutting import Analysis, analyse_bytes

Array = NDArray[np.generic]


@dataclass(frozen=True)
class Recovered:
    """A cut network before and after recovery, and what came out."""

    classes: ChannelClasses
    dropped: NDArray[np.bool_]
    recovery: Recovery
    plain: ir.Model
    model: ir.Model

    def relative_errors(self, feeds: dict[str, Array]) -> tuple[float, float]:
        """Root mean square error of the outputs, plain and recovered, relative to the original."""
        wanted = Session(self.classes.channels.model).run(feeds)
        found = []
        for model in (self.plain, self.model):
            gaps = [
                np.sqrt(np.square(a - b).mean() / np.square(a).mean())
                for a, b in zip(wanted, Session(model).run(feeds), strict=True)
            ]
            found.append(float(np.mean(gaps)))
        return found[0], found[1]


def random_inputs(model: bytes, samples: int, seed: int = 0) -> dict[str, Array]:
    """Standard normal numbers for every input; axis 0 is the batch."""
    rng = np.random.default_rng(seed)
    graph = ir.from_proto(onnx.load_from_string(model)).graph
    return {
        str(v.name): rng.standard_normal(
            (samples, *[int(d) for d in (v.shape or ())[1:] if isinstance(d, int)])
        ).astype(np.float32)
        for v in graph_inputs(graph)
    }


def drop_filters(analysis: Analysis, filters: dict[str, list[int]]) -> NDArray[np.bool_]:
    """[classes] the classes of these filters."""
    dropped = np.zeros(analysis.classes.count, dtype=np.bool_)
    for name, indices in filters.items():
        dropped[analysis.classes.of_filters(analysis.convolution(name))[indices]] = True
    return dropped


def recovered(
    model: bytes,
    filters: dict[str, list[int]],
    method: str = "reconstruct",
    *,
    inputs: dict[str, Array] | None = None,
    samples: int = 64,
    batch_size: int = 16,
    block_iterations: int = 0,
    iterations: int = 0,
) -> Recovered:
    """Drop filters by convolution and recover on random inputs, or on those given."""
    analysis = analyse_bytes(model)
    dropped = drop_filters(analysis, filters)
    classes = analysis.classes
    arrays = inputs if inputs is not None else random_inputs(model, samples)
    file = io.BytesIO()
    np.savez(file, **arrays)  # type: ignore[arg-type]
    with open_bundle(file.getvalue()) as bundle:
        dataset = Dataset.bind(
            bundle,
            input_specs(classes.channels.model),
            batch_size=batch_size,
            validation_fraction=0.0,
        )
        recovery = recover(
            classes,
            dropped,
            RefittedWeights(),
            dataset,
            method,
            block_iterations=block_iterations,
            iterations=iterations,
        )
    refitted = cut(classes, dropped)
    recovery.weights.lay_over(classes, dropped, refitted)
    return Recovered(classes, dropped, recovery, cut(classes, dropped), refitted)


def counted(patch: pytest.MonkeyPatch, module: ModuleType, name: str) -> list[int]:
    """Grows by one with every call of a module's function, which is carried out."""
    calls: list[int] = []
    original = getattr(module, name)

    def count(*arguments: Any) -> Any:
        calls.append(1)
        return original(*arguments)

    patch.setattr(module, name, count)
    return calls


def edited(model: bytes, **weights: Array) -> bytes:
    """The model with other numbers in some initializers."""
    proto = onnx.load_from_string(model)
    for tensor in proto.graph.initializer:
        if tensor.name in weights:
            tensor.CopyFrom(onnx.numpy_helper.from_array(weights[tensor.name], tensor.name))
    return bytes(proto.SerializeToString())


def stored(model: bytes, name: str) -> Array:
    """An initializer, as a copy."""
    proto = onnx.load_from_string(model)
    found = next(t for t in proto.graph.initializer if t.name == name)
    return np.array(onnx.numpy_helper.to_array(found))
