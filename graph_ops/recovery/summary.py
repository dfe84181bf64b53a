"""What a recovery did, layer by layer."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from graph_ops.recovery.weights import RefittedWeights


@dataclass(frozen=True)
class LayerRecovery:
    """One layer.

    Attributes:
        name: Name of the node, or of its first output.
        op_type: Its operator.
        method: What was kept: `reconstruct`, `bias`, or `none`.
        matched_to: `own output`, `normalised output` or `sum`; None where nothing was compared.
        equations: `normal`, `dual` or `channels`; None where no regression was solved.
        inputs: Width of a row.
        rows: Rows that were fitted.
        ridge: Ridge weight that was chosen; None where the weights stay.
        error_before: Error at the place it is matched, relative to the original's values there, on
            samples set aside, before the layer was changed (those before it are already).
        error_after: The same afterwards.
        reason: Why less was done than was asked for, or what to know of it; None for nothing.
    """

    name: str
    op_type: str
    method: str
    matched_to: str | None = None
    equations: str | None = None
    inputs: int | None = None
    rows: int = 0
    ridge: float | None = None
    error_before: float | None = None
    error_after: float | None = None
    reason: str | None = None

    def as_json(self) -> dict[str, Any]:
        """JSON-ready."""
        return asdict(self)


@dataclass(frozen=True)
class BlockRecovery:
    """What training did to one block.

    Attributes:
        name: The value at its end that is compared with the original's.
        layers: Its weighted layers.
        trained: Numbers of it that were trained; 0 where nothing was.
        kept: Whether the result is kept.
        error_before: Error at its end, relative to the original's values there, on samples set
            aside, when those before it were trained.
        error_after: The same with it trained; None where nothing was.
        reason: Why it was not done or not kept; None for nothing.
    """

    name: str
    layers: tuple[str, ...]
    trained: int = 0
    kept: bool = False
    error_before: float | None = None
    error_after: float | None = None
    reason: str | None = None

    def as_json(self) -> dict[str, Any]:
        """JSON-ready."""
        return asdict(self) | {"layers": list(self.layers)}


@dataclass(frozen=True)
class Distillation:
    """What training did.

    Attributes:
        iterations: Gradient steps made.
        samples: Samples they were made on.
        trained: Numbers of the network that were trained.
        kept: Whether the result is kept.
        output_error_before: Error of the network's outputs, relative to the original's, on the
            samples set aside, without it.
        output_error_after: The same with it; None where nothing was trained.
        reason: Why it was not done or not kept; None for nothing.
    """

    iterations: int = 0
    samples: int = 0
    trained: int = 0
    kept: bool = False
    output_error_before: float | None = None
    output_error_after: float | None = None
    reason: str | None = None

    def as_json(self) -> dict[str, Any]:
        """JSON-ready."""
        return asdict(self)


@dataclass(frozen=True)
class Recovery:
    """A recovery and what it is worth.

    Attributes:
        asked: Option `recovery`.
        method: What was kept: `distill`, `reconstruct`, `bias` or `none`.
        weights: The weights that were kept.
        layers: What was done to each layer, in graph order.
        output_error_before: Error of the network's outputs, relative to the original's, on the
            samples set aside, without recovery.
        output_error_after: The same with what was kept.
        fitted: Samples that were fitted.
        checked: Samples that were set aside to choose and to check.
        notes: What a person should know: fallbacks and their reasons.
        blocks: What training did to each block after `reconstruct`, in graph order; none where it
            was not asked for, or the network cannot be run in blocks.
        distillation: What training did; None where it was not asked for.
    """

    asked: str
    method: str
    weights: RefittedWeights
    layers: tuple[LayerRecovery, ...] = ()
    output_error_before: float | None = None
    output_error_after: float | None = None
    fitted: int = 0
    checked: int = 0
    notes: tuple[str, ...] = ()
    blocks: tuple[BlockRecovery, ...] = ()
    distillation: Distillation | None = None
