"""The engine `auto`: `ort-training` where it has a GPU, `standard` everywhere else."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeVar

from graph_ops.engines.base import ActivationSession, Engine, GradientSession, ScoringGraph
from graph_ops.engines.ort_training.engine import OrtTrainingEngine
from graph_ops.engines.standard import StandardEngine
from graph_ops.errors import EngineError
from graph_ops.gpu import TRAINING_CUDA, GpuState, gpu_state

_Session = TypeVar("_Session")


class AutoEngine:
    """Chooses when the first graph is opened, and goes over to `standard` where it has to.

    Args:
        state: Asks for the GPU.
        training: Makes the engine that is preferred on one.
    """

    def __init__(
        self,
        state: Callable[[], GpuState] = gpu_state,
        training: Callable[[], OrtTrainingEngine] = OrtTrainingEngine,
    ) -> None:
        self._standard = StandardEngine()
        self._state = state
        self._make_training = training
        self._chosen: Engine | None = None
        self.why = "auto: not chosen yet"
        """Why it is the engine it is, for the report."""

    def barriers(self, graph: ScoringGraph) -> Mapping[str, str]:
        """Taps that cannot be scored, and why; the same for every engine."""
        return self._standard.barriers(graph)

    def open(self, graph: ScoringGraph) -> GradientSession:
        """Open the graph with the engine of choice, or with `standard` if that refuses."""
        return self._first_that_can(lambda engine: engine.open(graph))

    def open_activations(self, graph: ScoringGraph) -> ActivationSession:
        """Open the graph for activations with the engine of choice, or with `standard`."""
        return self._first_that_can(lambda engine: engine.open_activations(graph))

    def close(self) -> None:
        """Close the engine of choice."""
        if self._chosen is not None:
            self._chosen.close()

    def _first_that_can(self, opened_by: Callable[[Engine], _Session]) -> _Session:
        engine = self._chosen or self._choose()
        try:
            return opened_by(engine)
        except EngineError as error:
            if engine is self._standard:
                raise
            engine.close()
            self._use_standard(error.message)
            return opened_by(self._standard)

    def _choose(self) -> Engine:
        obstacle = self._state().obstacle(TRAINING_CUDA)
        if obstacle is not None:
            return self._use_standard(f"{obstacle}, and ort-training gains nothing without")
        training = self._make_training()
        try:
            cuda = training.describe()["cuda"] or {"works": False, "reason": "it has no CUDA"}
        except EngineError as error:
            return self._use_standard(error.message)
        if not cuda["works"]:
            training.close()
            return self._use_standard(f"ort-training cannot use the GPU: {cuda['reason']}")
        self.why = "auto: ort-training can use the GPU"
        self._chosen = training
        return training

    def _use_standard(self, reason: str) -> Engine:
        self.why = f"auto: {reason}"
        self._chosen = self._standard
        return self._standard
