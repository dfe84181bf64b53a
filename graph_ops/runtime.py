"""ONNX Runtime sessions over working copies: providers, threads, errors in one place."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir

# ONNX Runtime's telemetry is on unless this is set before it is loaded; models stay private here.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

import onnxruntime as ort
from numpy.typing import NDArray

from graph_ops.errors import ModelRunError, OutOfMemoryError
from graph_ops.gpu import STANDARD_CUDA, machine_state
from graph_ops.providers import (
    CUDA,
    Accelerator,
    ProviderOptions,
    is_out_of_memory,
    provider_list,
    thread_count,
)

Array = NDArray[Any]
EXTERNAL_BYTES = 1 << 16
"""Tensors from this size on are handed to the runtime without a copy inside the protobuf, where
there are many bytes of them: so 2 GB is no limit, and loading is several times faster."""
EXTERNAL_FROM_BYTES = 1 << 24
"""How many bytes of them are many."""
PROTOBUF_LIMIT = (1 << 31) - (1 << 24)
"""Bytes that one protobuf holds, with room for the graph."""

ort.set_default_logger_severity(3)
if CUDA in ort.get_available_providers():
    ort.preload_dlls()  # finds the CUDA libraries that were installed as wheels


class Session:
    """A loaded model.

    Args:
        model: The model.
        keep_memory: Keep the arena between runs; False gives memory back for one-off sessions.
        keep_waiting: Let threads wait busily for the next run; False leaves the processors to
            others, for sessions whose runs take turns with other work.
        threads: Threads within an operator; None for as many as there are.
        plan_memory: Take memory for a run in one piece, laid out by what the first run has shown:
            for many runs of a graph whose shapes are all fixed.
        profile: Where ONNX Runtime writes the time of every operator, as the beginning of a file's
            path; None for nowhere. `end_profile` names the file.

    Raises:
        ModelRunError: ONNX Runtime refuses the model.
        OutOfMemoryError: the weights do not fit.
    """

    def __init__(
        self,
        model: ir.Model,
        *,
        keep_memory: bool = True,
        keep_waiting: bool = True,
        threads: int | None = None,
        plan_memory: bool = False,
        profile: Path | None = None,
    ) -> None:
        options = ort.SessionOptions()
        if profile is not None:
            options.enable_profiling = True
            options.profile_file_prefix = str(profile)
        options.intra_op_num_threads = threads or thread_count()
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        options.enable_mem_pattern = plan_memory
        options.enable_cpu_mem_arena = keep_memory
        if not keep_waiting:
            options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        payload, self._external = _payload(model, options)
        try:
            self._session = ort.InferenceSession(payload, options, providers=_providers())
        except Exception as error:
            raise _run_error("load", error) from None
        self._gives_back = plan_memory
        self.input_names = [i.name for i in self._session.get_inputs()]
        self.output_names = [o.name for o in self._session.get_outputs()]
        self.provider: str = self._session.get_providers()[0]

    def run(self, feeds: Mapping[str, Array], outputs: Sequence[str] | None = None) -> list[Array]:
        """Outputs for the feeds (all of them by default).

        Everything is bound: on a GPU one copy goes each way, on a CPU none.

        Raises:
            ModelRunError: ONNX Runtime fails.
            OutOfMemoryError: memory runs out.
        """
        names = list(outputs) if outputs is not None else self.output_names
        try:
            binding = self._session.io_binding()
            for name, array in feeds.items():
                if name in self.input_names:
                    # `ascontiguousarray` would make a vector of a scalar.
                    binding.bind_cpu_input(name, np.asarray(array, order="C"))
            distinct = list(dict.fromkeys(names))
            for name in distinct:
                binding.bind_output(name, "cpu")
            self._session.run_with_iobinding(binding, self._run_options())
            self._gives_back = False
            arrays = dict(zip(distinct, binding.copy_outputs_to_cpu(), strict=True))
        except Exception as error:
            raise _run_error("run", error) from None
        return [np.asarray(arrays[name]) for name in names]

    def _run_options(self) -> Any:
        """With `plan_memory`, what the first run took piece by piece is given back."""
        options = ort.RunOptions()
        if self._gives_back:
            options.add_run_config_entry("memory.enable_memory_arena_shrinkage", "cpu:0")
        return options

    def end_profile(self) -> Path:
        """Stop taking times; the file that holds them."""
        return Path(self._session.end_profiling())


def first_provider() -> str:
    """The execution provider that sessions are opened with here."""
    return _providers()[0][0]


def _providers() -> list[tuple[str, ProviderOptions]]:
    available = ort.get_available_providers()
    obstacle = machine_state().obstacle(STANDARD_CUDA) if CUDA in available else None
    return provider_list(available, Accelerator.from_environment(), obstacle)


def _payload(model: ir.Model, options: Any) -> tuple[bytes, list[Any]]:
    """Serialized graph; large tensors are passed beside it.

    Not those that nothing reads: ONNX Runtime has removed them when it looks for them.
    """
    large = {
        name: value.const_value
        for name, value in model.graph.initializers.items()
        if value.const_value is not None
        and value.const_value.nbytes >= EXTERNAL_BYTES
        and (value.uses() or value.is_graph_output())
    }
    if sum(t.nbytes for t in large.values()) < EXTERNAL_FROM_BYTES:
        return ir.to_proto(model).SerializeToString(), []
    kept: list[Any] = []
    stripped = model.clone()
    names, values = [], []
    for name, tensor in large.items():
        if tensor.dtype.itemsize is None or tensor.dtype == ir.DataType.BFLOAT16:
            continue
        array = np.ascontiguousarray(tensor.numpy())
        value = ort.OrtValue.ortvalue_from_numpy(array)
        kept += [array, value]
        names.append(name)
        values.append(value)
        stripped.graph.initializers[name].const_value = ir.ExternalTensor(
            "tensors",
            0,
            tensor.nbytes,
            tensor.dtype,
            shape=ir.Shape(array.shape),
            name=name,
            base_dir="",
        )
    options.add_external_initializers(names, values)
    return ir.to_proto(stripped).SerializeToString(), kept


def _run_error(action: str, error: Exception) -> ModelRunError:
    text = str(error).strip().splitlines()
    reason = text[-1][:500] if text else type(error).__name__
    if is_out_of_memory(str(error)):
        return OutOfMemoryError(f"Memory ran out while ONNX Runtime had to {action} the model.")
    return ModelRunError(f"ONNX Runtime cannot {action} the model: {reason}", reason=reason)
