"""Einsum: products of tensors summed over the letters that the result does not name.

A letter is one channel axis wherever it stands. Dropping an index of a letter that is summed is
exact, as for MatMul: its products are zero.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import onnx_ir as ir

from graph_ops.channels import Channels, CostItem, Labels
from graph_ops.engines.tape import BackwardTape
from graph_ops.graph import node_label, string_of
from graph_ops.rules.registry import coupling, gradient


def parse_equation(equation: str, ranks: Sequence[int]) -> tuple[list[str], str] | None:
    """One letter per axis of every operand, and of the result; None where it cannot be told.

    Axes that an ellipsis stands for get letters of their own, aligned right. An operand that
    repeats a letter (a diagonal) is not followed.
    """
    left, arrow, result = equation.replace(" ", "").partition("->")
    terms = left.split(",")
    free = iter(sorted(set(map(chr, range(0x100, 0x140)))))
    widths = [r - len(t.replace("...", "")) for t, r in zip(terms, ranks, strict=True)]
    most = max((w for t, w in zip(terms, widths, strict=True) if "..." in t), default=0)
    extra = "".join(next(free) for _ in range(most))
    if not arrow:
        plain = left.replace("...", "").replace(",", "")
        result = "..." * ("..." in left) + "".join(
            c for c in sorted(set(plain)) if plain.count(c) == 1
        )
    letters = [
        t.replace("...", extra[most - w :] if w else "") for t, w in zip(terms, widths, strict=True)
    ]
    result = result.replace("...", extra)
    is_plain = all(
        len(set(t)) == len(t) == rank for t, rank in zip(letters, ranks, strict=True)
    ) and len(set(result)) == len(result)
    return (letters, result) if is_plain else None


@coupling("Einsum")
def couple_einsum(node: ir.Node, channels: Channels) -> None:
    """Axes of one letter hold the same channels."""
    name = f"Einsum {node_label(node)!r}"
    shapes = [() if v is None else channels.dims(v) or () for v in node.inputs]
    parsed = parse_equation(string_of(node, "equation", ""), [len(s) for s in shapes])
    if parsed is None:
        for value in node.inputs:
            channels.freeze_value(value, f"the letters of {name} cannot be followed")
        return
    terms, result = parsed
    held: dict[str, Labels | None] = {}
    sizes: dict[str, int | None] = {}
    for index, (value, term, dims) in enumerate(zip(node.inputs, terms, shapes, strict=True)):
        for axis, (letter, length) in enumerate(zip(term, dims, strict=True)):
            if length == 1:
                sizes.setdefault(letter, 1)
                continue
            labels = channels.axis(value, axis)
            if letter in held:
                channels.couple(held[letter], labels, f"{name} cannot be narrowed")
            held.setdefault(letter, labels)
            sizes[letter] = length
            if letter not in result:
                channels.contract(node, index, axis)
    channels.set_axes(node.outputs[0], [held.get(letter) for letter in result])
    counted = {c: n for c, n in sizes.items() if c not in (result[:1], terms[0][:1])}
    if any(n is None for n in counted.values()):
        channels.unknown_cost.append(node)
        return
    axes = tuple(labels for c in counted if (labels := held.get(c)) is not None)
    total = math.prod(n or 1 for n in counted.values())
    channels.costs.append(CostItem(node, total // max(1, math.prod(a.size for a in axes)), axes))


@gradient("Einsum")
def einsum_gradient(
    node: ir.Node, gradients: Sequence[ir.Value | None], tape: BackwardTape
) -> Sequence[ir.Value | None]:
    """For an operand: the result's gradient with the other operands, summed to its letters."""
    shapes = [tape.dims(v) for v in node.inputs]
    parsed = parse_equation(string_of(node, "equation", ""), [len(s) for s in shapes])
    if parsed is None:
        raise tape.refuse(node, "an operand repeats a letter")
    terms, result = parsed
    ascii_of = {c: chr(ord("A") + i) for i, c in enumerate(dict.fromkeys("".join(terms)))}
    if len(ascii_of) > 26:
        raise tape.refuse(node, "it has too many letters")
    parts: list[ir.Value | None] = []
    for index, value in enumerate(node.inputs):
        if not tape.needs(value):
            parts.append(None)
            continue
        others = [i for i in range(len(terms)) if i != index]
        known = set(result).union(*(terms[i] for i in others))
        if not set(terms[index]) <= known or _is_repeated(terms, shapes, index):
            raise tape.refuse(node, "an operand is summed, or repeated, on its own")
        equation = ",".join([result, *(terms[i] for i in others)]) + "->" + terms[index]
        plain = "".join(ascii_of.get(c, c) for c in equation)
        operands = [gradients[0], *(node.inputs[i] for i in others)]
        parts.append(tape.op("Einsum", *operands, equation=plain))
    return parts


def _is_repeated(terms: Sequence[str], shapes: Sequence[Sequence[int | None]], index: int) -> bool:
    """Whether an axis of length 1 of an operand stands for a longer one of another."""
    lengths: dict[str, set[int | None]] = {}
    for term, dims in zip(terms, shapes, strict=True):
        for letter, length in zip(term, dims, strict=True):
            lengths.setdefault(letter, set()).add(length)
    return any(
        length == 1 and lengths[letter] != {1}
        for letter, length in zip(terms[index], shapes[index], strict=True)
    )
