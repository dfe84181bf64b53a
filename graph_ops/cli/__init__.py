"""The command line `onnx-filter-pruner`: `prune`, `inspect` and `score` (docs/cli.md).

commands.py   what each command does
flags.py      one flag per field of the options, generated
exits.py      errors to messages and exit codes
display.py    progress bars on stderr, tables on stdout
"""

from graph_ops.cli.commands import app


def main() -> None:
    """Entry point of the console script."""
    app()


__all__ = ["app", "main"]
