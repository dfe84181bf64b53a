"""Model files: bytes or a path in, a validated `onnx_ir` model, and bytes or a path out.

The way in, each step with its own refusal (`graph_ops.errors`):

    archive.py    a `.zip` of one `.onnx` and its data files is unpacked, within limits
    wire.py       the bytes are told apart: ONNX, cut short, or something else
    checks.py     versions, operator domains, tensors, `onnx.checker`
    external.py   external data files are found inside the model's folder and mapped
    source.py     the protobuf becomes a `SourceModel`: functions inlined, shapes inferred

The way out is `writing.py`: the source's own protobuf is the template, so that whatever surgery did
not touch comes back byte for byte; `storage.py` says where a weight's data goes. `shapes.py` serves
every working copy in between.
"""

from graph_ops.model.limits import ModelLimits
from graph_ops.model.shapes import infer_shapes, lift_constants
from graph_ops.model.source import SourceModel, load_model
from graph_ops.model.writing import model_bytes, write_model

__all__ = [
    "ModelLimits",
    "SourceModel",
    "infer_shapes",
    "lift_constants",
    "load_model",
    "model_bytes",
    "write_model",
]
