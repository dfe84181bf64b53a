"""Gradient of a convolution with respect to its kernel: a convolution over the batch.

W[m, c, t] meets the input at o·stride − begin + t·dilation for every sample and position o. So its
gradient is the input, with samples read as channels, convolved with the output's gradient as the
kernel; stride and dilation change places. Groups stay groups, so depthwise kernels need nothing of
their own.
"""

from __future__ import annotations

import onnx_ir as ir

from graph_ops.engines.tape import BackwardTape
from graph_ops.rules.windows import Windows, crop_or_pad


def kernel_gradient(
    tape: BackwardTape, read: ir.Value, written: ir.Value, windows: Windows, group: int
) -> ir.Value:
    """(M, C / group, *kernel), summed over the batch.

    Args:
        tape: Where nodes are written.
        read: (N, C, *inputs): what the windows slide over.
        written: (N, M, *outputs): the gradient at every position.
        windows: Geometry.
        group: Groups of the convolution.
    """
    w = windows
    axes = range(len(w.kernel))
    ends = [w.spans[a] - w.begins[a] - w.inputs[a] for a in axes]
    x = crop_or_pad(tape, read, w.inputs, [0 for _ in axes], [min(e, 0) for e in ends])
    spatial = [2 + a for a in axes]
    if group == 1:
        samples_as_channels = tape.op("Transpose", x, perm=[1, 0, *spatial])
    else:
        lengths = [i + min(e, 0) for i, e in zip(w.inputs, ends, strict=True)]
        parts = tape.op("Reshape", x, tape.ints([0, group, -1, *lengths]))
        moved = tape.op("Transpose", parts, perm=[2, 1, 0, *(1 + s for s in spatial)])
        # 0 keeps the channels of a group; −1 is groups × samples.
        samples_as_channels = tape.op("Reshape", moved, tape.ints([0, -1, *lengths]))
    found = tape.op(
        "Conv",
        samples_as_channels,
        tape.op("Transpose", written, perm=[1, 0, *spatial]),
        kernel_shape=list(w.outputs),
        strides=list(w.dilations),
        dilations=list(w.strides),
        pads=[*w.begins, *(max(e, 0) for e in ends)],
        group=group,
    )
    return tape.op("Transpose", found, perm=[1, 0, *spatial])
