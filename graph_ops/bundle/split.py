"""Which samples are scored on and which are held out.

The draw depends on the number of samples, their class ids and the options alone. With class ids
it is stratified: each class gives its share, rounded by the largest remainder.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from graph_ops.bundle.arrays import Array, Indices
from graph_ops.errors import EmptyBundleError


@dataclass(frozen=True)
class Split:
    """Two disjoint, sorted sets of sample positions."""

    scored: Indices
    held_out: Indices


def split_samples(
    samples: int,
    classes: Array | None,
    *,
    max_samples: int | None,
    validation_fraction: float,
    seed: int,
) -> Split:
    """Draw `max_samples` of the samples, then hold out a fraction of those.

    Args:
        samples: How many there are.
        classes: Class id of each, shape [samples]; None draws without regard to classes.
        max_samples: How many to use; None for all.
        validation_fraction: Share to hold out; round(share × used) samples.
        seed: Seed of the draw (PCG64).

    Raises:
        EmptyBundleError: no sample would be left to score on.
    """
    rng = np.random.Generator(np.random.PCG64(seed))
    used = np.arange(samples, dtype=np.int64)
    if max_samples is not None and max_samples < samples:
        used = _draw(used, classes, max_samples, rng)
    count = round(validation_fraction * used.size)
    if used.size - count < 1:
        raise EmptyBundleError(
            f"Of {used.size} samples {count} would be held out, which leaves none to score on. "
            "Give more samples or a smaller validation_fraction.",
            samples=int(used.size),
            held_out=count,
        )
    held_out = _draw(used, None if classes is None else classes[used], count, rng)
    scored = np.setdiff1d(used, held_out, assume_unique=True)
    return Split(scored, held_out)


def _draw(
    positions: Indices, classes: Array | None, count: int, rng: np.random.Generator
) -> Indices:
    """`count` of the positions, sorted; in proportion to the classes where they are given."""
    order = rng.permutation(positions.size)
    if classes is not None:
        _, inverse, sizes = np.unique(classes, return_inverse=True, return_counts=True)
        shares = _shares(sizes, count, rng)
        order = order[np.argsort(inverse[order], kind="stable")]
        rank = np.arange(order.size) - np.repeat(np.cumsum(sizes) - sizes, sizes)
        order = order[rank < np.repeat(shares, sizes)]
    return np.sort(positions[order[:count]])


def _shares(sizes: Indices, count: int, rng: np.random.Generator) -> Indices:
    """How many of `count` each class gives: its exact share, rounded by largest remainder.

    Equal remainders are ordered by the seed: were they ordered by class, many small classes
    would always hold out the first of them.
    """
    total = int(sizes.sum())
    shares, remainders = np.divmod(sizes * count, total)
    left = count - int(shares.sum())
    ranking = np.lexsort((rng.permutation(sizes.size), -remainders))
    shares[ranking[:left]] += 1
    return shares
