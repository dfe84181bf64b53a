"""A metric of the user's own: an ONNX model from outputs and targets to one number per sample.

Its inputs are told by their names: `output` (the judged output of the model that is measured),
`original` (the same of the original model) and `targets` (the bundle's, as stored); it takes those
that it needs, and gives one output, [N] or [N, 1]. It is arithmetic and no network, and it comes
from outside: it is small, has standard operators only, no branches or loops, and no data files.
"""

from __future__ import annotations

import base64
import binascii

import numpy as np
import onnx
import onnx_ir as ir
from numpy.typing import NDArray

from graph_ops.errors import ModelError, OptionsError
from graph_ops.model.checks import check_tensors, check_versions, check_with_onnx
from graph_ops.model.protos import iter_nodes, iter_tensors
from graph_ops.model.wire import parse_model
from graph_ops.runtime import Array, Session

INPUTS = frozenset({"output", "original", "targets"})
MAX_BYTES = 40_000
"""Larger ones are no arithmetic; options have to fit in one text part as well."""
MAX_NODES = 200


class CustomMetric:
    """A checked metric model.

    Args:
        text: The ONNX file in base64.

    Raises:
        OptionsError: it is not what a metric has to be.
    """

    def __init__(self, text: str) -> None:
        model = _checked(text)
        self._dtypes = {
            value.name: ir.DataType(value.type.tensor_type.elem_type).numpy()
            for value in model.graph.input
            if value.name in INPUTS
        }
        try:
            self._session = Session(ir.from_proto(model), keep_memory=False)
        except ModelError as error:
            raise _refusal(error.message) from None

    def values(self, found: Array, original: Array, targets: Array | None) -> NDArray[np.float64]:
        """[N] values of the samples of a batch.

        Raises:
            OptionsError: the bundle lacks targets, or the model does not give finite [N].
        """
        given = {"output": found, "original": original, "targets": targets}
        feeds = {}
        for name, dtype in self._dtypes.items():
            array = given[name]
            if array is None:
                raise _refusal("it reads 'targets', and the bundle has none")
            feeds[name] = array.astype(dtype)
        try:
            values = self._session.run(feeds)[0]
        except ModelError as error:
            raise _refusal(error.message) from None
        rows = found.shape[0]
        if values.shape not in ((rows,), (rows, 1)):
            raise _refusal(f"for {rows} samples it gives the shape {list(values.shape)}")
        numbers = values.reshape(rows).astype(np.float64)
        if not np.isfinite(numbers).all():
            raise _refusal("it gives values that are not finite")
        return numbers


def _checked(text: str) -> onnx.ModelProto:
    try:
        content = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise _refusal("it is not base64") from None
    if len(content) > MAX_BYTES:
        raise _refusal(f"it has {len(content)} bytes; at most {MAX_BYTES} are taken")
    try:
        model = parse_model(content)
        check_versions(model)
        check_tensors(model)
        _check_contents(model)
        check_with_onnx(model)
    except ModelError as error:
        raise _refusal(error.message) from None
    return model


def _check_contents(model: onnx.ModelProto) -> None:
    nodes = list(iter_nodes(model))
    if model.functions or len(nodes) > MAX_NODES or len(nodes) != len(model.graph.node):
        raise _refusal(
            f"functions, branches and loops are not taken, nor more than {MAX_NODES} nodes"
        )
    foreign = sorted({n.op_type for n in nodes if n.domain not in ("", "ai.onnx")})
    if foreign:
        raise _refusal(f"only standard operators are taken, not {', '.join(foreign)}")
    if any(t.data_location == onnx.TensorProto.EXTERNAL for _, t in iter_tensors(model)):
        raise _refusal("it keeps data outside the file")
    stored = {t.name for t in model.graph.initializer}
    names = {v.name for v in model.graph.input} - stored
    if not names or not names <= INPUTS:
        wanted = ", ".join(sorted(INPUTS))
        raise _refusal(f"its inputs are {sorted(names)}; they have to be among {wanted}")
    if len(model.graph.output) != 1:
        raise _refusal(f"it has {len(model.graph.output)} outputs; it has to have one")


def _refusal(why: str) -> OptionsError:
    return OptionsError(
        f"Option 'metric_model': the metric cannot be used: {why.rstrip('.')}.",
        field="metric_model",
    )
