"""The loop of a peer's process: a request a line, an answer a line.

It runs in the peer's environment and imports nothing of this repository.
"""

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np


def read_bundle(folder: Path) -> tuple[str, np.ndarray, np.ndarray]:
    """Name of the model's input, images, labels."""
    with np.load(folder / "bundle.npz") as arrays:
        name = next(n for n in arrays.files if n != "labels")
        return name, arrays[name], arrays["labels"].astype(np.int64)


def serve(open_network: Callable[[Path, str, str, str], Callable[[float, Path], None]]) -> None:
    """Open the network with the program's arguments, then prune it as often as is asked.

    What the peer prints goes to the log, answers alone to standard output.
    """
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    folder, criterion, spread, output = sys.argv[1:]
    problem, prune = "", None
    try:
        prune = open_network(Path(folder), criterion, spread, output)
    except Exception as error:
        problem = f"{type(error).__name__}: {error}"
    for line in sys.stdin:
        request = json.loads(line)
        answer = problem
        if prune is not None:
            try:
                prune(request["ratio"], Path(request["path"]))
            except Exception as error:
                answer = f"{type(error).__name__}: {error}"
        print(json.dumps({"error": answer}), file=replies, flush=True)
