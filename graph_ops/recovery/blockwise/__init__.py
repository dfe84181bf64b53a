"""Block after block, a refitted network learns what the original's blocks give."""

from graph_ops.recovery.blockwise.stage import train_blocks

__all__ = ["train_blocks"]
