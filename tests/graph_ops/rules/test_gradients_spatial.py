"""Gradients of convolutions, pooling and resampling.

These operators are linear or piecewise linear, so central differences in float32 with a large step
are as exact as float32; MaxPool's inputs are distinct and the step is below their distance.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.graph_ops.rules.gradient_harness import (
    GradientSpec,
    build_model,
    check_gradient,
    check_refusal,
    gradient_name,
    open_session,
    with_loss_and_gradients,
)


def conv(
    name: str,
    attributes: str,
    x: Sequence[int],
    w: Sequence[int],
    op_type: str = "Conv",
    **options: object,
) -> GradientSpec:
    """A (transposed) convolution with bias; `attributes` is ONNX text."""
    filters = w[0]
    if op_type == "ConvTranspose":
        group = int(attributes.split("group=")[1].split(",")[0]) if "group=" in attributes else 1
        filters = w[1] * group
    kernel = list(w[2:])
    listed = ", ".join(a for a in (f"kernel_shape={kernel}", attributes) if a)
    return GradientSpec(
        f"{op_type}: {name}",
        f"y = {op_type} <{listed}> (x, w, b)",
        {"x": x},
        {"w": w, "b": (filters,)},
        reference="ort",
        **options,  # type: ignore[arg-type]
    )


CONV_SPECS = [
    conv("3x3", "pads=[1,1,1,1]", (2, 3, 6, 5), (4, 3, 3, 3), expected_operators=["Conv"]),
    conv("without pads", "", (2, 3, 6, 5), (4, 3, 3, 3)),
    conv("1x1", "", (2, 3, 4, 5), (4, 3, 1, 1)),
    conv("pads beyond the kernel", "pads=[3,4,2,3]", (2, 2, 4, 4), (3, 2, 2, 3)),
    conv("1-D", "pads=[1,0]", (2, 3, 9), (4, 3, 3)),
    conv("1-D strided", "pads=[2,1], strides=[3]", (2, 3, 11), (4, 3, 4)),
    conv("3-D", "pads=[1,0,1,1,1,0]", (2, 2, 4, 5, 4), (3, 2, 3, 2, 3)),
    conv("3-D strided", "pads=[1,1,1,1,1,1], strides=[2,1,2]", (2, 2, 5, 4, 6), (3, 2, 3, 3, 3)),
    conv("grouped", "group=2, pads=[1,1,1,1]", (2, 4, 5, 5), (6, 2, 3, 3)),
    conv("grouped strided", "group=2, strides=[2,2]", (2, 4, 6, 7), (6, 2, 3, 3)),
    conv("depthwise", "group=4, pads=[1,1,1,1]", (2, 4, 5, 5), (4, 1, 3, 3)),
    conv("depthwise multiplier 2", "group=3, strides=[2,2]", (2, 3, 6, 6), (6, 1, 3, 3)),
    conv("dilated", "dilations=[2,3], pads=[2,3,2,3]", (2, 2, 8, 9), (3, 2, 3, 3)),
    conv(
        "dilated strided",
        "dilations=[2,2], strides=[2,3], pads=[1,2,0,1]",
        (2, 2, 9, 10),
        (3, 2, 3, 2),
    ),
    conv("asymmetric pads", "pads=[0,1,2,0]", (2, 2, 6, 6), (3, 2, 3, 3)),
    conv("stride 2, even, symmetric", "strides=[2,2], pads=[1,1,1,1]", (2, 2, 8, 8), (3, 2, 3, 3)),
    conv("stride 2, odd, symmetric", "strides=[2,2], pads=[1,1,1,1]", (2, 2, 7, 7), (3, 2, 3, 3)),
    conv("stem 7x7", "strides=[2,2], pads=[3,3,3,3]", (1, 3, 16, 15), (4, 3, 7, 7)),
    conv("asymmetric strided", "strides=[2,2], pads=[0,0,1,1]", (2, 2, 8, 8), (3, 2, 3, 3)),
    conv(
        "asymmetric strided, more in front",
        "strides=[2,3], pads=[2,2,0,0]",
        (2, 2, 8, 8),
        (3, 2, 3, 3),
    ),
    conv("1x1 stride 2", "strides=[2,2]", (2, 3, 7, 8), (4, 3, 1, 1)),
    conv("stride above kernel", "strides=[3,4]", (2, 2, 10, 11), (3, 2, 2, 1)),
    conv(
        "stride leaves a remainder", "strides=[3,3], pads=[1,1,0,0]", (2, 2, 10, 12), (3, 2, 2, 3)
    ),
    conv("SAME_UPPER", 'auto_pad="SAME_UPPER"', (2, 2, 6, 5), (3, 2, 2, 4)),
    conv("SAME_LOWER", 'auto_pad="SAME_LOWER"', (2, 2, 6, 5), (3, 2, 2, 4)),
    conv("SAME_UPPER strided", 'auto_pad="SAME_UPPER", strides=[2,2]', (2, 2, 8, 7), (3, 2, 3, 3)),
    conv("SAME_LOWER strided", 'auto_pad="SAME_LOWER", strides=[2,3]', (2, 2, 8, 7), (3, 2, 3, 4)),
    conv("VALID", 'auto_pad="VALID", strides=[2,1]', (2, 2, 8, 7), (3, 2, 3, 3)),
    conv("opset 7", "strides=[2,2], pads=[1,1,1,1]", (2, 2, 8, 7), (3, 2, 3, 3), opset=7),
    conv("opset 21", "pads=[1,1,1,1]", (2, 2, 8, 7), (3, 2, 3, 3), opset=21),
    GradientSpec(
        "Conv: weight computed from stored ones",
        "v = Neg (w) y = Conv <kernel_shape=[3,3], pads=[1,1,0,2], group=2> (x, v)",
        {"x": (2, 4, 5, 4)},
        {"w": (6, 2, 3, 3)},
        reference="ort",
    ),
    GradientSpec(
        "Conv: bias from activations",
        "m = Squeeze (s, zero) y = Conv <kernel_shape=[3,3]> (x, w, m)",
        {"x": (1, 3, 4, 4), "s": (1, 2)},
        {"w": (2, 3, 3, 3), "zero": np.asarray([0], np.int64)},
        reference="ort",
    ),
]


def kernel(
    name: str, attributes: str, x: Sequence[int], w: Sequence[int], op_type: str = "Conv"
) -> GradientSpec:
    """A (transposed) convolution of a folded batch whose kernel is differentiated as well."""
    listed = ", ".join(a for a in (f"kernel_shape={list(w[2:])}", attributes) if a)
    return GradientSpec(
        f"{op_type}: {name}, kernel",
        f"a = Reshape (x, x_shape) v = Reshape (s, w_shape) z = {op_type} <{listed}> (a, v) "
        "y = Reshape (z, row)",
        {"x": (1, *x), "s": (1, int(np.prod(w)))},
        {
            "x_shape": np.asarray(x, np.int64),
            "w_shape": np.asarray(w, np.int64),
            "row": np.asarray([1, -1], np.int64),
        },
        reference="ort",
    )


KERNEL_SPECS = [
    kernel("3x3", "pads=[1,1,1,1]", (3, 2, 6, 5), (4, 2, 3, 3)),
    kernel("1x1", "", (3, 2, 4, 5), (4, 2, 1, 1)),
    kernel("1x1 stride 2", "strides=[2,2]", (2, 3, 7, 8), (4, 3, 1, 1)),
    kernel("stride 2 with a rest", "strides=[2,2], pads=[1,1,1,1]", (3, 2, 8, 7), (3, 2, 3, 3)),
    kernel("stride above kernel", "strides=[3,4]", (2, 2, 10, 11), (3, 2, 2, 1)),
    kernel("dilated strided", "dilations=[2,2], strides=[2,3], pads=[1,2,0,1]",
           (2, 2, 9, 10), (3, 2, 3, 2)),
    kernel("pads beyond the kernel", "pads=[3,4,2,3]", (2, 2, 4, 4), (3, 2, 2, 3)),
    kernel("grouped", "group=2, pads=[1,1,0,2]", (2, 4, 5, 5), (6, 2, 3, 3)),
    kernel("depthwise", "group=4, strides=[2,1], pads=[1,1,1,1]", (2, 4, 5, 6), (4, 1, 3, 3)),
    kernel("SAME_LOWER", 'auto_pad="SAME_LOWER", strides=[2,3]', (2, 2, 8, 7), (3, 2, 3, 4)),
    kernel("1-D", "pads=[2,1], strides=[3]", (2, 3, 11), (4, 3, 4)),
    kernel("3-D", "pads=[1,0,1,1,1,0]", (2, 2, 4, 5, 4), (3, 2, 3, 2, 3)),
    GradientSpec("Conv: a filter for each sample",
                 "z = Conv <kernel_shape=[2,2]> (c, x) y = Transpose <perm=[1,0,2,3]> (z)",
                 {"x": (3, 2, 2, 2)}, {"c": (1, 2, 4, 4)}, reference="ort"),
    kernel("stride 2", "strides=[2,2], pads=[1,1,1,1]", (2, 3, 4, 5), (3, 2, 4, 4),
           "ConvTranspose"),
    kernel("output padding", "strides=[2,3], pads=[1,1,1,1], output_padding=[1,2]",
           (2, 3, 4, 5), (3, 2, 3, 3), "ConvTranspose"),
    kernel("grouped", "group=2, strides=[2,2]", (2, 4, 4, 3), (4, 3, 3, 3), "ConvTranspose"),
]  # fmt: skip


def deconv(
    name: str, attributes: str, x: Sequence[int], w: Sequence[int], **options: object
) -> GradientSpec:
    return conv(name, attributes, x, w, op_type="ConvTranspose", **options)


CONV_TRANSPOSE_SPECS = [
    deconv("plain", "", (2, 3, 4, 5), (3, 2, 3, 3)),
    deconv("2x2 stride 2", "strides=[2,2]", (2, 3, 4, 5), (3, 2, 2, 2)),
    deconv("4x4 stride 2 pads 1", "strides=[2,2], pads=[1,1,1,1]", (2, 3, 4, 5), (3, 2, 4, 4)),
    deconv(
        "output padding",
        "strides=[2,3], pads=[1,1,1,1], output_padding=[1,2]",
        (2, 3, 4, 5),
        (3, 2, 3, 3),
    ),
    deconv(
        "output padding without pads",
        "strides=[2,2], output_padding=[1,1]",
        (2, 3, 4, 5),
        (3, 2, 3, 3),
    ),
    deconv("asymmetric pads", "strides=[2,2], pads=[0,1,2,0]", (2, 3, 4, 5), (3, 2, 3, 4)),
    deconv("dilated", "dilations=[2,2], pads=[1,1,2,2]", (2, 3, 4, 5), (3, 2, 3, 3)),
    deconv("grouped", "group=2, strides=[2,2]", (2, 4, 4, 3), (4, 3, 3, 3)),
    deconv("depthwise", "group=3, strides=[2,2], pads=[1,1,1,1]", (2, 3, 4, 4), (3, 1, 4, 4)),
    deconv("1-D", "strides=[3], pads=[1,0]", (2, 3, 5), (3, 2, 4)),
    deconv("3-D", "strides=[2,1,2], pads=[1,0,1,0,1,1]", (2, 2, 3, 3, 3), (2, 2, 3, 2, 3)),
    deconv("SAME_UPPER", 'auto_pad="SAME_UPPER", strides=[2,2]', (2, 3, 4, 5), (3, 2, 3, 3)),
    deconv("SAME_LOWER", 'auto_pad="SAME_LOWER", strides=[2,3]', (2, 3, 4, 5), (3, 2, 3, 4)),
    deconv("VALID", 'auto_pad="VALID", strides=[2,2]', (2, 3, 4, 5), (3, 2, 3, 3)),
    deconv("output shape", "strides=[2,2], output_shape=[8,10]", (2, 3, 4, 5), (3, 2, 3, 3)),
    deconv("opset 9", "strides=[2,2]", (2, 3, 4, 5), (3, 2, 2, 2), opset=9),
]


def pool(
    name: str, attributes: str, x: Sequence[int], op_type: str, **options: object
) -> GradientSpec:
    is_max = op_type.endswith("MaxPool")
    listed = f"<{attributes}>" if attributes else ""
    return GradientSpec(
        f"{op_type}: {name}",
        f"y = {op_type} {listed} (x)",
        {"x": x},
        input_range=(-50.0, 50.0) if is_max else (-1.0, 1.0),
        is_distinct=is_max,
        reference="ort",
        **options,  # type: ignore[arg-type]
    )


WINDOWS: list[tuple[str, str, Sequence[int]]] = [
    ("2x2 stride 2", "kernel_shape=[2,2], strides=[2,2]", (2, 3, 6, 4)),
    ("2x2 stride 2 with a rest", "kernel_shape=[2,2], strides=[2,2]", (2, 3, 7, 5)),
    ("3x3 stride 2 overlapping", "kernel_shape=[3,3], strides=[2,2], pads=[1,1,1,1]", (2, 3, 8, 7)),
    ("3x3 stride 1", "kernel_shape=[3,3], pads=[1,1,1,1]", (2, 3, 5, 6)),
    ("stride above kernel", "kernel_shape=[2,2], strides=[3,4]", (2, 2, 9, 10)),
    ("asymmetric pads", "kernel_shape=[3,3], strides=[2,1], pads=[0,1,2,0]", (2, 2, 6, 6)),
    ("ceil", "kernel_shape=[2,2], strides=[2,2], ceil_mode=1", (2, 2, 7, 5)),
    (
        "ceil with pads",
        "kernel_shape=[3,3], strides=[2,2], ceil_mode=1, pads=[1,1,1,1]",
        (2, 2, 8, 6),
    ),
    ("ceil without pads", "kernel_shape=[3,3], strides=[2,2], ceil_mode=1", (2, 2, 8, 6)),
    ("SAME_UPPER", 'kernel_shape=[3,2], strides=[2,1], auto_pad="SAME_UPPER"', (2, 2, 8, 5)),
    ("SAME_LOWER", 'kernel_shape=[3,2], strides=[2,1], auto_pad="SAME_LOWER"', (2, 2, 8, 5)),
    ("VALID", 'kernel_shape=[3,2], strides=[2,2], auto_pad="VALID"', (2, 2, 8, 5)),
    ("1-D", "kernel_shape=[3], strides=[2], pads=[1,0]", (2, 3, 9)),
    ("3-D", "kernel_shape=[2,3,2], strides=[2,2,1], pads=[0,1,0,0,1,1]", (2, 2, 4, 5, 4)),
]

POOL_SPECS = [
    *(pool(n, a, x, "MaxPool") for n, a, x in WINDOWS),
    pool("dilated", "kernel_shape=[2,3], dilations=[2,2], strides=[2,1]", (2, 2, 8, 7), "MaxPool"),
    pool("dilated, ceil", "kernel_shape=[2,2], dilations=[3,2], strides=[2,2], ceil_mode=1",
         (2, 2, 8, 7), "MaxPool"),
    pool("opset 7", "kernel_shape=[3,3], strides=[2,2], pads=[1,1,1,1]", (2, 3, 8, 7), "MaxPool",
         opset=7),
    *(pool(n, a, x, "AveragePool") for n, a, x in WINDOWS),
    *(pool(f"{n}, pads count", f"{a}, count_include_pad=1", x, "AveragePool")
      for n, a, x in WINDOWS),
    pool("dilated, opset 19", "kernel_shape=[2,3], dilations=[2,2], strides=[2,1], pads=[1,1,1,1]",
         (2, 2, 8, 7), "AveragePool", opset=19),
    pool("opset 19 ceil, pads count",
         "kernel_shape=[3,3], strides=[2,2], ceil_mode=1, pads=[1,1,1,1], count_include_pad=1",
         (2, 2, 8, 6), "AveragePool", opset=19),
    pool("opset 7", "kernel_shape=[3,3], strides=[2,2], pads=[1,1,1,1]", (2, 3, 8, 7),
         "AveragePool", opset=7),
    *(pool(f"rank {len(x)}", "", x, op_type)
      for op_type in ("GlobalAveragePool", "GlobalMaxPool")
      for x in ((2, 3, 5), (2, 3, 4, 5), (2, 3, 2, 3, 2))),
]  # fmt: skip


def resize(
    name: str,
    attributes: str,
    x: Sequence[int],
    scales: Sequence[float] | None = None,
    sizes: Sequence[int] | None = None,
    **options: object,
) -> GradientSpec:
    text = "y = Resize <%s> (x, , s)" if scales is not None else "y = Resize <%s> (x, , , s)"
    array = np.asarray(scales, np.float32) if scales is not None else np.asarray(sizes, np.int64)
    return GradientSpec(
        f"Resize: {name}",
        text % attributes,
        {"x": x},
        {"s": array},
        reference="ort",
        **options,  # type: ignore[arg-type]
    )


COORDINATE_MODES = (
    "half_pixel", "pytorch_half_pixel", "align_corners", "asymmetric", "half_pixel_symmetric"
)  # fmt: skip
NEAREST_MODES = ("round_prefer_floor", "round_prefer_ceil", "floor", "ceil")

RESIZE_SPECS = [
    *(resize(f"{mode} {coordinates} up", f'mode="{mode}", '
             f'coordinate_transformation_mode="{coordinates}"', (2, 2, 4, 5), [1, 1, 2.5, 1.7],
             opset=19)
      for mode in ("nearest", "linear") for coordinates in COORDINATE_MODES),
    *(resize(f"{mode} {coordinates} down", f'mode="{mode}", '
             f'coordinate_transformation_mode="{coordinates}"', (2, 2, 8, 9), [1, 1, 0.5, 0.7],
             opset=19)
      for mode in ("nearest", "linear") for coordinates in COORDINATE_MODES),
    *(resize(f"{mode} {coordinates} sizes", f'mode="{mode}", '
             f'coordinate_transformation_mode="{coordinates}"', (2, 2, 4, 5), sizes=[2, 2, 7, 3])
      for mode in ("nearest", "linear") for coordinates in COORDINATE_MODES[:4]),
    *(resize(f"nearest {coordinates} {rounding} {scale}",
             f'nearest_mode="{rounding}", coordinate_transformation_mode="{coordinates}"',
             (2, 2, 6, 4), [1, 1, scale, scale])
      for rounding in NEAREST_MODES for coordinates in ("half_pixel", "asymmetric")
      for scale in (1.5, 0.5, 2.0)),
    resize("nearest twice is a pooling backwards",
           'coordinate_transformation_mode="asymmetric", nearest_mode="floor"', (2, 3, 4, 5),
           [1, 1, 2, 3], expected_operators=["AveragePool"]),
    GradientSpec(
        "Resize: to the size of another tensor",
        'a = Shape <start=0, end=2> (x) b = Shape <start=2> (z) s = Concat <axis=0> (a, b) '
        'y = Resize <mode="linear"> (x, , , s)',
        {"x": (2, 2, 3, 4), "z": (2, 5, 6, 9)},
        wanted=["x"],
        reference="ort",
    ),
    resize("nearest to one", 'mode="nearest"', (2, 2, 4, 5), sizes=[2, 2, 1, 1]),
    resize("linear align_corners to one",
           'mode="linear", coordinate_transformation_mode="align_corners"', (2, 2, 4, 5),
           [1, 1, 0.25, 0.2]),
    resize("axes", 'mode="linear", axes=[2, 3]', (2, 2, 4, 5), [2, 1.5]),
    resize("negative axes, sizes", 'mode="linear", axes=[-1, -2]', (2, 2, 4, 5), sizes=[9, 8],
           opset=18),
    resize("linear 1-D", 'mode="linear"', (2, 2, 6), [1, 1, 2.5]),
    resize("nearest 1-D", 'mode="nearest"', (2, 2, 6), [1, 1, 2.5]),
    resize("linear 3-D", 'mode="linear"', (2, 2, 3, 4, 3), [1, 1, 2, 1.5, 2]),
    resize("nearest 3-D", 'mode="nearest"', (2, 2, 3, 4, 3), [1, 1, 2, 1.5, 2]),
    GradientSpec(
        "Upsample: opset 9 nearest", 'y = Upsample <mode="nearest"> (x, s)', {"x": (2, 2, 3, 4)},
        {"s": np.asarray([1, 1, 2, 2], np.float32)}, opset=9, reference="ort",
    ),
    GradientSpec(
        "Upsample: opset 9 linear", 'y = Upsample <mode="linear"> (x, s)', {"x": (2, 2, 3, 4)},
        {"s": np.asarray([1, 1, 2, 3], np.float32)}, opset=9, reference="ort",
    ),
    GradientSpec(
        "Upsample: opset 7", 'y = Upsample <mode="nearest", scales=[1.0, 1.0, 2.0, 2.0]> (x)',
        {"x": (2, 2, 3, 4)}, opset=7, reference="ort",
    ),
    GradientSpec(
        "Resize: opset 10", 'y = Resize <mode="nearest"> (x, s)', {"x": (2, 2, 3, 4)},
        {"s": np.asarray([1, 1, 2, 2], np.float32)}, opset=10, reference="ort",
    ),
    GradientSpec(
        "Resize: opset 11", 'y = Resize <mode="linear"> (x, r, s)', {"x": (2, 2, 3, 4)},
        {"r": np.zeros(0, np.float32), "s": np.asarray([1, 1, 2, 2], np.float32)}, opset=11,
        reference="ort",
    ),
    *(GradientSpec(
        f"DepthToSpace: {mode}", f'y = DepthToSpace <blocksize=2, mode="{mode}"> (x)',
        {"x": (2, 12, 2, 3)}) for mode in ("DCR", "CRD")),
    GradientSpec("SpaceToDepth", "y = SpaceToDepth <blocksize=2> (x)", {"x": (2, 3, 4, 6)}),
]  # fmt: skip


GRADIENT_SPECS = [
    *CONV_SPECS,
    *KERNEL_SPECS,
    *CONV_TRANSPOSE_SPECS,
    *POOL_SPECS,
    *RESIZE_SPECS,
]


@pytest.mark.parametrize("spec", GRADIENT_SPECS, ids=str)
def test_gradient_agrees_with_finite_differences(spec: GradientSpec) -> None:
    check_gradient(spec)


def test_max_pool_gives_tied_windows_gradient_to_the_first_element() -> None:
    spec = pool("ties", "kernel_shape=[2,2], strides=[2,2]", (1, 1, 4, 4), "MaxPool")
    gradient = gradient_at(spec, np.zeros((1, 1, 4, 4), dtype=np.float32))
    expected = np.zeros((4, 4))
    expected[::2, ::2] = 1
    np.testing.assert_array_equal(gradient[0, 0] != 0, expected != 0)


def gradient_at(spec: GradientSpec, x: NDArray[np.float32]) -> NDArray[np.float32]:
    """Gradient of a spec's random loss at a given input."""
    model = build_model(spec)
    _, backward = with_loss_and_gradients(spec, model, np.random.default_rng(0))
    session = open_session(backward)
    return np.asarray(session.run([gradient_name("x")], {"x": x})[0])


REFUSED_SPECS = [
    resize("cubic", 'mode="cubic"', (2, 2, 4, 5), [1, 1, 2, 2]),
    resize("antialiased", 'mode="linear", antialias=1', (2, 2, 4, 4), [1, 1, 0.5, 0.5]),
    resize("aspect ratio", 'keep_aspect_ratio_policy="not_larger"', (2, 2, 4, 4),
           sizes=[2, 2, 8, 6]),
    GradientSpec("Resize: crop", 'y = Resize <mode="linear", '
                 'coordinate_transformation_mode="tf_crop_and_resize"> (x, r, s)',
                 {"x": (2, 2, 4, 4)}, {"r": np.asarray([0, 0, 0.2, 0.2, 1, 1, 1, 1], np.float32),
                                       "s": np.asarray([1, 1, 2, 2], np.float32)}),
]  # fmt: skip


@pytest.mark.parametrize("spec", REFUSED_SPECS, ids=str)
def test_rule_refuses_what_it_cannot_differentiate(spec: GradientSpec) -> None:
    check_refusal(spec)
