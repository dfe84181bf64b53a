"""How an image becomes a sample, as settings: `bundle.json`, the option `preprocessing`, presets.

Nothing here touches an image: the service reads options in a process that imports no numpy.
"""

from __future__ import annotations

import json
from typing import Annotated, Any, Final, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from graph_ops.errors import PreprocessingError

SETTINGS_NAME: Final = "bundle.json"
MAX_SIDE: Final = 16_384

Side = Annotated[int, Field(ge=1, le=MAX_SIDE)]
Size = Side | tuple[Side, Side]
Number = Annotated[float, Field(allow_inf_nan=False)]
Channels = Literal["rgb", "bgr", "gray"]
Layout = Literal["NCHW", "NHWC"]
Preset = Literal["imagenet", "cifar", "grayscale"]

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


class Preprocessing(BaseModel):
    """Settings of a bundle of images: what `bundle.json` says, or takes its place."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    preset: Preset | None = None
    """What the other settings lie over."""
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
    layout: Layout = "NCHW"
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

    @model_validator(mode="before")
    @classmethod
    def _lay_over_preset(cls, data: Any) -> Any:
        preset = data.get("preset") if isinstance(data, dict) else None
        # A name that is not known is left for the field to refuse.
        return PRESETS[preset] | data if isinstance(preset, str) and preset in PRESETS else data

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
    def settings(self) -> dict[str, Any]:
        """What differs from the defaults, JSON-ready: as one writes it into `bundle.json`."""
        return self.model_dump(mode="json", exclude_defaults=True)

    def sample_shape(self, height: int, width: int) -> tuple[int, ...]:
        """Shape of one sample, by its layout."""
        if self.layout == "NCHW":
            return (self.channel_count, height, width)
        return (height, width, self.channel_count)


def missing_settings(guess: dict[str, Any] | None) -> PreprocessingError:
    """The error of images without settings.

    Args:
        guess: Settings that the model suggests; None where it suggests none.
    """
    offer = "" if guess is None else f" A guess from the model's input: {json.dumps(guess)}"
    return PreprocessingError(
        f"The bundle holds images and no {SETTINGS_NAME}, which says how the network wants them. "
        f"Give the settings in the option `preprocessing`, or put {SETTINGS_NAME} there.{offer}",
        guess=guess,
    )


def parse_preprocessing(
    text: str | bytes | dict[str, Any], origin: str = SETTINGS_NAME
) -> Preprocessing:
    """Settings from JSON.

    Args:
        text: An object, as text or as it is.
        origin: Where it comes from, for messages.

    Raises:
        PreprocessingError: not valid JSON, or not valid settings; `details["problems"]` lists
            every problem as {field, problem}.
    """
    try:
        data = text if isinstance(text, dict) else json.loads(text)
        if not isinstance(data, dict):
            raise PreprocessingError(f"{origin} is not a JSON object.")
        return Preprocessing.model_validate(data)
    except ValidationError as error:
        problems = [
            {"field": ".".join(map(str, e["loc"])), "problem": e["msg"]} for e in error.errors()
        ]
        first = problems[0]
        raise PreprocessingError(
            f"{origin}: {first['field'] or 'settings'}: {first['problem']}.",
            problems=problems,
        ) from None
    except (ValueError, RecursionError, UnicodeError) as error:
        raise PreprocessingError(f"{origin} is not valid JSON: {error}.") from None
