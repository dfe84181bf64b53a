"""Trials: parts of one layer go, what reads them is refitted in closed form, the outputs judged.

Only one layer is cut in a trial, so what reads it reads what it always read, less some channels.
The moments of that are taken once (`moments.py`) and serve every trial. What lies before the cut
is run once and kept; a trial runs what lies behind.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from graph_ops.bundle import Dataset
from graph_ops.channel_classes import ChannelClasses
from graph_ops.graph import constant_array
from graph_ops.recovery.blas import threads_for
from graph_ops.recovery.cut_network import CutNetwork
from graph_ops.recovery.elimination import Elimination, Reader, eliminate
from graph_ops.recovery.gram import Change
from graph_ops.recovery.judge import Judge
from graph_ops.recovery.layers import WEIGHTED, Layer, find_layers
from graph_ops.recovery.moments import Moments
from graph_ops.recovery.refit import FRONTIER_BYTES, write_change
from graph_ops.recovery.rows import LinearForm, draw_positions, linear_form
from graph_ops.recovery.samples import RefitSamples
from graph_ops.recovery.walk import Walker, computing_nodes, held
from graph_ops.recovery.weights import RefittedWeights, kept_channels, kept_elements
from graph_ops.runtime import Array

ROWS_PER_INPUT = 8
ROWS = (4096, 16384)
"""Rows whose moments are taken: `ROWS_PER_INPUT` for each input, at least and at most so many."""
MOMENTS_BYTES = 1_000_000_000
"""Moments of all layers, at most; the layers after that are not refitted in a trial."""
WHOLE_ERROR = 1.0
"""Error of the outputs without a layer: about what they are themselves."""


class Trials:
    """Cuts parts of a network and says what the outputs lose.

    Args:
        classes: Channel classes of the original.
        dropped: [classes] which are gone already.
        weights: What was refitted so far.
        samples: What is fitted and what is set aside.
        judge: Compares on what is set aside.
        method: How the rest is refitted, `bias` or `reconstruct`; None for not at all.
        seed: Of the positions drawn.
    """

    def __init__(
        self,
        classes: ChannelClasses,
        dropped: NDArray[np.bool_],
        weights: RefittedWeights,
        samples: RefitSamples,
        judge: Judge,
        method: str | None,
        seed: int,
    ) -> None:
        self._classes, self._dropped, self._weights = classes, dropped, weights
        self._samples, self._judge, self._method, self._seed = samples, judge, method, seed
        self._base = self._cut(dropped)
        self._base_nodes = computing_nodes(self._base)
        self._original_nodes = computing_nodes(classes.channels.model)
        self._walker = self._walk(samples.checked)
        self._position = 0
        self._moments: dict[int, Moments] = {}

    def observe(self, going: Iterable[int]) -> None:
        """Take the moments of all that reads any of the classes."""
        if self._method is None:
            return
        walker = self._walk(self._samples.fitted)
        nodes = self._base_nodes
        room = MOMENTS_BYTES
        for index in self._readers(self._with(going)):
            node, form = nodes[index], _form(nodes[index])
            if form is not None and room > 0:
                moments = self._moments_of(node, form, index, walker, room)
                room -= moments.nbytes
                if moments.count:
                    self._moments[index] = moments

    def eliminated(self, channels: Sequence[int]) -> Elimination | None:
        """The order in which classes go by what their readers cannot make up for.

        Args:
            channels: Class ids.

        Returns:
            The order, as places among `channels`; None where no reader's moments are known, or
            weights are not refitted.
        """
        if self._method != "reconstruct":
            return None
        readers = self._readers(self._with(channels))
        found = [self._reader(index, channels) for index in readers if index in self._moments]
        usable = [reader for reader in found if reader is not None]
        return eliminate(usable, len(channels)) if usable else None

    def _reader(self, index: int, channels: Sequence[int]) -> Reader | None:
        """How a node reads classes; None where its moments or its form do not say."""
        node, moments = self._base_nodes[index], self._moments[index]
        array, form = constant_array(node.inputs[1]), _form(node)
        known = moments.precision()
        assert array is not None
        assert form is not None
        if known is None:
            return None
        covariance, precision = known
        weight = _matrix(form, array)[0].astype(np.float64)
        with threads_for(covariance.shape[0]):
            variance = float(np.sum((covariance @ weight) * weight))
        read = self._classes_read(index, form.inputs)
        columns = [np.flatnonzero(read == c) for c in channels]
        used = np.unique(np.concatenate(columns))
        return Reader(
            precision[np.ix_(used, used)],
            weight[used],
            [np.searchsorted(used, c) for c in columns],
            variance,
        )

    def _classes_read(self, index: int, width: int) -> NDArray[np.int64]:
        """[width] the class that each input of a node's row belongs to, -1 for none."""
        original = self._original_nodes[index]
        for node, place, axis in self._classes.channels.consumers:
            value = original.inputs[0]
            if node is original and place == 0 and value is not None:
                labels = self._classes.channels.axis(value, axis)
                if labels is not None:
                    ids = self._classes.class_of[labels]
                    ids = ids[~self._dropped[ids]]
                    if ids.size and width % ids.size == 0:
                        return np.tile(ids, width // ids.size)
        return np.full(width, -1)

    def place(self, going: Iterable[int]) -> int:
        """Index of the first node that changes when classes go."""
        trial = self._cut(self._with(going))
        pairs = zip(self._base_nodes, computing_nodes(trial), strict=True)
        for index, (a, b) in enumerate(pairs):
            if _shapes(a) != _shapes(b):
                return index
        return 0

    def squared_error(self, going: Sequence[int], place: int) -> float:
        """Of the outputs, with more classes gone; never more than without the network.

        Args:
            going: The classes.
            place: Index of the first node that changes; it may not fall from trial to trial.
        """
        dropped = self._with(going)
        model = self._cut(dropped)
        if self._method is not None and going:
            self._refit(dropped, model)
        if any(o.producer() is None for o in model.graph.outputs):
            error = self._judge.verdict(model).error
        else:
            error = self._judge.compare(self._outputs(model, place)).error
        return float(min(error, WHOLE_ERROR)) ** 2

    def _outputs(self, model: ir.Model, place: int) -> Iterable[list[Array]]:
        if place > self._position:
            self._walker.move(place)
            self._position = place
        outputs = list(model.graph.outputs)
        for _, found in self._walker.fork(model).run(outputs, place):
            yield [found[str(o.name)] for o in outputs]

    def _with(self, going: Iterable[int]) -> NDArray[np.bool_]:
        dropped = self._dropped.copy()
        dropped[list(going)] = True
        return dropped

    def _walk(self, samples: Dataset) -> Walker:
        batches = held(lambda: samples.batches("scored"))
        return Walker(self._base, batches, FRONTIER_BYTES)

    def _cut(self, dropped: NDArray[np.bool_]) -> ir.Model:
        return CutNetwork.of(self._classes, dropped, self._weights).model

    def _readers(self, dropped: NDArray[np.bool_]) -> list[int]:
        """Indices of the nodes that read fewer channels than they do now."""
        index_of = {n: i for i, n in enumerate(self._original_nodes)}
        found = {
            index_of[node]
            for node, index, axis in self._classes.channels.consumers
            if (value := node.inputs[index]) is not None
            and _count(self._classes, value, axis, dropped)
            != _count(self._classes, value, axis, self._dropped)
        }
        return sorted(found)

    def _moments_of(
        self, node: ir.Node, form: LinearForm, index: int, walker: Walker, room: int
    ) -> Moments:
        """Of what a node reads; of no rows where they would take more bytes than there is room."""
        x, y = node.inputs[0], node.outputs[0]
        assert x is not None
        fitted = self._samples.fitted_count
        rng = np.random.default_rng([self._seed, index])
        wanted = min(max(ROWS_PER_INPUT * form.inputs, ROWS[0]), ROWS[1])
        each = -(-wanted // max(1, fitted))
        moments: Moments | None = None
        has_room = False
        for batch, found in walker.run([x, y], index + 1):
            read = found[str(x.name)]
            whole = read.shape[0]
            grid = form.grid(found[str(y.name)], whole)
            if moments is None:
                rows = min(each, math.prod(grid)) * fitted
                is_wide = rows < form.inputs
                moments = Moments(is_wide=is_wide)
                size = 4 * rows if is_wide else 8 * form.inputs
                has_room = form.groups * form.inputs * size <= room
            if has_room:
                counted = round(batch.size / next(iter(batch.inputs.values())).shape[0] * whole)
                at = draw_positions(rng, counted, grid, each)
                moments.add(form.rows(read, at, whole))
        return moments or Moments()

    def _refit(self, dropped: NDArray[np.bool_], model: ir.Model) -> None:
        readers = set(self._readers(dropped))
        for layer in find_layers(self._classes, dropped, model)[0]:
            if layer.index not in readers or layer.index not in self._moments:
                continue
            change = self._change(layer, dropped)
            if change is not None:
                write_change(layer, change, self._weights, set(), set())

    def _change(self, layer: Layer, dropped: NDArray[np.bool_]) -> Change | None:
        """What makes up for a layer's lost inputs, in the space of the values it is matched to."""
        value = layer.original.inputs[1]
        node = self._base_nodes[layer.index]
        array, form = constant_array(node.inputs[1]), _form(node)
        assert value is not None
        assert array is not None
        assert form is not None
        whole = kept_elements(self._classes, value, self._dropped)
        left = kept_elements(self._classes, value, dropped)[whole].reshape(array.shape)
        mask = _matrix(form, left.astype(np.float32)) != 0
        change = self._moments[layer.index].make_up(
            _matrix(form, array),
            mask.any(axis=2),
            mask.any(axis=1),
            with_weights=self._method == "reconstruct" and layer.fixed is None,
        )
        if change is None:
            return None
        scale = layer.scale.reshape(change.bias.shape)
        moved = None if change.weights is None else change.weights * scale[:, None, :]
        return Change(moved, change.bias * scale)


def _form(node: ir.Node) -> LinearForm | None:
    """How a node that may be refitted is linear in its stored weight; None for others."""
    if node.op_type not in WEIGHTED or node.domain not in ("", "ai.onnx"):
        return None
    weight = constant_array(node.inputs[1])
    if weight is None or weight.dtype.kind != "f":
        return None
    return linear_form(node, weight.shape)


def _matrix(form: LinearForm, stored: Array) -> Array:
    """[groups, inputs, outputs] of a stored weight."""
    matrix = form.matrix(stored)
    return matrix.reshape(form.groups, form.inputs, matrix.shape[-1])


def _shapes(node: ir.Node) -> list[tuple[int, ...] | None]:
    arrays = [constant_array(v) for v in node.inputs]
    return [None if a is None else a.shape for a in arrays]


def _count(
    classes: ChannelClasses, value: ir.Value, axis: int, dropped: NDArray[np.bool_]
) -> int | None:
    kept = kept_channels(classes, value, axis, dropped)
    return None if kept is None else int(kept.sum())
