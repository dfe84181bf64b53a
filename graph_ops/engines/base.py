"""What an engine is: from a scoring graph and batches to per-sample sums of activation·gradient."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, Protocol

import onnx_ir as ir

from graph_ops.channels import Dims
from graph_ops.runtime import Array


@dataclass(frozen=True)
class Tap:
    """A convolution to be scored.

    Attributes:
        name: Name of the convolution's output in the scoring graph before any folding.
        filters: Number of its filters C.
    """

    name: str
    filters: int


@dataclass(frozen=True)
class ScoringGraph:
    """A forward graph with its loss, and what to score on it. An engine may change the model.

    Attributes:
        model: Scoring copy with the loss head attached.
        shapes: Shape of every value by name, None for the batch axis.
        loss: Name of the [N] loss.
        taps: Convolutions to be scored.
        gate: Option `gate`: where a filter is taken to end.
    """

    model: ir.Model
    shapes: dict[str, Dims]
    loss: str
    taps: tuple[Tap, ...]
    gate: Literal["batch_norm", "convolution"] = "batch_norm"


@dataclass(frozen=True)
class EngineInfo:
    """Who computed the gradients, for the report."""

    name: str
    version: str
    provider: str
    device: str


class GradientSession(Protocol):
    """An opened scoring graph."""

    @property
    def info(self) -> EngineInfo:
        """Who computes."""
        ...

    def contributions(self, feeds: Mapping[str, Array]) -> tuple[Array, list[Array]]:
        """[N] losses, and per tap [N, C] sums of (activation − a₀)·gradient over the positions.

        a₀ is 0 for the gate at the convolution, and for the gate after BatchNormalization what
        that maps to zero (`graph_ops.folding`).
        """
        ...


class ActivationSession(Protocol):
    """An opened scoring graph that hands out activations and gradients themselves."""

    def run(self, feeds: Mapping[str, Array]) -> tuple[Array, dict[str, Array], dict[str, Array]]:
        """[N] losses, activations and gradients [N, C, …] by tap name."""
        ...


class Engine(Protocol):
    """Computes gradients of the loss with respect to convolution outputs."""

    @property
    def why(self) -> str:
        """Why it is this engine, for the report."""
        ...

    def barriers(self, graph: ScoringGraph) -> Mapping[str, str]:
        """Taps (by name) that cannot be scored, and why."""
        ...

    def open(self, graph: ScoringGraph) -> GradientSession:
        """Open the graph for scoring in the graph (fast)."""
        ...

    def open_activations(self, graph: ScoringGraph) -> ActivationSession:
        """Open the graph for reading activations and gradients."""
        ...

    def close(self) -> None:
        """Give back what is held outside this process; the engine can be used again."""
        ...
