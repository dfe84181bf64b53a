"""Bundles of classes that leave every group of a grouped convolution equally wide.

A grouped convolution needs equally many input channels and equally many filters in each group, but
not the same positions: its weight is a stack of one block per group. So a group's channels are not
coupled; instead only *bundles* go, sets of classes that take equally many from each group of every
constraint they touch (residual streams and shuffles put several constraints on one class). The
smallest bundle of the least important classes is a small integer program, solved exactly by HiGHS
through `scipy.optimize.milp`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array, csc_array, vstack
from scipy.sparse.csgraph import connected_components

PER_KIND = 2
"""Candidates of one kind (same counts everywhere) offered to one program."""


class Balances:
    """The constraints of a model's grouped convolutions on its classes.

    Args:
        class_of: [labels] class of every label.
        balances: Label arrays [groups, width] whose rows must stay equally long.
        count: Number of classes.
    """

    def __init__(
        self,
        class_of: NDArray[np.int64],
        balances: Sequence[NDArray[np.int64]],
        count: int,
    ) -> None:
        unique = {class_of[b].tobytes() + bytes(str(b.shape), "ascii"): b for b in balances}
        tables = [_excess_of(class_of[labels], count) for labels in unique.values()]
        bound = [table for table in tables if table.nnz]
        # Groups times channels times classes: only few of its entries are not zero.
        self._excess = csc_array(vstack(bound)) if bound else csc_array((0, count), dtype=np.int64)
        self._excess.sort_indices()  # equal columns are equal bytes
        self.is_bound: NDArray[np.bool_] = np.diff(self._excess.indptr) > 0

    def hold(self, dropped: NDArray[np.bool_]) -> bool:
        """Whether dropping these classes leaves all groups equally wide."""
        return not (self._excess @ dropped.astype(np.int64)).any()

    def components(self, candidates: NDArray[np.int64]) -> list[NDArray[np.int64]]:
        """Bound candidates, parted into sets that share no constraint."""
        bound = candidates[self.is_bound[candidates]]
        if bound.size == 0:
            return []
        rows, columns = self._excess[:, bound].nonzero()
        size = bound.size + self._excess.shape[0]
        graph = coo_array((np.ones(rows.size), (columns, bound.size + rows)), shape=(size, size))
        _, part = connected_components(graph, directed=False)
        parts = part[: bound.size]
        return [bound[parts == p] for p in np.unique(parts)]

    def bundles(self, component: NDArray[np.int64], scores: NDArray[np.float64]) -> list[list[int]]:
        """Disjoint bundles of a component, the least important first.

        Args:
            component: Class ids.
            scores: [classes] scores.
        """
        order = sorted(component.tolist(), key=lambda c: (scores[c], c))
        rank = {c: 1.0 + i / len(order) for i, c in enumerate(order)}
        kind = {c: self._kind(c) for c in order}
        kinds: dict[bytes, list[int]] = defaultdict(list)
        for class_id in order:
            kinds[kind[class_id]].append(class_id)
        found: list[list[int]] = []
        while True:
            offered = [c for members in kinds.values() for c in members[:PER_KIND]]
            bundle = self._smallest(offered, [rank[c] for c in offered])
            if not bundle:
                return found
            found.append(sorted(bundle, key=lambda c: (scores[c], c)))
            for class_id in bundle:
                kinds[kind[class_id]].remove(class_id)

    def _kind(self, class_id: int) -> bytes:
        """The same for classes that count alike in every constraint."""
        begin, end = self._excess.indptr[class_id : class_id + 2]
        return bytes(
            self._excess.indices[begin:end].tobytes() + self._excess.data[begin:end].tobytes()
        )

    def _smallest(self, offered: list[int], weights: list[float]) -> list[int]:
        # Slow to import, and few networks need it.
        from scipy.optimize import Bounds, LinearConstraint, milp

        if not offered:
            return []
        columns = self._excess[:, offered]
        table = columns.tocsr()[np.unique(columns.indices)].toarray()
        constraints = [LinearConstraint(np.ones((1, len(offered))), lb=1)]
        if table.size:
            constraints.append(LinearConstraint(table, lb=0, ub=0))
        result = milp(
            np.asarray(weights),
            constraints=constraints,
            integrality=np.ones(len(offered), dtype=np.int64),
            bounds=Bounds(0, 1),
        )
        if not result.success:
            return []
        return [c for c, x in zip(offered, result.x, strict=True) if x > 0.5]


def _excess_of(classes: NDArray[np.int64], count: int) -> csc_array:
    """[groups − 1, count] how many more of each class every group has than the first.

    Args:
        classes: [groups, width] class of every label.
        count: Number of classes.
    """
    groups, width = classes.shape
    others = np.repeat(np.arange(groups - 1), width)
    rows = np.concatenate([others, others])
    columns = np.concatenate([classes[1:].ravel(), np.tile(classes[0], groups - 1)])
    values = np.concatenate([np.ones(others.size), -np.ones(others.size)]).astype(np.int64)
    table = csc_array(coo_array((values, (rows, columns)), shape=(groups - 1, count)))
    table.eliminate_zeros()
    return table
