"""A small convolutional network as a file, edited and zipped."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable

import onnx

from tests.support.models import random_weights, text_model, with_weights

CONV_TEXT = """
<ir_version: 8, opset_import: ["" : 13]>
g (float[N, 3, 8, 8] x, float[4, 3, 3, 3] w) => (float[N, 4, 6, 6] y) {
    [conv] c = Conv(x, w)
    y = Relu(c)
}
"""


def conv_model() -> bytes:
    return with_weights(text_model(CONV_TEXT), {"w": random_weights((4, 3, 3, 3), 0)})


def edited(edit: Callable[[onnx.ModelProto], object], model: bytes | None = None) -> bytes:
    proto = onnx.ModelProto.FromString(model or conv_model())
    edit(proto)
    return bytes(proto.SerializeToString())


def zipped(*members: tuple[str, bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        for name, data in members:
            archive.writestr(name, data)
    return buffer.getvalue()
