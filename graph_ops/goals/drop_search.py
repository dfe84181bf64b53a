"""Which sizes to try for the smallest one within a drop; trying them is the caller's.

A search over the share x of what is to be small (MACs, parameters, bytes) that is left, with two
kinds of trials:

1. *plain*: the cut alone. Costs a run over the hold-out.
2. *full*: with the recovery that the result gets. Nearly the whole cost of a run, so there are few.

Recovery makes the drop of a network smaller by a factor that changes slowly with the size (`GAIN`
before anything is known, then as the full trials showed). So as long as full trials have only
held or only failed, plain ones say where the next goes: where the cut costs that factor times what
is allowed. Once one has held and one has failed, it goes by the line between them, along which the
logarithm of the drop is nearly straight, until a size that failed is within `SHARP` of one that
held.

A size holds where its drop is within what is allowed and its estimate, which has less chance in it,
does not say that this is luck: it may be beyond by the standard deviation of a count of as many
samples, and by `LUCK` of what is allowed at most.

A size may also have failed by chance, and a smaller one hold. It failed *clearly* where its drop is
beyond what is allowed by more than that standard deviation. As long as it did not, sizes below it
are tried, `SHARP` apart, and the smallest that holds is the result. Trials that are left come
closer to the line.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

SHARP = 0.03
"""How much smaller than the result a size is that should be known to fail, in shares."""
FINE = 0.02
"""Shares closer than this are not told apart."""
PLAIN_TRIALS = {"none": 6}
"""Without recovery plain trials cost as much as full ones, and say the same."""
FEW_PLAIN_TRIALS = 4
MORE_PLAIN_TRIALS = 2
"""For each size after the first."""
FULL_TRIALS = 4
FEW_FULL_TRIALS = {"distill": 3}
"""Training is nearly the whole cost of a run."""
SPARE_FULL_TRIALS = {"reconstruct": 1}
"""More where layers are measured, until the result is known to be sharp: recoveries are a smaller
part of a run there."""
GAIN = {"none": 1.0, "bias": 2.0, "reconstruct": 16.0, "distill": 16.0}
"""How much smaller recovery is taken to make a drop, for the first guess. `reconstruct` did by 6
to 40 on the networks of benchmarks/goals.py."""
GAIN_MEASURED = {"reconstruct": 32.0, "distill": 32.0}
"""The same where layers are measured. `reconstruct` did by 21 to 78 where it left 0.7 to 2 points;
`distill`, which begins with it, was not measured."""
LARGEST_GUESS = 0.3
"""No plain drop of an accuracy beyond this is taken to be given back, before it is seen to be."""
LARGEST_DROP = 0.6
"""The same afterwards: guessing loses little more, and there the factor says nothing."""
LUCK = 0.5
"""By how much an estimate may be beyond the drop that is allowed, in shares of that, at most."""
ROUNDING = 1e-9


@dataclass(frozen=True)
class Trial:
    """One size that was tried.

    Attributes:
        kind: `plain` or `full`; `none` for an end of the range that was not tried.
        share: What is left of the quantity that is made small.
        drop: By how much the metric is worse.
        estimate: The same as other samples would show it, so far as these can tell.
    """

    kind: str
    share: float
    drop: float
    estimate: float


WHOLE = Trial("none", 1.0, 0.0, 0.0)
"""The original, which loses nothing."""


class DropSearch:
    """Chooses sizes, one after the other.

    Args:
        wanted: The drop that is allowed.
        smallest: The share that is left at least.
        recovery: The option `recovery`.
        samples: How many the metric is measured on.
        is_bounded: Whether the metric is a share of samples, so that a drop is less than one.
        are_layers_measured: Whether the ranking compares layers by measured errors.
        attempt: Carries out a trial of a kind at a share.
    """

    def __init__(
        self,
        wanted: float,
        smallest: float,
        recovery: str,
        samples: int,
        *,
        is_bounded: bool,
        are_layers_measured: bool,
        attempt: Callable[[str, float], Trial],
    ) -> None:
        self._wanted, self._smallest, self._recovery = wanted, smallest, recovery
        self._is_bounded, self._attempt = is_bounded, attempt
        self._limit = FEW_FULL_TRIALS.get(recovery, FULL_TRIALS)
        self._spare = SPARE_FULL_TRIALS.get(recovery, 0) if are_layers_measured else 0
        gains = GAIN | GAIN_MEASURED if are_layers_measured else GAIN
        self._first_gain = gains[recovery]
        self._noise = wanted / 4 + 0.5 / samples
        self._chance = math.sqrt(wanted / samples)
        self._luck = min(self._chance, LUCK * wanted)
        self._plain: list[Trial] = []
        self._full: list[Trial] = []
        self._step = SHARP

    @property
    def best(self) -> Trial | None:
        """The smallest size that held."""
        held = [trial for trial in self._full if self.holds(trial)]
        return min(held, key=lambda trial: trial.share, default=None)

    @property
    def failed(self) -> list[Trial]:
        """Those that did not and are smaller than `best`, the largest first."""
        best = self.best
        below = [t for t in self._full if best is None or t.share < best.share]
        return sorted(below, key=lambda trial: -trial.share)

    def find(self) -> Trial | None:
        """The smallest size that held; None where even the mildest cut did not."""
        share: float | None = self._first()
        while share is not None:
            self._full.append(self._attempt("full", share))
            share = self._next()
        return self.best

    def holds(self, trial: Trial) -> bool:
        """Whether a trial is within the drop."""
        # Three of 300 samples are 0.01, however the difference of two means was rounded.
        return self._lost(trial) <= self._wanted + ROUNDING

    def _lost(self, trial: Trial) -> float:
        """What has to be within what is allowed."""
        return max(trial.drop, trial.estimate - self._luck)

    def _next(self) -> float | None:
        """The size to try next; None where the search is over."""
        best, failed = self.best, self.failed
        if best is None:
            beyond = max(0, len(self._full) - self._limit)
            mildest = failed[0]
            return None if mildest.share >= 1 - FINE else self._larger(mildest, SHARP * 2**beyond)
        is_sharp = bool(failed) and best.share - failed[0].share <= SHARP + ROUNDING
        limit = self._limit if is_sharp else self._limit + self._spare
        if len(self._full) >= limit or best.share - self._smallest < FINE / 2:
            return None
        if not failed:
            return max(self._further(best), self._smallest)
        if not is_sharp:
            return self._inside(best, failed[0])
        below = self._below(failed)
        return self._closer(best, failed[0]) if below is None else below

    def _first(self) -> float:
        bound = min(self._first_gain * self._wanted, self._largest(LARGEST_GUESS))
        share = self._where(bound, PLAIN_TRIALS.get(self._recovery, FEW_PLAIN_TRIALS))
        return min([share, *(trial.share for trial in self._plain if self.holds(trial))])

    def _larger(self, failed: Trial, step: float) -> float:
        """The next size after full trials that all failed."""
        nearest = failed.share + step
        beyond = self._line() + SHARP / 2
        share = beyond if beyond > nearest + FINE else nearest
        return float(min(share, 1 - FINE / 2))

    def _further(self, best: Trial) -> float:
        """The next size as long as all have held.

        It should hold, too, until one does close to the line; then it should fail, and steps grow
        until one does, as long as little is lost.
        """
        line = self._line()
        if best.share - line > SHARP:
            return line + SHARP / 2
        if self._lost(best) > self._wanted / 2:
            return best.share - SHARP
        step, self._step = self._step, 2 * self._step
        return best.share - step

    def _inside(self, best: Trial, failed: Trial) -> float:
        """A size between one that holds and one that failed, beside the line between them."""
        low, high = failed.share, best.share
        line = self._between(failed, best, self._wanted)
        share = high - SHARP if high - line <= SHARP else line + SHARP / 2
        if high - low <= 2 * SHARP:  # sharp afterwards, whether it holds or not
            return float(np.clip(share, high - SHARP, low + SHARP))
        return float(np.clip(share, low + SHARP / 2, high - SHARP / 2))

    def _below(self, failed: list[Trial]) -> float | None:
        """A size below one that may have failed by chance, where none so small was tried."""
        for trial, lower in itertools.zip_longest(failed, failed[1:]):
            if self._lost(trial) > self._wanted + self._chance:
                return None
            end = self._smallest if lower is None else lower.share
            if trial.share - end > 2 * SHARP:
                return trial.share - SHARP
            if trial.share - end > SHARP + FINE / 2:
                return (trial.share + end) / 2
        return None

    def _closer(self, best: Trial, failed: Trial) -> float | None:
        """A size half the way from the line to one that holds; None where it is close enough."""
        low, high = failed.share, best.share
        if high - low < FINE:
            return None
        line = self._between(failed, best, self._wanted)
        return float(np.clip((line + high) / 2, low + (high - low) / 4, high - FINE / 2))

    def _line(self) -> float:
        """Where the drop should be the one that is allowed, by what recovery gave back so far."""
        bound = self._wanted * self._gain()
        return self._where(min(bound, self._largest(LARGEST_DROP)), MORE_PLAIN_TRIALS)

    def _gain(self) -> float:
        """By which factor recovery made drops smaller, the geometric mean of what was seen."""
        found = [
            self._plain_drop(trial.share) / max(self._lost(trial), self._noise)
            for trial in self._full
        ]
        return float(np.exp(np.log(np.maximum(found, 1.0)).mean()))

    def _largest(self, drop: float) -> float:
        """A drop that is taken to say something: shares of samples have a bottom."""
        return max(self._wanted, drop) if self._is_bounded else math.inf

    def _where(self, bound: float, trials: int) -> float:
        """The share at which the cut alone costs so much, after so many trials at most."""
        low, high = self._around(bound)
        for _ in range(trials):
            if high.share - low.share <= 2 * FINE:
                break
            self._plain.append(self._attempt("plain", self._inner(low, high, bound)))
            low, high = self._around(bound)
        return self._between(low, high, bound)

    def _around(self, bound: float) -> tuple[Trial, Trial]:
        """The largest size whose cut alone costs more than that, and the next larger one."""
        known = sorted([*self._plain, WHOLE], key=lambda trial: trial.share)
        low = Trial("none", self._smallest, math.inf, math.inf)
        for trial in known:
            if trial.estimate > bound:
                low = trial
        return low, next(trial for trial in known if trial.share > low.share or trial is WHOLE)

    def _plain_drop(self, share: float) -> float:
        """What the cut alone costs at a share, by the trials on both sides."""
        known = sorted([*self._plain, WHOLE], key=lambda trial: trial.share)
        logarithms = [self._logarithm(trial.estimate) for trial in known]
        shares = [trial.share for trial in known]
        return max(0.0, math.exp(float(np.interp(share, shares, logarithms))) - self._noise)

    def _inner(self, low: Trial, high: Trial, wanted: float) -> float:
        """A share well inside a bracket, by interpolation where both ends are known."""
        width = high.share - low.share
        if math.isinf(low.estimate):
            return low.share + width / 2
        inside = self._between(low, high, wanted)
        return min(max(inside, low.share + width / 4), high.share - width / 4)

    def _between(self, low: Trial, high: Trial, wanted: float) -> float:
        """Where the drop would be `wanted`, if its logarithm were linear; the ends included."""
        if math.isinf(low.estimate):
            return low.share
        a, b, c = (self._logarithm(d) for d in (self._lost(low), high.estimate, wanted))
        if a <= b:
            return high.share
        share = low.share + (high.share - low.share) * (a - c) / (a - b)
        return float(np.clip(share, low.share, high.share))

    def _logarithm(self, drop: float) -> float:
        """Of a drop, which may be nothing: below what the samples tell all are alike."""
        return math.log(max(drop, 0.0) + self._noise)
