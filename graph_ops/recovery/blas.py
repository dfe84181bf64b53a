"""How many threads matrix products and factorisations use."""

from __future__ import annotations

from contextlib import AbstractContextManager
from functools import cache

import threadpoolctl

from graph_ops.providers import thread_count

SMALL = 1024
"""Matrices of a lower order are left to one thread: threads that wait for each other in every
product cost more than they save once another program wants the processors."""


def threads_for(order: int) -> AbstractContextManager[object]:
    """Inside, BLAS uses the threads that suit a matrix; as many as ONNX Runtime at most.

    Args:
        order: Of the matrix that is factorised, or that a product sums up to.
    """
    limits = 1 if order < SMALL else thread_count()
    limited: AbstractContextManager[object] = _controller().limit(limits=limits, user_api="blas")
    return limited


@cache
def _controller() -> threadpoolctl.ThreadpoolController:
    return threadpoolctl.ThreadpoolController()
