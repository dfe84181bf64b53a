"""Samples on their way through a network, a block at a time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from graph_ops.canonical import ScoringCopy
from graph_ops.recovery.blockwise.partition import NetworkBlock
from graph_ops.recovery.walk import nodes_between, part_of
from graph_ops.runtime import Array, Session

Feeds = dict[str, Array]


def piece_of(copy: ScoringCopy, block: NetworkBlock) -> ScoringCopy:
    """A block as a network of its own; stored tensors are shared, not copied.

    Args:
        copy: Of the whole network.
        block: One of its blocks.
    """
    known = {str(v.name) for v in copy.model.graph.inputs}
    if block.begin is not None:
        known = {block.begin.value}
    values = {str(o.name): o for n in copy.model.graph for o in n.outputs}
    outputs = [values[name] for name in block.outputs]
    nodes = nodes_between(copy.model, known, outputs)
    return ScoringCopy(part_of(copy.model, nodes, outputs, known), dict(copy.shapes))


class Passing:
    """Batches that have come to the beginning of a block, in one network.

    Args:
        copy: Scoring copy of the network; its stored tensors may be rewritten on the way.
        batches: Inputs of the graph.
    """

    def __init__(self, copy: ScoringCopy, batches: Sequence[Mapping[str, Array]]) -> None:
        self.copy = copy
        self.here: list[Feeds] = [dict(b) for b in batches]

    def compared(self, block: NetworkBlock, numbers: Sequence[int]) -> list[Feeds]:
        """What is compared of a block, of some of the batches, which stay where they are."""
        session = Session(piece_of(self.copy, block).model, keep_waiting=False)
        return [self._run(session, block, self.here[number]) for number in numbers]

    def go_on(self, block: NetworkBlock) -> list[Feeds]:
        """Pass the block; what is compared of it, of every batch.

        What entered a block is given up batch by batch, so both of its ends are never kept whole.
        """
        session = Session(piece_of(self.copy, block).model, keep_waiting=False)
        found: list[Feeds] = []
        for number, batch in enumerate(self.here):
            passed = self._run(session, block, batch)
            found.append(passed)
            end = block.end
            self.here[number] = {} if end is None else {end.value: passed[end.value]}
        return found

    @staticmethod
    def _run(session: Session, block: NetworkBlock, batch: Feeds) -> Feeds:
        return dict(zip(block.outputs, session.run(batch, block.outputs), strict=True))
