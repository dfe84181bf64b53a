"""Recovery of a cut network, and the decision whether it is kept.

What was refitted is held against the network without recovery, on samples that no regression was
fitted on: by the error of the outputs, relative to the original network's. What is worse is not
kept. `reconstruct` falls back to `bias`, and that to nothing.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from graph_ops.bundle import Batch, Dataset
from graph_ops.channels import ChannelClasses
from graph_ops.recovery.refit import Tell, refit
from graph_ops.recovery.samples import MIN_SAMPLES, RefitSamples
from graph_ops.recovery.summary import LayerRecovery, Recovery
from graph_ops.recovery.weights import RefittedWeights
from graph_ops.runtime import Array, Session
from graph_ops.surgery import cut

FALLBACKS: dict[str, tuple[str, ...]] = {
    "none": (),
    "bias": ("bias",),
    "reconstruct": ("reconstruct", "bias"),
}
"""What is tried for each value of the option `recovery`, in order."""


def recover(
    classes: ChannelClasses,
    dropped: NDArray[np.bool_],
    weights: RefittedWeights,
    dataset: Dataset,
    method: str,
    *,
    seed: int = 0,
    tell: Tell = lambda done, total: None,
) -> Recovery:
    """Give back what dropping channels took, without labels or gradients.

    Args:
        classes: Channel classes of the original.
        dropped: [classes] which were dropped.
        weights: What earlier rounds refitted.
        dataset: The bundle bound to the model; its held-out part is not touched.
        method: `none`, `bias` or `reconstruct`.
        seed: Of the samples and positions drawn.
        tell: Progress.

    Raises:
        ModelRunError: ONNX Runtime fails.
    """
    if not FALLBACKS[method]:
        return Recovery(method, "none", RefittedWeights())
    samples = RefitSamples.draw(dataset, seed)
    if samples is None:
        note = (
            f"{dataset.scored.size} samples are too few to set some aside (at least {MIN_SAMPLES} "
            "are needed): nothing was refitted"
        )
        return Recovery(method, "none", RefittedWeights(), notes=(note,))
    judge = _Judge(classes.channels.model, samples.checked)
    plain = judge.error(cut(classes, dropped))
    notes: list[str] = []
    done: list[LayerRecovery] = []
    for attempt in FALLBACKS[method]:
        start = weights if attempt == "reconstruct" else RefittedWeights()
        model = cut(classes, dropped)
        start.lay_over(classes, dropped, model)
        refitted, layers = refit(classes, dropped, start, model, samples, attempt, seed, tell)
        error = judge.error(model)
        done = done or layers
        if refitted and error < plain:
            return Recovery(
                method,
                attempt,
                refitted,
                tuple(layers),
                _number(plain),
                _number(error),
                samples.fitted_count,
                samples.checked_count,
                tuple(notes),
            )
        notes.append(_refusal(attempt, bool(refitted), plain, error))
    return Recovery(
        method,
        "none",
        RefittedWeights(),
        tuple(done),
        _number(plain),
        _number(plain),
        samples.fitted_count,
        samples.checked_count,
        tuple(notes),
    )


def _refusal(attempt: str, is_changed: bool, plain: float, error: float) -> str:
    if not np.isfinite(plain):
        return f"{attempt}: not kept, because outputs are not finite on the samples set aside"
    if not is_changed:
        return f"{attempt}: no layer's error could be lowered"
    return (
        f"{attempt}: not kept, because the outputs' error on the samples set aside went from "
        f"{plain:.4g} to {error:.4g}"
    )


class _Judge:
    """Error of a model's outputs against the original's.

    Args:
        original: The original.
        samples: Those set aside.
    """

    def __init__(self, original: ir.Model, samples: Dataset) -> None:
        session = Session(original, keep_memory=False)
        self._samples = samples
        self._names = session.output_names
        self._wanted = [self._run(session, batch) for batch in samples.batches("scored")]

    def error(self, model: ir.Model) -> float:
        """Root mean square difference relative to the original's root mean square.

        The mean over outputs of numbers; infinite where something is not finite.
        """
        session = Session(model, keep_memory=False)
        count = len(self._names)
        gap, energy = np.zeros(count), np.zeros(count)
        for batch, wanted in zip(self._samples.batches("scored"), self._wanted, strict=True):
            for i, (a, b) in enumerate(zip(wanted, self._run(session, batch), strict=True)):
                if a.dtype.kind == "f" and a.shape == b.shape:
                    gap[i] += np.square(a.astype(np.float64) - b).sum()
                    energy[i] += np.square(a.astype(np.float64)).sum()
        used = energy > 0
        if not used.any() or not np.isfinite(gap).all() or not np.isfinite(energy).all():
            return float("inf")
        return float(np.sqrt(gap[used] / energy[used]).mean())

    def _run(self, session: Session, batch: Batch) -> Sequence[Array]:
        rows = next(iter(batch.inputs.values())).shape[0]
        found = session.run(batch.inputs, self._names)
        return [a[: batch.size] if a.ndim and a.shape[0] == rows else a for a in found]


def _number(error: float) -> float | None:
    """JSON has no infinity."""
    return error if np.isfinite(error) else None
