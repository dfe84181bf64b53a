"""Starts the child: makes `graph_ops` importable without the environment that it is installed in.

The child runs this file by its path, in isolated mode. Putting the parent's site-packages on the
path would bring the parent's `onnxruntime` with it; only the folder of this package is shown, and
its `__init__`, which imports what the child lacks, is left out.
"""

import sys
import types
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[2]


def main() -> None:
    """Import the package by its folder, and hand over to the child's loop."""
    package = types.ModuleType(PACKAGE.name)
    package.__path__ = [str(PACKAGE)]
    sys.modules[PACKAGE.name] = package
    from graph_ops.engines.ort_training.child import serve

    serve(*(int(argument) for argument in sys.argv[1:4]))


if __name__ == "__main__":
    main()
