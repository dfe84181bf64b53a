"""How an image becomes a sample: `bundle.json`, its presets, and a guess from a model's input.

The steps and their roundings are torchvision's (resize the shorter side, crop the middle, scale,
subtract, divide), so that a network trained there sees what it saw.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Annotated, Any, Final, Literal, Self

import numpy as np
from PIL import Image
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from graph_ops.bundle.arrays import Array, DType
from graph_ops.bundle.specs import InputSpec
from graph_ops.errors import PreprocessingError

SETTINGS_NAME: Final = "bundle.json"
MAX_SIDE: Final = 16_384

Side = Annotated[int, Field(ge=1, le=MAX_SIDE)]
Size = Side | tuple[Side, Side]
Number = Annotated[float, Field(allow_inf_nan=False)]
Channels = Literal["rgb", "bgr", "gray"]

PRESETS: Final[dict[str, dict[str, Any]]] = {
    "imagenet": {
        "resize": 256,
        "crop": 224,
        "mean": [0.485, 0.456, 0.406],
        "std": [0.229, 0.224, 0.225],
    },
    "cifar": {
        "resize": [32, 32],
        "mean": [0.4914, 0.4822, 0.4465],
        "std": [0.2470, 0.2435, 0.2616],
    },
    "grayscale": {"resize": [28, 28], "channels": "gray"},
}
_IMAGENET_SHARE = 224 / 256
_SMALL_SIDE = 64
"""Networks for images up to this side see them whole; for larger ones, the middle."""


class Preprocessing(BaseModel):
    """Settings of an image bundle, as they stand in `bundle.json`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    resize: Size | None = None
    """Shorter side, or [height, width]; null leaves images as they are."""
    crop: Size | None = None
    """Side of a square, or [height, width], from the middle; zeros fill what an image lacks."""
    interpolation: Literal["nearest", "bilinear", "bicubic", "box", "hamming", "lanczos"] = (
        "bilinear"
    )
    """Filter of the resize; it smooths when it shrinks."""
    channels: Channels = "rgb"
    """Order of the channels; `gray` makes one."""
    layout: Literal["NCHW", "NHWC"] = "NCHW"
    """Where the channels stand in the model's input."""
    scale: Number = 1 / 255
    """What pixel values 0 to 255 are multiplied by."""
    mean: tuple[Number, ...] = ()
    """Subtracted after scaling: nothing, one number, or one per channel."""
    std: tuple[Number, ...] = ()
    """Divided by after that, in the same form."""
    dtype: Literal["float32", "float16", "float64", "uint8", "int8", "int32"] = "float32"
    """Element type of the samples; integers are rounded."""
    classes: tuple[str, ...] | None = None
    """Class names in the order of their ids; null is alphabetical."""
    input: str | None = None
    """Name of the model's input; null is its only one."""
    max_corrupt: Annotated[float, Field(ge=0, le=1)] = 0.05
    """Share of images that may be unreadable and are skipped."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        for name in ("mean", "std"):
            if len(getattr(self, name)) not in (0, 1, self.channel_count):
                raise ValueError(f"{name} takes 0, 1 or {self.channel_count} numbers")
        if 0.0 in self.std:
            raise ValueError("std may not be 0")
        if self.classes is not None and len(set(self.classes)) < len(self.classes):
            raise ValueError("classes names one twice")
        return self

    @property
    def channel_count(self) -> int:
        """Channels of a sample."""
        return 1 if self.channels == "gray" else 3

    @property
    def size(self) -> tuple[int, int] | None:
        """[height, width] of every sample; None where it depends on the image."""
        last = self.crop if self.crop is not None else self.resize
        if isinstance(last, tuple):
            return last
        return (last, last) if self.crop is not None and last is not None else None

    @property
    def sample_dtype(self) -> DType:
        """Element type of the samples."""
        return np.dtype(self.dtype)

    def pixels(self, image: Image.Image) -> Array:
        """An opened image as uint8 [height, width, channels], resized and cropped."""
        converted = image.convert("L" if self.channels == "gray" else "RGB")
        if self.resize is not None:
            filter_ = Image.Resampling[self.interpolation.upper()]
            converted = converted.resize(_resized(converted.size, self.resize), filter_)
        if self.crop is not None:
            converted = _middle(converted, self.crop)
        array = np.asarray(converted, dtype=np.uint8)
        array = array.reshape(*array.shape[:2], self.channel_count)
        return array[..., ::-1] if self.channels == "bgr" else array

    def samples(self, pixels: Array) -> Array:
        """Samples from uint8 pixels [n, height, width, channels], in the model's layout."""
        wide = np.float64 if self.dtype == "float64" else np.float32
        values: Array = np.multiply(pixels, self.scale, dtype=wide)
        if self.mean:
            values -= np.asarray(self.mean, dtype=wide)
        if self.std:
            values /= np.asarray(self.std, dtype=wide)
        if self.sample_dtype.kind in "iu":
            limits = np.iinfo(self.sample_dtype)
            values = np.clip(np.rint(values), limits.min, limits.max)
        if self.layout == "NCHW":
            values = values.transpose(0, 3, 1, 2)
        return np.ascontiguousarray(values, dtype=self.sample_dtype)

    def shape(self, height: int, width: int) -> tuple[int, ...]:
        """Shape of one sample, by its layout."""
        if self.layout == "NCHW":
            return (self.channel_count, height, width)
        return (height, width, self.channel_count)


def parse_preprocessing(text: str | bytes | dict[str, Any]) -> Preprocessing:
    """Settings from JSON; `preset` names what the others lie over.

    Raises:
        PreprocessingError: not valid JSON, or not valid settings.
    """
    try:
        data = text if isinstance(text, dict) else json.loads(text)
        if not isinstance(data, dict):
            raise PreprocessingError(f"{SETTINGS_NAME} is not a JSON object.")
        data = dict(data)
        preset = data.pop("preset", None)
        if preset is not None:
            if preset not in PRESETS:
                raise PreprocessingError(
                    f"{SETTINGS_NAME}: there is no preset {preset!r}; known: {', '.join(PRESETS)}.",
                    expected=list(PRESETS),
                )
            data = PRESETS[preset] | data
        return Preprocessing.model_validate(data)
    except ValidationError as error:
        problems = [
            {"field": ".".join(map(str, e["loc"])), "problem": e["msg"]} for e in error.errors()
        ]
        first = problems[0]
        raise PreprocessingError(
            f"{SETTINGS_NAME}: {first['field'] or 'settings'}: {first['problem']}.",
            problems=problems,
        ) from None
    except (ValueError, RecursionError, UnicodeError) as error:
        raise PreprocessingError(f"{SETTINGS_NAME} is not valid JSON: {error}.") from None


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


def _layout_of(spec: InputSpec) -> Literal["NCHW", "NHWC"] | None:
    if len(spec.dims) != 4:
        return None
    if spec.dims[1] in (1, 3):
        return "NCHW"
    return "NHWC" if spec.dims[3] in (1, 3) else None


def _resized(size: tuple[int, int], wanted: Size) -> tuple[int, int]:
    """(width, height) of the resized image."""
    if isinstance(wanted, tuple):
        return wanted[1], wanted[0]
    width, height = size
    if width <= height:
        return wanted, min(MAX_SIDE, int(wanted * height / width))
    return min(MAX_SIDE, int(wanted * width / height)), wanted


def _middle(image: Image.Image, wanted: Size) -> Image.Image:
    height, width = wanted if isinstance(wanted, tuple) else (wanted, wanted)
    left = _offset(image.width, width)
    top = _offset(image.height, height)
    return image.crop((left, top, left + width, top + height))


def _offset(extent: int, wanted: int) -> int:
    """Where the middle begins; negative where zeros have to fill it up."""
    return round((extent - wanted) / 2) if extent >= wanted else -math.floor((wanted - extent) / 2)
