"""Filter pruning of trained convolutional networks, on bare ONNX files.

from graph_ops import prune

result = prune("model.onnx", "calibration.npz", {"target": {"max_macs_ratio": 0.7}})
result.write_model("smaller.onnx")

Names are imported when they are first used: a server that only needs the options and the errors
does not load ONNX Runtime into its own process.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from graph_ops.errors import PrunerError
from graph_ops.options import PruneOptions, Target
from graph_ops.version import VERSION

if TYPE_CHECKING:
    from graph_ops.by_hand import ChannelLists, cut_channels
    from graph_ops.from_scores import cut_from_scores
    from graph_ops.inspection import describe_channels, inspect_model
    from graph_ops.network import TaylorPrunableNetwork
    from graph_ops.pruning import Progress, PruneResult, prune, score
    from graph_ops.scores import ScoreState

__version__ = VERSION

__all__ = [
    "ChannelLists",
    "Progress",
    "PruneOptions",
    "PruneResult",
    "PrunerError",
    "ScoreState",
    "Target",
    "TaylorPrunableNetwork",
    "__version__",
    "cut_channels",
    "cut_from_scores",
    "describe_channels",
    "inspect_model",
    "prune",
    "score",
]

_MODULE_OF = {
    "ChannelLists": "by_hand",
    "Progress": "pruning",
    "PruneResult": "pruning",
    "ScoreState": "scores",
    "TaylorPrunableNetwork": "network",
    "cut_channels": "by_hand",
    "cut_from_scores": "from_scores",
    "describe_channels": "inspection",
    "inspect_model": "inspection",
    "prune": "pruning",
    "score": "pruning",
}


def __getattr__(name: str) -> object:
    """Import a public name on first use (PEP 562)."""
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value: object = getattr(import_module(f"{__name__}.{_MODULE_OF[name]}"), name)
    globals()[name] = value
    return value
