"""One scoring, split into shards that several processes take at the same time.

Scores add up over samples. A *shard* is a run of consecutive batches; the batches are those of an
undivided scoring, so that each sample is computed in the company that it always has, and its
contribution has the same bits. What shards come to is summed exactly (`exact_sums.py`), in their
order, and only then becomes a number in float64: any number of shards, on any number of
processes, gives the same scores bit for bit.

Whoever runs the job scores too: it takes shards that nobody else has, and never waits for help
that does not come. What another engine or another kind of machine scored may differ in its last
bits; it is refused and scored again here.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, replace
from functools import reduce
from itertools import pairwise
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from graph_ops.bundle import Dataset
from graph_ops.errors import ScoreStateError
from graph_ops.machine import machine_kind
from graph_ops.network import TaylorPrunableNetwork
from graph_ops.prefetch import prefetched
from graph_ops.scores import UNREADABLE, ScoreState
from graph_ops.scoring import EngineFacts


@dataclass(frozen=True)
class ScoredShard:
    """What one shard came to.

    Attributes:
        state: Its sums.
        engine: Who computed them.
        machine: On which kind of machine (`machine_kind`).
    """

    state: ScoreState
    engine: EngineFacts
    machine: str

    def has_bits_of(self, engine: EngineFacts) -> bool:
        """Whether an engine here would have come to the same bits."""
        mine = (engine.name, engine.version, engine.provider, machine_kind(engine.device))
        theirs = (self.engine.name, self.engine.version, self.engine.provider, self.machine)
        return mine == theirs

    def save(self, path: Path) -> None:
        """Write it as `.npz`."""
        header = {"engine": asdict(self.engine), "machine": self.machine}
        text = np.frombuffer(json.dumps(header, sort_keys=True).encode(), dtype=np.uint8)
        arrays: dict[str, Any] = {"shard": text, **self.state.arrays()}
        with path.open("wb") as file:
            np.savez_compressed(file, **arrays)

    @classmethod
    def load(cls, path: Path) -> ScoredShard:
        """Read a saved one.

        Raises:
            ScoreStateError: the file is none.
        """
        try:
            with path.open("rb") as raw, np.load(raw, allow_pickle=False) as file:
                header = json.loads(bytes(file["shard"]).decode())
                facts = EngineFacts(**header["engine"])
                return cls(ScoreState.of_arrays(file), facts, str(header["machine"]))
        except (OSError, *UNREADABLE):
            raise ScoreStateError(
                f"{str(path)!r} is not a scored shard, or is damaged.", file=str(path)
            ) from None


@dataclass(frozen=True)
class SharedScoring:
    """A scoring that somebody asks for help with.

    Attributes:
        number: The round.
        count: Its shards.
    """

    number: int
    count: int


class _Exchange(Protocol):
    def claim(self) -> int | None:
        """A shard that this process is to score; None while there is none."""
        ...

    def hand_in(self, shard: int, scored: ScoredShard) -> None:
        """Say what a shard came to that was scored here."""
        ...

    def wait(self) -> None:
        """Let a moment pass."""
        ...


class HelperExchange(_Exchange, Protocol):
    """Shares out the shards of one scoring, as those see it who help."""

    def is_over(self) -> bool:
        """Whether no help is wanted any more."""
        ...


class ShardExchange(_Exchange, Protocol):
    """Shares out the shards of one scoring after another, as the run sees it."""

    @property
    def count(self) -> int:
        """Into how many shards a scoring is split, where it has as many batches."""
        ...

    def begin(self, number: int, count: int) -> None:
        """Offer the shards of a round's scoring to others.

        Args:
            number: The round.
            count: Its shards, counted from 0.
        """
        ...

    def arrived(self) -> Iterable[tuple[int, ScoredShard]]:
        """Shards that others have scored, each once."""
        ...


def split(dataset: Dataset, count: int) -> list[Dataset]:
    """A dataset's scored samples as at most `count` runs of whole batches, about equally long."""
    size = dataset.batch_size
    batches = -(-dataset.scored.size // size)
    count = max(1, min(count, batches))
    ends = [size * (batches * number // count) for number in range(count + 1)]
    return [replace(dataset, scored=dataset.scored[begin:end]) for begin, end in pairwise(ends)]


def score_shard(
    network: TaylorPrunableNetwork,
    part: Dataset,
    tell: Callable[[int], None] = lambda samples: None,
) -> ScoredShard:
    """Score one shard; the network's scores start again.

    Args:
        network: As the round found it.
        part: The shard's samples.
        tell: Called with the number of samples of each batch that is done.
    """
    network.clear_scores()
    shortages = network.engine_facts().memory_shortages
    for batch in prefetched(part.batches("scored")):
        network.update_score(batch)
        tell(batch.size)
    facts = network.engine_facts()
    facts = replace(facts, memory_shortages=facts.memory_shortages - shortages)
    return ScoredShard(network.state, facts, machine_kind(facts.device))


def score_together(
    network: TaylorPrunableNetwork,
    parts: list[Dataset],
    number: int,
    exchange: ShardExchange,
    tell: Callable[[int], None],
) -> EngineFacts:
    """Score a network's shards with whoever helps; the network has the sum afterwards.

    Args:
        network: As the round found it.
        parts: The samples of each shard.
        number: The round.
        exchange: Shares the shards out.
        tell: Called with the number of samples that are done, again and again.

    Returns:
        Who computed the gradients; memory shortages are those of all shards.
    """
    engine, digest = network.engine_facts(), network.digest
    found: dict[int, ScoredShard] = {}
    refused: list[int] = []
    exchange.begin(number, len(parts))
    while len(found) < len(parts):
        for shard, scored in exchange.arrived():
            if scored.state.digest == digest and scored.has_bits_of(engine):
                found[shard] = scored
                tell(parts[shard].scored.size)
            else:
                refused.append(shard)
        shard_here = refused.pop() if refused else exchange.claim()
        if shard_here is None:
            exchange.wait()
        elif shard_here not in found:
            found[shard_here] = score_shard(network, parts[shard_here], tell)
            exchange.hand_in(shard_here, found[shard_here])
    in_order = [found[shard] for shard in range(len(parts))]
    network.load_scores(reduce(ScoreState.merge, (scored.state for scored in in_order)))
    return _together([scored.engine for scored in in_order])


def _together(facts: list[EngineFacts]) -> EngineFacts:
    limits = [f.batch_limit for f in facts if f.batch_limit is not None]
    return replace(
        facts[0],
        batch_limit=min(limits, default=None),
        memory_shortages=sum(f.memory_shortages for f in facts),
    )
