"""The child process: opens gradient graphs and runs batches, in the training runtime's environment.

Requests come as lines on standard input, answers go out on a pipe of their own, arrays lie in
shared memory both ways. Whatever native code prints goes to standard error. When the parent is
gone, standard input ends, and a thread that waits for that ends the process, whatever it is doing.
"""

from __future__ import annotations

import os
import platform
import queue
import sys
import threading
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from graph_ops.engines.ort_training import cuda_libraries
from graph_ops.engines.ort_training.wire import Array, Message, SharedMemory, decode, encode
from graph_ops.gpu import TRAINING_CUDA, machine_state
from graph_ops.providers import (
    CUDA,
    Accelerator,
    device_of,
    is_out_of_memory,
    provider_list,
    thread_count,
)

EXTERNAL_BYTES = 1 << 20
"""Weights from this size on are handed to the session without a copy inside the protobuf."""

_MESSAGE_CHARACTERS = 300
"""The end of a runtime's message has its reason; the beginning has C++ signatures."""


class RequestError(Exception):
    """A request that cannot be done; `kind` says which error the parent raises."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


def serve(inbox: int, outbox: int, answers: int) -> None:
    """Answer requests until standard input ends.

    Args:
        inbox: Descriptor of the memory that the parent writes.
        outbox: Descriptor of the memory that this process writes.
        answers: Descriptor of the pipe for answers.
    """
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    requests: queue.SimpleQueue[Message] = queue.SimpleQueue()
    threading.Thread(target=_read_requests, args=(requests,), daemon=True).start()
    child = _Child(SharedMemory(inbox), SharedMemory(outbox))
    actions: Mapping[str, Callable[[Message], Message]] = {
        "describe": child.describe,
        "open": child.open,
        "run": child.run,
    }
    while True:
        request = requests.get()
        try:
            answer = actions[request["action"]](request)
        except RequestError as error:
            answer = {"error": {"kind": error.kind, "message": str(error)}}
        except MemoryError:
            answer = {"error": {"kind": "out_of_memory", "message": "Memory ran out."}}
        except Exception as error:
            text = _last_line(error)
            kind = "out_of_memory" if is_out_of_memory(text) else "failed"
            answer = {"error": {"kind": kind, "message": text}}
        os.write(answers, encode(answer))


def _read_requests(requests: queue.SimpleQueue[Message]) -> None:
    for line in sys.stdin.buffer:
        requests.put(decode(line))
    os._exit(0)


def _last_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[-1][-_MESSAGE_CHARACTERS:] if lines else type(error).__name__


class _Child:
    def __init__(self, inbox: SharedMemory, outbox: SharedMemory) -> None:
        self._inbox = inbox
        self._outbox = outbox
        self._session: Any = None
        self._kept: list[Any] = []
        self._library_failures = cuda_libraries.preload()

    def describe(self, request: Message) -> Message:
        """Which runtime this is and what it can do here."""
        try:
            import onnx_ir  # noqa: F401 - needed once a graph is opened
            import onnxruntime as ort
            from onnxruntime.capi._pybind_state import GradientGraphBuilder
        except ImportError as error:
            raise RequestError("unavailable", f"it cannot be imported: {error}") from None
        providers = ort.get_available_providers()
        found: Message = {
            "version": ort.__version__,
            "python": platform.python_version(),
            "providers": providers,
            "has_gradients": GradientGraphBuilder is not None,
            "cuda": None,
        }
        if CUDA in providers:
            obstacle = machine_state().obstacle(TRAINING_CUDA)
            works = {"works": False, "reason": obstacle}
            found["cuda"] = self._cuda_state(ort) if obstacle is None else works
        return found

    def _cuda_state(self, ort: Any) -> Message:
        """Whether a session on the GPU really comes up: the provider may be listed in vain."""
        import onnx_ir as ir

        x = ir.Value(name="x", shape=ir.Shape([1]), type=ir.TensorType(ir.DataType.FLOAT))
        node = ir.node("Identity", [x])
        node.outputs[0].name = "y"
        node.outputs[0].type, node.outputs[0].shape = x.type, x.shape
        graph = ir.Graph([x], [node.outputs[0]], nodes=[node], opset_imports={"": 18}, name="g")
        payload = ir.to_proto(ir.Model(graph, ir_version=9)).SerializeToString()
        wanted = provider_list([CUDA], Accelerator.from_environment())[:1]
        try:
            session = ort.InferenceSession(payload, providers=wanted)
        except Exception as error:
            return {"works": False, "reason": _last_line(error)}
        if session.get_providers()[0] == CUDA:
            return {"works": True, "reason": None}
        failures = "; ".join(self._library_failures[:3])
        return {"works": False, "reason": failures or "the CUDA provider does not start"}

    def open(self, request: Message) -> Message:
        """Build the gradient graph and load it."""
        import onnx
        import onnx_ir as ir
        import onnxruntime as ort
        from onnxruntime.capi._pybind_state import GradientGraphBuilder

        from graph_ops.engines.ort_training.gradients import append_gradients
        from graph_ops.engines.sums import SummedTensor, append_sums, set_outputs
        from graph_ops.engines.tape import BackwardTape

        ort.set_default_logger_severity(3)
        self._session, self._kept = None, []
        arrays = self._inbox.get(request["arrays"])
        payload = arrays.pop("model")
        model = ir.from_proto(onnx.load_from_string(payload.tobytes()))
        products = [SummedTensor(*entry) for entry in request["products"]]
        sums = [SummedTensor(*entry) for entry in request["gradients"]]
        handed_out = request["handed_out"]
        wanted = list(dict.fromkeys([t.gradient for t in (*products, *sums)] + handed_out))
        options = ort.SessionOptions()
        options.intra_op_num_threads = thread_count()
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        options.enable_mem_pattern = False
        try:
            built, gradients = append_gradients(
                model, wanted, request["stops"], GradientGraphBuilder, options
            )
        except Exception as error:
            raise RequestError("unsupported", _last_line(error)) from None
        graph = built.graph
        values = {str(v.name): v for v in graph.inputs}
        values |= {str(o.name): o for node in graph for o in node.outputs}
        outputs = [values[request["loss"]]]
        if products:
            tape = BackwardTape(graph, {}, frozenset(), graph.opset_imports[""])
            outputs += append_sums(tape, products, sums, values.__getitem__, gradients)
        outputs += [values[name] for name in handed_out]
        outputs += [gradients[name] for name in handed_out]
        set_outputs(built, outputs)
        self._attach_weights(built, arrays, options)
        provider = self._load(ort, ir.to_proto(built).SerializeToString(), options)
        version = ort.__version__
        return {"version": version, "provider": provider, "device": device_of(provider)}

    def _load(self, ort: Any, payload: bytes, options: Any) -> str:
        wanted = provider_list(
            ort.get_available_providers(),
            Accelerator.from_environment(),
            machine_state().obstacle(TRAINING_CUDA),
        )
        try:
            self._session = ort.InferenceSession(payload, options, providers=wanted)
        except Exception as error:
            if is_out_of_memory(str(error)):
                raise
            raise RequestError("unsupported", _last_line(error)) from None
        return str(self._session.get_providers()[0])

    def _attach_weights(self, model: Any, arrays: Mapping[str, Array], options: Any) -> None:
        """Turn the inputs that stand for large weights into external initializers.

        The arrays are copied out of shared memory, which the next request overwrites.
        """
        import onnx_ir as ir
        import onnxruntime as ort

        names, values = [], []
        for value in [v for v in model.graph.inputs if v.name in arrays]:
            name = str(value.name)
            array = np.array(arrays[name])
            model.graph.inputs.remove(value)
            value.const_value = ir.ExternalTensor(
                "weights",
                0,
                array.nbytes,
                ir.DataType.from_numpy(array.dtype),
                shape=ir.Shape(array.shape),
                name=name,
                base_dir="",
            )
            model.graph.initializers.add(value)
            held = ort.OrtValue.ortvalue_from_numpy(array)
            self._kept += [array, held]
            names.append(name)
            values.append(held)
        if names:
            options.add_external_initializers(names, values)

    def run(self, request: Message) -> Message:
        """One batch: arrays in, arrays out."""
        if self._session is None:
            raise RequestError("failed", "No graph is open.")
        feeds = self._inbox.get(request["arrays"])
        names = {i.name for i in self._session.get_inputs()}
        binding = self._session.io_binding()
        for name, array in feeds.items():
            if name in names:
                binding.bind_cpu_input(name, array)
        outputs = [o.name for o in self._session.get_outputs()]
        for name in outputs:
            binding.bind_output(name, "cpu")
        self._session.run_with_iobinding(binding)
        results = dict(zip(outputs, binding.copy_outputs_to_cpu(), strict=True))
        return {"arrays": self._outbox.put(results)}
