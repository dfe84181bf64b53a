"""Torch-Pruning: groups of channels by Taylor, Hessian or L2 importance.

The ONNX file becomes PyTorch modules with the same weights; the pruned modules' weights go back
into its graph. Gradients are those of the mean loss over all images (Taylor), or the mean of the
squared gradients of single images (Hessian).
"""

import copy
from collections.abc import Callable
from pathlib import Path

import child
import onnx
import torch
import torch_pruning as tp
from onnx_modules import GraphModule, with_plain_constants, with_weights
from torch import Tensor, nn
from torch.nn import functional

BATCH = 100


def mean_gradients(network: nn.Module, images: Tensor, labels: Tensor) -> None:
    """Leaves the gradients of the mean loss in the parameters."""
    network.zero_grad()
    for i in range(0, len(images), BATCH):
        logits = network(images[i : i + BATCH])
        loss = functional.cross_entropy(logits, labels[i : i + BATCH], reduction="sum")
        (loss / len(images)).backward()


def mean_squared_gradients(network: nn.Module, images: Tensor, labels: Tensor) -> None:
    """Leaves the mean of the images' squared gradients in the parameters.

    The package's own accumulation keeps the last image's alone (1.6.1 looks a name up among
    parameters), so this is better than what it gives.
    """
    parameters = list(network.parameters())
    sums = [torch.zeros_like(p) for p in parameters]
    for i in range(len(images)):
        network.zero_grad()
        functional.cross_entropy(network(images[i : i + 1]), labels[i : i + 1]).backward()
        for total, parameter in zip(sums, parameters, strict=True):
            total += parameter.grad**2
    for total, parameter in zip(sums, parameters, strict=True):
        parameter.grad = total / len(images)


def open_network(
    folder: Path, criterion: str, spread: str, output: str
) -> Callable[[float, Path], None]:
    """Convert and score; each request prunes a copy. A softmax at the end is left out."""
    torch.manual_seed(0)
    torch.set_num_threads(1)
    _, images, labels = child.read_bundle(folder)
    x, y = torch.from_numpy(images), torch.from_numpy(labels)
    model = with_plain_constants(onnx.load(folder / "model.onnx"))
    network = GraphModule(model).eval()
    if criterion == "Taylor":
        mean_gradients(network, x, y)
    elif criterion == "Hessian":
        mean_squared_gradients(network, x, y)
    importances = {
        "Taylor": tp.importance.GroupTaylorImportance,
        "Hessian": tp.importance.GroupHessianImportance,
        "L2": tp.importance.GroupMagnitudeImportance,
    }

    def prune(ratio: float, path: Path) -> None:
        pruned = copy.deepcopy(network)
        for old, new in zip(network.parameters(), pruned.parameters(), strict=True):
            new.grad = None if old.grad is None else old.grad.clone()
        tp.pruner.BasePruner(
            pruned,
            x[:1],
            importance=importances[criterion](),
            global_pruning=spread == "global",
            pruning_ratio=ratio,
            ignored_layers=[pruned.last_linear()],
        ).step()
        onnx.save(with_weights(model, pruned), path)

    return prune


if __name__ == "__main__":
    child.serve(open_network)
