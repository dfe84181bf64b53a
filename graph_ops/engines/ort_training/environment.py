"""Where the training runtime lives, and whether it works here.

`onnxruntime` and `onnxruntime-training` install the same folder, so the training runtime has an
environment of its own: the interpreter that `ORT_TRAINING_PYTHON` names, or the one of the
environment beside this one that `make setup` and the images create (`.venv` has
`.venv-training`).
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path

from graph_ops.errors import EngineUnavailableError

PYTHON_VARIABLE = "ORT_TRAINING_PYTHON"
TIMEOUT_VARIABLE = "ORT_TRAINING_TIMEOUT_S"
REQUIRED_VERSION = "1.19.2"
DEFAULT_TIMEOUT_S = 600.0
ENGINE = "ort-training"


def training_python(environment: Mapping[str, str] = os.environ) -> Path:
    """The interpreter of the training environment.

    Raises:
        EngineUnavailableError: there is none.
    """
    named = environment.get(PYTHON_VARIABLE)
    python = Path(named) if named else Path(f"{sys.prefix}-training", "bin", "python")
    if os.access(python, os.X_OK) and not python.is_dir():
        return python
    source = f"{PYTHON_VARIABLE} names" if named else "it would be"
    raise EngineUnavailableError(
        f"Engine {ENGINE} has no environment: {source} {str(python)!r}, which is no program. Run "
        f"`make setup`, or let {PYTHON_VARIABLE} name the Python of an environment with "
        f"onnxruntime-training {REQUIRED_VERSION}.",
        engine=ENGINE,
        reason="environment_missing",
        python=str(python),
    )


def answer_timeout_s(environment: Mapping[str, str] = os.environ) -> float:
    """How long an answer may take: `ORT_TRAINING_TIMEOUT_S`, or ten minutes."""
    return float(environment.get(TIMEOUT_VARIABLE) or DEFAULT_TIMEOUT_S)
