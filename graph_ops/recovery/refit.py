"""Refitting layer by layer, in graph order as far as sums allow (`layers.py`).

Each layer is fitted on what it reads in the network as it is by then: cut, and refitted up to
there. The targets are the original network's values at the channels that are left. So a layer also
makes up for what those before it could not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
import onnx_ir as ir

from graph_ops.edits import set_constant_input
from graph_ops.graph import constant_array
from graph_ops.recovery.cut_network import CutNetwork
from graph_ops.recovery.fits import BLOCKED, BiasFit, Fit, LinearFit, Seen
from graph_ops.recovery.gram import Change
from graph_ops.recovery.layers import Layer, find_layers
from graph_ops.recovery.originals import Drawn, Originals
from graph_ops.recovery.samples import RefitSamples
from graph_ops.recovery.summary import LayerRecovery
from graph_ops.recovery.walk import Walker, held
from graph_ops.recovery.weights import BIAS_INPUT, RefittedWeights, store
from graph_ops.runtime import Array

FRONTIER_BYTES = 600_000_000
"""Activations kept of each of the two networks between layers, at most."""

Tell = Callable[[int, int], None]
"""Called with the number of layers done and of all."""


def refit(
    network: CutNetwork,
    samples: RefitSamples,
    method: str,
    seed: int,
    tell: Tell,
    originals: Originals | None = None,
) -> tuple[RefittedWeights, list[LayerRecovery]]:
    """Refit a cut model in place.

    Args:
        network: What was cut.
        samples: What is fitted and what is set aside.
        method: `bias` or `reconstruct`.
        seed: Of the positions drawn.
        tell: Progress.
        originals: Takes what the original computes, and gives what it has taken.

    Returns:
        The weights as they are now, and what was done to each layer.
    """
    refitter = Refitter(network, samples, seed, originals)
    layers, skipped = refitter.layers, refitter.skipped
    summaries = [LayerRecovery(s.name, s.op_type, "none", reason=s.reason) for s in skipped]
    for number, layer in enumerate(layers):
        tell(number, len(layers))
        summaries.append(refitter.refit(layer, method))
    tell(len(layers), len(layers))
    order = {name: i for i, name in enumerate(_names_in_order(network.model))}
    summaries.sort(key=lambda s: order.get(s.name, 0))
    return refitter.weights(), summaries


class Refitter:
    """Refits layers of a cut model in place, in the order it gives them.

    Args:
        network: What was cut.
        samples: What is fitted and what is set aside.
        seed: Of the positions drawn.
        originals: Takes what the original computes, and gives what it has taken.

    Attributes:
        layers: What can be refitted, in order.
        skipped: What cannot, and why.
        ours: Where the cut model stands.
    """

    def __init__(
        self,
        network: CutNetwork,
        samples: RefitSamples,
        seed: int,
        originals: Originals | None = None,
    ) -> None:
        self._network = network
        self._samples = samples
        self._seed = seed
        self._originals = originals
        self.layers, self.skipped = find_layers(network.classes, network.dropped, network.model)
        batches = held(samples.batches)
        self.ours = Walker(network.model, batches, FRONTIER_BYTES)
        self._theirs = Walker(network.original, batches, FRONTIER_BYTES)
        self._values = {str(o.name): o for n in network.original.graph for o in n.outputs}
        self._tensors: set[str] = set()
        self._biases: set[str] = set()

    def refit(self, layer: Layer, method: str) -> LayerRecovery:
        """Refit one layer, by `bias` or `reconstruct`."""
        wanted = self._values[str(layer.match.name)]
        if method == "bias":
            fit: Fit = BiasFit(layer)
            _observe(layer, fit, self.ours, self._theirs, wanted, self._samples.fitted_count)
        else:
            fit = self._observed_linear(layer, wanted)
        change, summary = fit.choose()
        if change is not None:
            write_change(layer, change, self._network.weights, self._tensors, self._biases)
        return summary

    def weights(self) -> RefittedWeights:
        """The weights as they are now."""
        return self._network.changed(self._tensors, self._biases)

    def _observed_linear(self, layer: Layer, wanted: ir.Value) -> LinearFit:
        """A layer's regression that has seen every batch, of the original as kept if it was."""
        samples, originals, ours = self._samples, self._originals, self.ours
        fitted = samples.fitted_count
        keeps = originals is not None
        fit = LinearFit(layer, fitted, samples.checked_count, self._seed, draws_more=keeps)
        known = None if originals is None else originals.find(layer, fitted)
        if known is not None and fit.can_use(known):
            _observe(layer, fit, ours, known, wanted, fitted)
            return fit
        _observe(layer, fit, ours, self._theirs, wanted, fitted)
        if originals is not None and not fit.needs_source:
            originals.keep(layer, fitted, fit.drawn)
        return fit


def _observe(
    layer: Layer,
    fit: Fit,
    ours: Walker,
    theirs: Walker | list[Drawn],
    wanted: ir.Value,
    fitted: int,
) -> None:
    """Show a layer's fit every batch of both networks."""
    x, source = layer.node.inputs[0], layer.original.inputs[0]
    assert x is not None
    assert source is not None
    seen = 0
    originals: Iterable[tuple[Drawn | None, dict[str, Array]]]
    if isinstance(theirs, Walker):
        asked = [wanted, source] if fit.needs_source else [wanted]
        originals = ((None, target) for _, target in theirs.run(asked, layer.position))
    else:
        originals = ((drawn, {}) for drawn in theirs)
    pairs = zip(ours.run([x, layer.match], layer.position), originals, strict=True)
    for (batch, found), (drawn, target) in pairs:
        rows = next(iter(batch.inputs.values())).shape[0]
        fit.add(
            Seen(
                x=found[str(x.name)],
                source=target[str(source.name)] if fit.needs_source else None,
                found=found[str(layer.match.name)],
                wanted=target.get(str(wanted.name)),
                drawn=drawn,
                share=batch.size / rows,
                is_checked=seen >= fitted,
            )
        )
        seen += batch.size


def write_change(
    layer: Layer,
    change: Change,
    weights: RefittedWeights,
    tensors: set[str],
    biases: set[str],
) -> None:
    """Add a change to a layer's stored weight and bias, in place.

    Args:
        layer: Of the cut model.
        change: In the space of the values that are matched.
        weights: What was refitted before, and is in the model already.
        tensors: Takes the names of stored tensors that were written.
        biases: Takes the first outputs of nodes that were given a bias.
    """
    weight = layer.node.inputs[1]
    assert weight is not None
    if change.weights is not None:
        old = constant_array(weight)
        assert old is not None
        largest = np.abs(layer.scale).max(initial=0.0)
        is_blocked = np.abs(layer.scale) <= BLOCKED * largest
        factor = np.where(is_blocked, 0.0, 1.0 / np.where(is_blocked, 1.0, layer.scale))
        groups = layer.form.groups
        matrix = change.weights * factor.reshape(groups, 1, -1)
        store(weight, old + layer.form.to_stored(matrix, old.shape))
        tensors.add(str(weight.name))
    if layer.slot is None:
        return
    after = layer.slot.after
    moved = np.where(after == 0.0, 0.0, change.bias.reshape(-1) / np.where(after == 0, 1.0, after))
    output = str(layer.node.outputs[0].name)
    if layer.slot.value is None:
        array = constant_array(weight)
        assert array is not None
        set_constant_input(layer.node, BIAS_INPUT, moved.astype(array.dtype))
        biases.add(output)
        return
    old = constant_array(layer.slot.value)
    assert old is not None
    store(layer.slot.value, old + moved.reshape(old.shape))
    if output in weights.biases and layer.slot.value is layer.node.inputs[BIAS_INPUT]:
        biases.add(output)  # an earlier round gave it one
    else:
        tensors.add(str(layer.slot.value.name))


def _names_in_order(model: ir.Model) -> list[str]:
    return [n.name or next((str(o.name) for o in n.outputs if o.name), "") for n in model.graph]
