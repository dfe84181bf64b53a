"""Windows that slide over spatial axes, and the transpose of a convolution over them.

Position o of an axis reads the inputs o·stride − begin + t·dilation, t = 0 … kernel − 1. The
transpose sends the gradient of o back to the inputs it was read from. Written for ONNX Runtime:
with stride 1 it is a plain convolution with the flipped kernel, which has the fast kernels; with a
stride it is ConvTranspose, kept to symmetric pads because cuDNN knows no others.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from graph_ops.engines.tape import BackwardTape
from graph_ops.graph import constant_array, int_list_of, string_of


@dataclass(frozen=True)
class Windows:
    """Geometry of sliding windows, one entry per spatial axis.

    Attributes:
        inputs: Length of the axis that is read.
        outputs: Number of window positions.
        kernel: Taps of a window.
        strides: Distance of neighbouring windows.
        dilations: Distance of neighbouring taps.
        begins: Padding before the axis. What lies behind it follows from the other numbers.
    """

    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    begins: tuple[int, ...]

    @property
    def extents(self) -> tuple[int, ...]:
        """Length of a window with its gaps."""
        return tuple((k - 1) * d + 1 for k, d in zip(self.kernel, self.dilations, strict=True))

    @property
    def spans(self) -> tuple[int, ...]:
        """Length from the first tap of the first window to the last tap of the last one."""
        return tuple(
            s * (o - 1) + e
            for s, o, e in zip(self.strides, self.outputs, self.extents, strict=True)
        )

    @property
    def are_dense(self) -> bool:
        """Whether every stride is 1."""
        return all(s == 1 for s in self.strides)

    @property
    def are_tiles(self) -> bool:
        """Whether windows lie side by side, without gaps, overlaps or padding before them."""
        return (
            self.kernel == self.strides
            and all(d == 1 for d in self.dilations)
            and not any(self.begins)
        )

    def counts(self) -> NDArray[np.int64]:
        """[*outputs] taps of each window that lie inside the input."""
        counts = np.ones((), dtype=np.int64)
        for axis in range(len(self.kernel)):
            first = np.arange(self.outputs[axis]) * self.strides[axis] - self.begins[axis]
            taps = first[:, None] + np.arange(self.kernel[axis]) * self.dilations[axis]
            inside = ((taps >= 0) & (taps < self.inputs[axis])).sum(axis=1)
            counts = counts[..., None] * inside
        return np.asarray(counts, dtype=np.int64)


def read_windows(
    node: ir.Node, kernel: Sequence[int], inputs: Sequence[int], outputs: Sequence[int]
) -> Windows:
    """The windows of a Conv or pooling node, `auto_pad` resolved to explicit padding.

    Args:
        node: Conv, MaxPool, AveragePool or one like them.
        kernel: Taps per spatial axis.
        inputs: Spatial lengths of its input.
        outputs: Spatial lengths of its output.
    """
    rank = len(kernel)
    strides = int_list_of(node, "strides", [1] * rank)
    dilations = int_list_of(node, "dilations", [1] * rank)
    begins = int_list_of(node, "pads", [0] * (2 * rank))[:rank]
    auto_pad = string_of(node, "auto_pad", "NOTSET")
    if auto_pad in ("SAME_UPPER", "SAME_LOWER"):
        begins = []
        for k, i, s, d in zip(kernel, inputs, strides, dilations, strict=True):
            total = max((-(-i // s) - 1) * s + (k - 1) * d + 1 - i, 0)
            begins.append(total // 2 if auto_pad == "SAME_UPPER" else total - total // 2)
    elif auto_pad == "VALID":
        begins = [0] * rank
    return Windows(
        tuple(inputs),
        tuple(outputs),
        tuple(kernel),
        tuple(strides),
        tuple(dilations),
        tuple(begins),
    )


def transposed_windows(
    node: ir.Node, kernel: Sequence[int], inputs: Sequence[int], outputs: Sequence[int]
) -> Windows:
    """Windows over the output of a ConvTranspose node, one per input position.

    Where the output's size is given (`output_shape`, `auto_pad`), the padding follows from it; the
    odd one goes behind for SAME_UPPER and in front otherwise.

    Args:
        node: The ConvTranspose node.
        kernel: Taps per spatial axis.
        inputs: Spatial lengths of its input.
        outputs: Spatial lengths of its output.
    """
    rank = len(kernel)
    strides = int_list_of(node, "strides", [1] * rank)
    dilations = int_list_of(node, "dilations", [1] * rank)
    extra = int_list_of(node, "output_padding", [0] * rank)
    begins = int_list_of(node, "pads", [0] * (2 * rank))[:rank]
    auto_pad = string_of(node, "auto_pad", "NOTSET")
    if auto_pad == "VALID":
        begins = [0] * rank
    elif auto_pad != "NOTSET" or "output_shape" in node.attributes:
        for axis in range(rank):
            extent = (kernel[axis] - 1) * dilations[axis] + 1
            span = strides[axis] * (inputs[axis] - 1) + extra[axis] + extent
            total = max(span - outputs[axis], 0)
            begins[axis] = total // 2 if auto_pad == "SAME_UPPER" else total - total // 2
    return Windows(
        inputs=tuple(outputs),
        outputs=tuple(inputs),
        kernel=tuple(kernel),
        strides=tuple(strides),
        dilations=tuple(dilations),
        begins=tuple(begins),
    )


def spread_windows(
    tape: BackwardTape, gradient: ir.Value, weight: ir.Value, windows: Windows, group: int
) -> ir.Value:
    """Transpose of Conv: (N, M, *outputs) to (N, C, *inputs).

    Args:
        tape: Where nodes are written.
        gradient: Gradient of the convolution's output.
        weight: The convolution's weight, (M, C / group, *kernel).
        windows: Geometry of the convolution.
        group: Its groups.
    """
    is_sized = None not in tape.dims(weight)
    if windows.are_dense and is_sized:
        return _spread_dense(tape, gradient, weight, windows, group)
    if all(k == 1 for k in windows.kernel) and is_sized:
        return _spread_points(tape, gradient, weight, windows, group)
    if group > 1 and tape.dims(weight)[:2] == (group, 1) and _is_image(weight):
        return _spread_depthwise(tape, gradient, weight, windows)
    return _spread_strided(tape, gradient, weight, windows, group)


def _spread_dense(
    tape: BackwardTape, gradient: ir.Value, weight: ir.Value, w: Windows, group: int
) -> ir.Value:
    """Conv with the kernel flipped and its channel axes swapped within each group."""
    before = [e - 1 - b for e, b in zip(w.extents, w.begins, strict=True)]
    after = [
        i - o + e - 1 - b for i, o, e, b in zip(w.inputs, w.outputs, w.extents, before, strict=True)
    ]
    cropped = crop_or_pad(
        tape, gradient, w.outputs, [min(b, 0) for b in before], [min(a, 0) for a in after]
    )
    return tape.op(
        "Conv",
        cropped,
        flipped(tape, weight, group),
        kernel_shape=list(w.kernel),
        dilations=list(w.dilations),
        strides=[1] * len(w.kernel),
        pads=[max(p, 0) for p in (*before, *after)],
        group=group,
    )


def _spread_points(
    tape: BackwardTape, gradient: ir.Value, weight: ir.Value, w: Windows, group: int
) -> ir.Value:
    """A strided convolution of single elements: mix channels first, where the tensor is small.

    Then zeros are put between the elements of every channel.
    """
    mixed = tape.op(
        "Conv",
        gradient,
        flipped(tape, weight, group),
        kernel_shape=list(w.kernel),
        group=group,
    )
    if _is_image(weight):
        ends = _room_behind(w)
        spaced = _insert_zeros(tape, mixed, w)
        lengths = [st * o for st, o in zip(w.strides, w.outputs, strict=True)]
        placed = crop_or_pad(tape, spaced, lengths, [-b for b in w.begins], ends)
        return tape.blocked(placed, 4)
    channels = int(tape.dims(weight)[1] or 0) * group
    dtype = np.dtype(np.float32) if weight.dtype is None else weight.dtype.numpy()
    ones = tape.constant(np.ones((channels, 1, *w.kernel), dtype=dtype))
    return _spread_strided(tape, mixed, ones, w, channels)


def _spread_depthwise(
    tape: BackwardTape, gradient: ir.Value, weight: ir.Value, w: Windows
) -> ir.Value:
    """Zeros between the elements, then a Conv with the flipped kernel, channel by channel.

    ConvTranspose would do without the zeros, but leaves the blocked layout and adds up a matrix
    of every tap.
    """
    lengths = [s * o for s, o in zip(w.strides, w.outputs, strict=True)]
    before = [e - 1 - b for e, b in zip(w.extents, w.begins, strict=True)]
    ends = _room_behind(w)
    spaced = crop_or_pad(
        tape,
        _insert_zeros(tape, gradient, w),
        lengths,
        [min(b, 0) for b in before],
        [min(a, 0) for a in ends],
    )
    channels = int(tape.dims(weight)[0] or 0)
    return tape.op(
        "Conv",
        spaced,
        flipped(tape, weight, channels),
        kernel_shape=list(w.kernel),
        dilations=list(w.dilations),
        strides=[1] * len(w.kernel),
        pads=[max(p, 0) for p in (*before, *ends)],
        group=channels,
    )


def _insert_zeros(tape: BackwardTape, value: ir.Value, w: Windows) -> ir.Value:
    """(N, C, *outputs) to (N, C, *stride·outputs): every element and the zeros behind it."""
    grid = np.zeros([s * o for s, o in zip(w.strides, w.outputs, strict=True)], dtype=np.float32)
    grid[tuple(slice(None, None, s) for s in w.strides)] = 1.0
    return tape.op("Mul", tape.repeat(value, w.strides), tape.constant(grid[None, None]))


def _room_behind(w: Windows) -> list[int]:
    """What of each input axis lies behind stride·outputs elements; negative where they end."""
    return [
        i - s * o + b for i, s, o, b in zip(w.inputs, w.strides, w.outputs, w.begins, strict=True)
    ]


def _is_image(weight: ir.Value) -> bool:
    """Whether a weight is one of two spatial axes, in float32."""
    shape = weight.shape
    return weight.dtype == ir.DataType.FLOAT and shape is not None and shape.rank() == 4


def flipped(tape: BackwardTape, weight: ir.Value, group: int) -> ir.Value:
    """`flip_weight` of a stored weight; of a computed one, by nodes in the graph."""
    array = constant_array(weight)
    if array is not None:
        return tape.constant(flip_weight(array, group))
    filters, per_group, *kernel = (int(d or 0) for d in tape.dims(weight))
    spatial = list(range(3, 3 + len(kernel)))
    grouped = tape.ints([group, filters // group, per_group, *kernel])
    swapped = tape.op("Transpose", tape.op("Reshape", weight, grouped), perm=[0, 2, 1, *spatial])
    shape = tape.ints([group * per_group, filters // group, *kernel])
    result = tape.op("Reshape", swapped, shape)
    for axis, length in enumerate(kernel):
        if length > 1:
            backwards = tape.ints(range(length - 1, -1, -1))
            result = tape.op("Gather", result, backwards, axis=2 + axis)
    return result


def flip_weight(weight: NDArray[np.generic], group: int) -> NDArray[np.generic]:
    """(M, C / group, *kernel) to (C, M / group, *kernel) with every spatial axis reversed."""
    filters, per_group, *kernel = weight.shape
    grouped = weight.reshape(group, filters // group, per_group, *kernel).swapaxes(1, 2)
    swapped = grouped.reshape(group * per_group, filters // group, *kernel)
    return np.flip(swapped, axis=tuple(range(2, weight.ndim)))


def _spread_strided(
    tape: BackwardTape, gradient: ir.Value, weight: ir.Value, w: Windows, group: int
) -> ir.Value:
    """ConvTranspose with symmetric pads p; the rest is cut or filled up.

    Its output is span − 2p + output_padding long and starts at p of the span; the input starts
    at begin. The output padding must stay below the stride.
    """
    pads, paddings, cuts, fills = [], [], [], []
    for i, span, begin, stride in zip(w.inputs, w.spans, w.begins, w.strides, strict=True):
        end = span - begin - i
        pad = max(0, min(begin, end + stride - 1))
        missing = pad - end
        padding = max(0, min(missing, stride - 1))
        pads.append(pad)
        paddings.append(padding)
        cuts.append(pad - begin)
        fills.append(missing - padding)
    spread = tape.op(
        "ConvTranspose",
        gradient,
        weight,
        kernel_shape=list(w.kernel),
        strides=list(w.strides),
        dilations=list(w.dilations),
        pads=[*pads, *pads],
        output_padding=paddings,
        group=group,
    )
    lengths = [s - 2 * p + o for s, p, o in zip(w.spans, pads, paddings, strict=True)]
    return tape.blocked(crop_or_pad(tape, spread, lengths, cuts, fills), 2 + len(lengths))


def crop_or_pad(
    tape: BackwardTape,
    value: ir.Value,
    lengths: Sequence[int],
    before: Sequence[int],
    after: Sequence[int],
    first_axis: int = 2,
) -> ir.Value:
    """Add zeros (positive numbers) or cut (negative ones) at the ends of each axis.

    Args:
        tape: Where nodes are written.
        value: Any tensor.
        lengths: Present length of every axis from `first_axis` to the last; only those that are
            cut at the end have to be known.
        before: Change in front of each of these axes.
        after: Change behind each of these axes.
        first_axis: Axis the first numbers are for.
    """
    cut = [k for k in range(len(lengths)) if before[k] < 0 or after[k] < 0]
    if cut:
        starts = [max(-before[k], 0) for k in cut]
        ends = [lengths[k] + min(after[k], 0) for k in cut]
        axes = [first_axis + k for k in cut]
        value = tape.op("Slice", value, tape.ints(starts), tape.ints(ends), tape.ints(axes))
    if any(p > 0 for p in itertools.chain(before, after)):
        lead = [0] * first_axis
        pads = [*lead, *(max(p, 0) for p in before), *lead, *(max(p, 0) for p in after)]
        value = tape.op("Pad", value, tape.ints(pads))
    return value
