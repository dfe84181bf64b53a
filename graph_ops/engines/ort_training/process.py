"""The parent's side of the training child: start it, ask it, and end it whatever happens."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import tempfile
import time
import weakref
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

from graph_ops.engines.ort_training.environment import (
    ENGINE,
    REQUIRED_VERSION,
    answer_timeout_s,
    training_python,
)
from graph_ops.engines.ort_training.wire import Array, Message, SharedMemory, decode, encode
from graph_ops.errors import (
    EngineProcessError,
    EngineUnavailableError,
    EngineUnsupportedError,
    ModelRunError,
    OutOfMemoryError,
    PrunerError,
)

BOOTSTRAP = Path(__file__).with_name("bootstrap.py")
_GRACE_S = 5.0
_LOG_BYTES = 4000


class TrainingProcess:
    """A running child.

    It ends when it is closed, when this object is collected, and when this process ends in any
    way. It shares no file with a name.

    Raises:
        EngineUnavailableError: no environment, no training runtime in it, or another version.
        EngineProcessError: the child does not come up.
    """

    def __init__(self) -> None:
        python = training_python()
        self._timeout_s = answer_timeout_s()
        self._inbox, self._outbox = SharedMemory(), SharedMemory()
        # Closed when the child has it: an anonymous file, not a pipe that could fill up.
        self._log: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as self
        answers, child_answers = os.pipe()
        descriptors = (self._inbox.descriptor, self._outbox.descriptor, child_answers)
        try:
            self._process = subprocess.Popen(
                [str(python), "-I", str(BOOTSTRAP), *(str(d) for d in descriptors)],
                stdin=subprocess.PIPE,
                stdout=self._log,
                stderr=self._log,
                pass_fds=descriptors,
                env=_child_environment(),
            )
        except OSError as error:
            os.close(answers)
            self._inbox.close()
            self._outbox.close()
            self._log.close()
            raise EngineUnavailableError(
                f"Engine {ENGINE}: {str(python)!r} cannot be started: {error.strerror}.",
                engine=ENGINE,
                reason="environment_broken",
                python=str(python),
            ) from None
        finally:
            os.close(child_answers)
        self._answers = open(answers, "rb", buffering=0)  # noqa: SIM115 - lives as long as self
        self._buffer = b""
        self.close = weakref.finalize(
            self,
            _end,
            self._process,
            self._answers,
            self._log,
            self._inbox,
            self._outbox,
        )
        """End the child, now or at the latest when the interpreter exits."""
        try:
            self.description = self._describe(str(python))
        except BaseException:
            self.close()
            raise

    @property
    def is_open(self) -> bool:
        """Whether the child can be asked."""
        return self.close.alive

    def _describe(self, python: str) -> Message:
        found = self.ask({"action": "describe"})
        version = found["version"]
        if version.split("+")[0] != REQUIRED_VERSION:
            raise EngineUnavailableError(
                f"Engine {ENGINE} needs onnxruntime-training {REQUIRED_VERSION}, and {python!r} "
                f"has onnxruntime {version}.",
                engine=ENGINE,
                reason="wrong_version",
                expected=REQUIRED_VERSION,
                found=version,
            )
        return found

    def ask(self, request: Message, arrays: Mapping[str, Array] | None = None) -> Message:
        """Send a request and wait for its answer.

        Args:
            request: What to do.
            arrays: Written to shared memory first.

        Raises:
            EngineProcessError: the child ended, or did not answer in time (it is ended then).
            EngineUnsupportedError: the runtime cannot differentiate the graph.
            OutOfMemoryError: memory ran out; the child can still be asked.
            ModelRunError: the runtime failed; the child can still be asked.
        """
        if not self.is_open:
            raise EngineProcessError(f"The process of engine {ENGINE} is closed.", engine=ENGINE)
        entries = self._inbox.put(arrays) if arrays else []
        stdin = self._process.stdin
        assert stdin is not None
        try:
            stdin.write(encode({**request, "arrays": entries}))
            stdin.flush()
            answer = decode(self._read_line(request["action"]))
        except BrokenPipeError:
            raise self._ended() from None
        if "error" in answer:
            raise _error_of(answer["error"])
        return answer

    def arrays(self, answer: Message) -> dict[str, Array]:
        """Arrays of an answer, as views: valid until the next request."""
        return self._outbox.get(answer["arrays"])

    def _read_line(self, action: str) -> bytes:
        deadline = time.monotonic() + self._timeout_s
        while b"\n" not in self._buffer:
            remaining = deadline - time.monotonic()
            ready = select.select([self._answers], [], [], max(remaining, 0))[0]
            if not ready:
                self.close()
                raise EngineProcessError(
                    f"Engine {ENGINE} did not answer within {self._timeout_s:g} seconds "
                    f"({action}) and was ended.",
                    engine=ENGINE,
                    reason="timeout",
                    limit_s=self._timeout_s,
                )
            received = self._answers.read(65536)
            if not received:
                raise self._ended()
            self._buffer += received
        line, self._buffer = self._buffer.split(b"\n", 1)
        return line

    def _ended(self) -> EngineProcessError:
        """The error of a child that is gone, with the last words it had."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(_GRACE_S)
        status = self._process.returncode
        words = _last_words(self._log)
        self.close()
        how = f"with status {status}"
        if status is not None and status < 0:
            how = f"by signal {signal.Signals(-status).name}"
        return EngineProcessError(
            f"The process of engine {ENGINE} ended {how}" + (f": {words}" if words else "."),
            engine=ENGINE,
            reason="ended",
            status=status,
        )


def _child_environment() -> dict[str, str]:
    """This environment without what would change which modules a Python finds."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
    return {**environment, "ORT_DISABLE_TELEMETRY": "1"}


def _error_of(error: Mapping[str, Any]) -> PrunerError:
    kind, words = str(error["kind"]), str(error["message"])
    if kind == "out_of_memory":
        return OutOfMemoryError(f"Engine {ENGINE} ran out of memory: {words}", reason=words)
    if kind == "unavailable":
        return EngineUnavailableError(
            f"The environment of engine {ENGINE} has no usable onnxruntime-training "
            f"{REQUIRED_VERSION}: {words}",
            engine=ENGINE,
            reason="library_missing",
        )
    if kind == "unsupported":
        return EngineUnsupportedError(
            f"Engine {ENGINE} cannot build the gradient graph: {words}. Use the engine "
            "'standard', or 'auto'.",
            engine=ENGINE,
            operators={},
            reason=words,
        )
    return ModelRunError(f"Engine {ENGINE} cannot run the model: {words}", reason=words)


def _last_words(log: IO[bytes]) -> str:
    size = os.fstat(log.fileno()).st_size
    tail = os.pread(log.fileno(), _LOG_BYTES, max(size - _LOG_BYTES, 0))
    lines = tail.decode(errors="replace").strip().splitlines()
    return lines[-1][:500] if lines else ""


def _end(
    process: subprocess.Popen[bytes],
    answers: IO[bytes],
    log: IO[bytes],
    inbox: SharedMemory,
    outbox: SharedMemory,
) -> None:
    """Close standard input, which ends the child at once; kill it if it is stopped or stuck."""
    assert process.stdin is not None
    with contextlib.suppress(OSError):
        process.stdin.close()
    try:
        process.wait(1.0)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    answers.close()
    log.close()
    inbox.close()
    outbox.close()
