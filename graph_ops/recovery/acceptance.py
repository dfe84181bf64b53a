"""Recovery of a cut network, and the decision whether it is kept.

What was refitted is held against the network without recovery, on samples that no regression was
fitted on: by the error of the outputs, relative to the original network's, and for a classifier by
how often it agrees with the original. What does not lower the error, or lowers the agreement by
more than chance would, is not kept. `reconstruct` falls back to `bias`, and that to nothing; what
training, of blocks or of the whole, makes of a refit has to be better than that in the same way.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from graph_ops.bundle import Dataset
from graph_ops.channel_classes import ChannelClasses
from graph_ops.errors import ModelRunError
from graph_ops.recovery.blockwise import train_blocks
from graph_ops.recovery.cut_network import CutNetwork
from graph_ops.recovery.distill import distill
from graph_ops.recovery.judge import Classifier, Judge, Verdict
from graph_ops.recovery.originals import Originals
from graph_ops.recovery.refit import refit
from graph_ops.recovery.samples import MAX_SAMPLES, MIN_SAMPLES, RefitSamples
from graph_ops.recovery.summary import Recovery
from graph_ops.recovery.weights import RefittedWeights

SMALL_ERROR = 0.02
"""Of the outputs, relative: with no more there is nothing that training blocks could give back."""
TellStage = Callable[[str, int, int], None]

FALLBACKS: dict[str, tuple[str, ...]] = {
    "none": (),
    "bias": ("bias",),
    "reconstruct": ("reconstruct", "bias"),
    "distill": ("reconstruct", "bias"),
}
"""What is tried for each value of the option `recovery`, in order; `distill` then trains it."""


def recover(
    classes: ChannelClasses,
    dropped: NDArray[np.bool_],
    weights: RefittedWeights,
    dataset: Dataset,
    method: str,
    *,
    classifier: Classifier | None = None,
    seed: int = 0,
    limit: int = MAX_SAMPLES,
    block_iterations: int = 0,
    iterations: int = 0,
    tell: TellStage = lambda stage, done, total: None,
    originals: Originals | None = None,
) -> Recovery:
    """Give back what dropping channels took, without labels.

    Args:
        classes: Channel classes of the original.
        dropped: [classes] which were dropped.
        weights: What earlier rounds refitted.
        dataset: The bundle bound to the model; its held-out part is not touched.
        method: `none`, `bias`, `reconstruct` or `distill`.
        classifier: The output that names a class, if there is one.
        seed: Of the samples and positions drawn.
        limit: Samples that regressions read, at most.
        block_iterations: Gradient steps of each block after `reconstruct`.
        iterations: Gradient steps of `distill`.
        tell: Called with the stage (`refit`, `blocks` or `distill`) and its progress.
        originals: What earlier recoveries of the same network kept of the original; grows.

    Raises:
        ModelRunError: ONNX Runtime fails.
    """
    if not FALLBACKS[method]:
        return Recovery(method, "none", RefittedWeights())
    samples = RefitSamples.draw(dataset, seed, limit)
    if samples is None:
        note = (
            f"{dataset.scored.size} samples are too few to set some aside (at least {MIN_SAMPLES} "
            "are needed): nothing was refitted"
        )
        return Recovery(method, "none", RefittedWeights(), notes=(note,))
    judge = Judge(classes.channels.model, samples.checked, classifier)
    notes = _unseen(samples, classifier)
    trials = _Trials(classes, dropped, samples, judge, seed, tell, notes, originals)
    recovery = trials.refit(method, weights)
    if recovery.method == "reconstruct" and block_iterations:
        recovery = trials.train_blocks(recovery, dataset, block_iterations)
    if method == "distill":
        recovery = trials.distill(recovery, dataset, iterations)
    return replace(recovery, notes=tuple(trials.notes))


@dataclass
class _Trials:
    """What is tried on one cut network, each against the best before it.

    Attributes:
        classes: Channel classes of the original.
        dropped: [classes] which were dropped.
        samples: What is fitted and what is set aside.
        judge: Compares with the original on what is set aside.
        seed: Of the positions and batches drawn.
        tell: Progress of each stage.
        notes: What a person should know; grows.
        originals: What earlier recoveries kept of the original; grows.
    """

    classes: ChannelClasses
    dropped: NDArray[np.bool_]
    samples: RefitSamples
    judge: Judge
    seed: int
    tell: TellStage
    notes: list[str]
    originals: Originals | None
    _best: Verdict = field(init=False)

    def refit(self, method: str, weights: RefittedWeights) -> Recovery:
        """The first of the method's attempts that is better than the cut alone."""
        plain = self._best = self.judge.verdict(self._cut(RefittedWeights()).model)
        recovery = Recovery(
            method,
            "none",
            RefittedWeights(),
            output_error_before=_number(plain.error),
            output_error_after=_number(plain.error),
            fitted=self.samples.fitted_count,
            checked=self.samples.checked_count,
        )
        for attempt in FALLBACKS[method]:
            start = weights if attempt == "reconstruct" else RefittedWeights()
            network = self._cut(start)
            refitted, layers = refit(
                network,
                self.samples,
                attempt,
                self.seed,
                partial(self.tell, "refit"),
                self.originals,
            )
            found = self.judge.verdict(network.model)
            if refitted and found.is_better_than(plain):
                self._best = found
                return replace(
                    recovery,
                    method=attempt,
                    weights=refitted,
                    layers=tuple(layers),
                    output_error_after=_number(found.error),
                )
            recovery = replace(recovery, layers=recovery.layers or tuple(layers))
            self.notes.append(_refusal(attempt, bool(refitted), plain, found))
        return recovery

    def train_blocks(self, recovery: Recovery, dataset: Dataset, iterations: int) -> Recovery:
        """Training of one block after the other, on top of what a refit came to."""
        before = self._best
        if before.error <= SMALL_ERROR:
            return recovery
        network = self._cut(recovery.weights)
        try:
            trained, blocks = train_blocks(
                network,
                dataset,
                self.samples,
                iterations,
                self.seed,
                partial(self.tell, "blocks"),
                self.originals,
            )
        except ModelRunError as error:
            self.notes.append(f"blocks: not trained, because {error.message}")
            return recovery
        if not blocks:
            self.notes.append(
                "blocks: not trained, because the network cannot be run in blocks, or has no "
                "float32 weight of a single reader"
            )
        recovery = replace(recovery, blocks=tuple(blocks))
        if not any(b.kept for b in blocks):
            return recovery
        found = self.judge.verdict(network.model)
        if not found.is_better_than(before):
            reason = _refusal("blocks", True, before, found)
            self.notes.append(reason)
            undone = tuple(replace(b, kept=False, reason=b.reason or reason) for b in blocks)
            return replace(recovery, blocks=undone)
        self._best = found
        return replace(recovery, weights=trained, output_error_after=_number(found.error))

    def distill(self, recovery: Recovery, dataset: Dataset, iterations: int) -> Recovery:
        """Training on top of what a refit came to."""
        before = self._best
        network = self._cut(recovery.weights)
        trained, done = distill(
            network,
            dataset,
            self.samples,
            iterations,
            self.seed,
            partial(self.tell, "distill"),
        )
        done = replace(done, output_error_before=_number(before.error))
        if done.reason is not None:
            self.notes.append(f"distill: not done, because {done.reason}")
            return replace(recovery, distillation=done)
        found = self.judge.verdict(network.model)
        error = _number(found.error)
        done = replace(done, output_error_after=error)
        if not found.is_better_than(before):
            reason = _refusal("distill", True, before, found)
            self.notes.append(reason)
            return replace(recovery, distillation=replace(done, reason=reason))
        return replace(
            recovery,
            method="distill",
            weights=trained,
            output_error_after=error,
            distillation=replace(done, kept=True),
        )

    def _cut(self, weights: RefittedWeights) -> CutNetwork:
        return CutNetwork.of(self.classes, self.dropped, weights)


def _unseen(samples: RefitSamples, classifier: Classifier | None) -> list[str]:
    """A sentence on classes that the samples do not have."""
    missing = [] if classifier is None else samples.missing_classes(classifier.classes)
    if not missing:
        return []
    named = ", ".join(str(c) for c in missing[:10]) + (", …" if len(missing) > 10 else "")
    return [
        f"no sample that was fitted or checked has one of {len(missing)} classes ({named}): what "
        "recovery does to them was not seen"
    ]


def _refusal(attempt: str, is_changed: bool, plain: Verdict, found: Verdict) -> str:
    if not np.isfinite(plain.error):
        return f"{attempt}: not kept, because outputs are not finite on the samples set aside"
    if not is_changed:
        return f"{attempt}: no layer's error could be lowered"
    if found.error < plain.error:
        return (
            f"{attempt}: not kept, because the share of the samples set aside that get the "
            f"original's class went from {plain.agreement:.1%} to {found.agreement:.1%}"
        )
    return (
        f"{attempt}: not kept, because the outputs' error on the samples set aside went from "
        f"{plain.error:.4g} to {found.error:.4g}"
    )


def _number(error: float) -> float | None:
    """JSON has no infinity."""
    return error if np.isfinite(error) else None
