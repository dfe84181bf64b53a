"""Filter pruning of trained convolutional networks, on bare ONNX files.

from graph_ops import prune

result = prune("model.onnx", "calibration.npz", {"target": {"max_macs_ratio": 0.7}})
result.write_model("smaller.onnx")
"""

from graph_ops.errors import PrunerError
from graph_ops.inspection import describe_channels, inspect_model
from graph_ops.network import TaylorPrunableNetwork
from graph_ops.options import PruneOptions, Target
from graph_ops.pruning import Progress, PruneResult, prune
from graph_ops.scores import ScoreState
from graph_ops.version import VERSION

__version__ = VERSION

__all__ = [
    "Progress",
    "PruneOptions",
    "PruneResult",
    "PrunerError",
    "ScoreState",
    "Target",
    "TaylorPrunableNetwork",
    "__version__",
    "describe_channels",
    "inspect_model",
    "prune",
]
