"""onnxsim: whole channels by L2 norm, or by Wanda (weight norm × norm of the activations).

Its pruning expects BatchNormalization to be fused, so the network is simplified first.
"""

from collections.abc import Callable
from pathlib import Path

import child
import onnx
import onnxsim

BATCH = 100


def open_network(
    folder: Path, criterion: str, spread: str, output: str
) -> Callable[[float, Path], None]:
    """Simplify; each request prunes the simplified network."""
    name, images, _ = child.read_bundle(folder)
    simplified, is_same = onnxsim.simplify(onnx.load(folder / "model.onnx"))
    assert is_same, "simplified network differs"
    batches = [{name: images[i : i + BATCH]} for i in range(0, len(images), BATCH)]

    def prune(ratio: float, path: Path) -> None:
        model = onnx.ModelProto()
        model.CopyFrom(simplified)
        options = {"sparsity": ratio, "global_sparsity": spread == "global"}
        if criterion == "L2":
            pruned = onnxsim.apply_structured_pruning(model, **options)
        else:
            pruned = onnxsim.apply_structured_wanda_pruning(model, batches, **options)
        onnx.checker.check_model(pruned)
        onnx.save(pruned, path)

    return prune


if __name__ == "__main__":
    child.serve(open_network)
