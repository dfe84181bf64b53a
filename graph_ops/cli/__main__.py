"""`python -m graph_ops.cli`."""

from graph_ops.cli import main

main()
