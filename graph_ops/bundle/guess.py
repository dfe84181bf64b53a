"""Settings that a model's input suggests: an offer for images that come without any."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pydantic import ValidationError

from graph_ops.bundle.specs import InputSpec
from graph_ops.preprocessing import PRESETS, Layout, Preprocessing

_IMAGENET_SHARE = 224 / 256
_SMALL_SIDE = 64
"""Networks for images up to this side see them whole; for larger ones, the middle."""


def guess_preprocessing(inputs: Sequence[InputSpec]) -> Preprocessing | None:
    """What a network with these inputs was most likely trained on; None where nothing says so.

    It is an offer: nothing uses it unless a person has said so.
    """
    images = [spec for spec in inputs if _layout_of(spec) is not None]
    if len(images) != 1:
        return None
    spec = images[0]
    layout = _layout_of(spec)
    channels, height, width = spec.dims[1:] if layout == "NCHW" else (spec.dims[3], *spec.dims[1:3])
    size = (height or 224, width or 224)
    settings: dict[str, Any] = {"layout": layout, "input": spec.name, "dtype": str(spec.dtype)}
    if channels == 1:
        settings |= {"channels": "gray", "resize": size}
    elif max(size) <= _SMALL_SIDE:
        settings |= PRESETS["cifar"] | {"resize": size}
    else:
        shorter = round(min(size) / _IMAGENET_SHARE)
        settings |= PRESETS["imagenet"] | {"resize": shorter, "crop": size}
    if spec.dtype.kind in "iu":
        settings |= {"scale": 1.0, "mean": (), "std": ()}
    try:
        return Preprocessing.model_validate(settings)
    except ValidationError:
        return None  # an element type or a size that images do not have


def _layout_of(spec: InputSpec) -> Layout | None:
    if len(spec.dims) != 4:
        return None
    if spec.dims[1] in (1, 3):
        return "NCHW"
    return "NHWC" if spec.dims[3] in (1, 3) else None
