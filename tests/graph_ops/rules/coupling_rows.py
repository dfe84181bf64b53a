"""How a row of the coupling table is written: a piece of graph and what of it may be pruned."""

from __future__ import annotations

from dataclasses import dataclass, field

from tests.support.cutting import model_of

CONV1 = "[conv1] a = Conv <pads = [1,1,1,1]> (x, w1, b1)"
W1 = "float[8,3,3,3] w1, float[8] b1"


@dataclass(frozen=True)
class CouplingSpec:
    """A model and what of it may be pruned.

    Attributes:
        id: What the row is about.
        model: The model file.
        prunable: For each convolution named, the number of classes its filters form when all of
            them may go, or 0 when none may.
        reason: Part of why the others are frozen.
    """

    id: str
    model: bytes
    prunable: dict[str, int] = field(default_factory=dict)
    reason: str = ""


def between(
    name: str,
    body: str,
    weights: str = "",
    *,
    channels: int = 8,
    classes: int = 8,
    reason: str = "",
    opset: int = 17,
    inputs: str = "float[N,3,6,6] x",
    first: str = CONV1,
    also: dict[str, int] | None = None,
) -> CouplingSpec:
    """conv1 (8 filters) makes `a`; the body makes `m` with `channels` channels for conv2."""
    declared = ", ".join(w for w in (W1, weights, f"float[4,{channels},1,1] w2") if w)
    model = model_of(f"{first}\n{body}\n[conv2] y = Conv (m, w2)", declared, inputs, "y", opset)
    return CouplingSpec(name, model, {"conv1": classes, "conv2": 0, **(also or {})}, reason)


def whole(
    name: str,
    body: str,
    weights: str,
    prunable: dict[str, int],
    *,
    reason: str = "",
    opset: int = 17,
    inputs: str = "float[N,3,6,6] x",
    outputs: str = "y",
) -> CouplingSpec:
    """A model of its own."""
    return CouplingSpec(name, model_of(body, weights, inputs, outputs, opset), prunable, reason)


def unary(op_type: str, attributes: str = "", opset: int = 17) -> CouplingSpec:
    return between(op_type, f"m = {op_type} {attributes} (a)", opset=opset)


BN = "float[8] scale, float[8] bias, float[8] mean, float[8] var"
TWO = "[conv1b] b = Conv <pads = [1,1,1,1]> (x, w1b)"
W1B = "float[8,3,3,3] w1b"


def two(name: str, body: str, weights: str = "", **options: object) -> CouplingSpec:
    """conv1 and conv1b (8 filters each) make `a` and `b`."""
    also = {"conv1b": options.get("classes", 8)}
    declared = ", ".join(w for w in (W1B, weights) if w)
    return between(name, f"{TWO}\n{body}", declared, also=also, **options)  # type: ignore[arg-type]
