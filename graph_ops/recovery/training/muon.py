"""Muon (Jordan et al. 2024): momentum whose singular values are made equal, for weight matrices.

A gradient of a layer's weights is dominated by a few directions of its inputs; with all singular
values alike the others are learnt as fast. Where there are only a few dozen steps to make, that
counts. Vectors go by Adam.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from graph_ops.recovery.training.adam import Adam, FloatArray

MOMENTUM = 0.9
ROUNDS = 5
"""Of the Newton-Schulz iteration."""
FACTORS = (3.4445, -4.7750, 2.0315)
"""Of its polynomial ax + bx³ + cx⁵, which takes singular values to about 1 in five rounds."""
SMALL = 1e-12
"""Against division by zero only."""
MAX_WORK = 2e10
"""Multiplications of one iteration on one matrix, at most; larger ones go by Adam."""


class Muon:
    """Moves parameters against their gradients.

    Args:
        parameters: Float32 arrays by name; they are changed in place.
        steps: How far each may move in one iteration (root mean square), before the schedule.
        groups: Of the parameters that are matrices, by how many that are one above the other;
            rows are axis 0, columns all others.
        iterations: How many there will be: the step falls to zero along half a cosine.
    """

    def __init__(
        self,
        parameters: Mapping[str, FloatArray],
        steps: Mapping[str, float],
        groups: Mapping[str, int],
        iterations: int,
    ) -> None:
        matrices = {
            name: _stacked(array, groups[name])
            for name, array in parameters.items()
            if name in groups and _work(_stacked(array, groups[name])) <= MAX_WORK
        }
        rest = {n: a for n, a in parameters.items() if n not in matrices}
        self._matrices = matrices
        self._momentum = {n: np.zeros_like(m) for n, m in matrices.items()}
        self._steps = dict(steps)
        self._iterations = iterations
        self._done = 0
        self._adam = Adam(rest, steps, iterations)

    def update(self, gradients: Mapping[str, FloatArray]) -> None:
        """One iteration."""
        share = 0.5 * (1 + math.cos(math.pi * self._done / self._iterations))
        self._done += 1
        for name, matrix in self._matrices.items():
            gradient = gradients[name].reshape(matrix.shape)
            momentum = self._momentum[name]
            momentum *= MOMENTUM
            momentum += gradient
            way = orthogonal(gradient + MOMENTUM * momentum)
            size = math.sqrt(float(np.mean(np.square(way, dtype=np.float64))))
            matrix -= np.float32(self._steps[name] * share / (size + SMALL)) * way
        self._adam.update({n: g for n, g in gradients.items() if n not in self._matrices})


def orthogonal(matrices: FloatArray) -> FloatArray:
    """[G, rows, columns] the nearest matrices of equal singular values, about.

    Newton-Schulz: X ← aX + b(XXᵀ)X + c(XXᵀ)²X, from X of Frobenius norm 1.
    """
    is_high = matrices.shape[1] > matrices.shape[2]
    x = matrices.transpose(0, 2, 1) if is_high else matrices
    x = x / (np.linalg.norm(x, axis=(1, 2), keepdims=True) + np.float32(SMALL))
    first, third, fifth = (np.float32(f) for f in FACTORS)
    for _ in range(ROUNDS):
        square = x @ x.transpose(0, 2, 1)
        x = first * x + (third * square + fifth * (square @ square)) @ x
    found: FloatArray = x.transpose(0, 2, 1) if is_high else x
    return found


def _stacked(array: FloatArray, groups: int) -> FloatArray:
    """[G, rows, columns] of the same memory."""
    return array.reshape(groups, array.shape[0] // groups, -1)


def _work(matrices: FloatArray) -> float:
    groups, rows, columns = matrices.shape
    short, long = sorted((rows, columns))
    return float(ROUNDS * groups * short * short * (2 * long + short))
