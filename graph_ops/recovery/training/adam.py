"""Adam (Kingma and Ba 2015) over a few arrays, with steps relative to their size."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float32]

FIRST_DECAY, SECOND_DECAY = 0.9, 0.999
EPSILON = 1e-8
"""Against division by zero only: gradients are divided by their root mean square beforehand."""


class Adam:
    """Moves parameters against their gradients.

    Args:
        parameters: Float32 arrays by name; they are changed in place.
        steps: How far each may move in one iteration, about, before the schedule.
        iterations: How many there will be: the step falls to zero along half a cosine.
    """

    def __init__(
        self,
        parameters: Mapping[str, FloatArray],
        steps: Mapping[str, float],
        iterations: int,
    ) -> None:
        self._parameters = dict(parameters)
        self._steps = dict(steps)
        self._iterations = iterations
        self._done = 0
        self._first = {n: np.zeros_like(a) for n, a in self._parameters.items()}
        self._second = {n: np.zeros_like(a) for n, a in self._parameters.items()}
        self._scale: dict[str, np.float32] = {}

    def update(self, gradients: Mapping[str, FloatArray]) -> None:
        """One iteration."""
        share = 0.5 * (1 + math.cos(math.pi * self._done / self._iterations))
        self._done += 1
        first_weight = 1 - FIRST_DECAY**self._done
        second_weight = 1 - SECOND_DECAY**self._done
        for name, raw in gradients.items():
            if name not in self._scale:
                size = float(np.sqrt(np.mean(np.square(raw, dtype=np.float64))))
                self._scale[name] = np.float32(1 / size if size > 0 else 1.0)
            gradient = raw * self._scale[name]
            first, second = self._first[name], self._second[name]
            first += (1 - FIRST_DECAY) * (gradient - first)
            second += (1 - SECOND_DECAY) * (np.square(gradient) - second)
            root = np.sqrt(second / second_weight) + EPSILON
            step = self._steps[name] * share / first_weight
            self._parameters[name] -= np.float32(step) * first / root
