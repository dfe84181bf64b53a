"""Exports one network four ways. It runs in the zoo's own environment and imports nothing else.

    .venv-zoo/bin/python benchmarks/zoo/export.py LIBRARY NAME FOLDER least|own VARIANT ...

The last but the variants is the size of its images: the least it takes, or its own. An exporter
that fails at the least size (it may have to resample a table of positions) is asked for its own.

Weights are random; the statistics of BatchNormalization come from a forward pass on noise and are
then moved, and its scale and bias are drawn, so that nothing about them is trivial. Each variant
becomes FOLDER/VARIANT.onnx, and FOLDER/export.json tells what came of it.
"""

import json
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import nn

SIDE = 96
"""Pixels of an image, where the network takes any; else it is its own."""
OWN_SIDE = 224
BATCH = 2
TORCHSCRIPT_OPSET, DYNAMO_OPSET = 17, 20
DETECTION_OPERATORS = ("nms", "qnms")


def import_libraries() -> None:
    """Declares what torchvision's import looks for where its compiled operators do not load.

    Its wheels are built for CUDA; beside a CPU build of PyTorch only the detectors miss them.
    """
    try:
        import torchvision  # noqa: F401
    except RuntimeError:
        for operator in DETECTION_OPERATORS:
            schema = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
            torch.library.define(f"torchvision::{operator}", schema)
        for name in [n for n in sys.modules if n.split(".")[0] == "torchvision"]:
            del sys.modules[name]


class MainOutput(nn.Module):
    """A segmentation network returns a dictionary; its main output alone is exported."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The output by the name "out"."""
        return self.network(x)["out"]


def create(library: str, name: str) -> tuple[nn.Module, int]:
    """The network with random weights, and its own image size."""
    if library == "timm":
        import timm

        network = timm.create_model(name, pretrained=False)
        return network, network.default_cfg["input_size"][-1]
    from torchvision import models

    folder = models.segmentation if hasattr(models.segmentation, name) else models
    options = {"weights": None}
    if folder is models.segmentation:
        return MainOutput(getattr(folder, name)(**options, weights_backbone=None)), OWN_SIDE
    if name in ("googlenet", "inception_v3"):
        options |= {"init_weights": False, "aux_logits": False}
    return getattr(folder, name)(**options), OWN_SIDE


def randomise(network: nn.Module, x: torch.Tensor) -> None:
    """Draws what initialisation leaves trivial: normalisation layers and scales."""
    norms = [m for m in network.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if parameter.numel() < 2 or parameter.min() != parameter.max():
                continue
            level = float(parameter.flatten()[0])
            if level == 0 and not name.endswith("weight"):
                continue
            scale = 0.3 if abs(level) < 0.01 else level
            parameter.copy_(scale * (0.5 + torch.rand_like(parameter)))
        for norm in norms:
            norm.momentum = None
            norm.reset_running_stats()
        network.train()
        network(x)
        network.eval()
        for norm in norms:
            spread = norm.running_var.clamp(min=1e-3)
            norm.running_mean += 0.2 * spread.sqrt() * torch.randn_like(spread)
            norm.running_var.copy_(spread * (0.5 + torch.rand_like(spread)))
            if norm.bias is not None:
                norm.bias.copy_(0.2 * torch.randn_like(norm.bias))


def fitting_input(network: nn.Module, own_side: int, is_own: bool) -> torch.Tensor:
    """Noise of the least size that the network takes, or of its own.

    The tracing exporter refuses an adaptive pooling that divides unevenly, as AlexNet and VGG have.
    """
    is_adaptive = any(
        isinstance(m, nn.AdaptiveAvgPool2d) and m.output_size not in (1, (1, 1))
        for m in network.modules()
    )
    least = own_side if is_adaptive or is_own else min(SIDE, own_side)
    for side in sorted({least, own_side}):
        x = torch.randn(BATCH, 3, side, side)
        try:
            with torch.no_grad():
                network.eval()(x)
        except Exception as error:
            problem = error
        else:
            return x
    raise problem


def with_any_batch(export: Callable[[bool], None]) -> str:
    """Exports with a symbolic batch axis, or a fixed one where that fails."""
    try:
        export(True)
    except Exception:
        export(False)
        return "fixed"
    return "symbolic"


def export_torchscript(network: nn.Module, x: torch.Tensor, path: Path, folded: bool) -> str:
    """With the exporter that traces; it folds BatchNormalization in evaluation mode."""
    mode = torch.onnx.TrainingMode.EVAL if folded else torch.onnx.TrainingMode.PRESERVE

    def export(is_symbolic: bool) -> None:
        torch.onnx.export(
            network,
            (x,),
            path,
            dynamo=False,
            opset_version=TORCHSCRIPT_OPSET,
            training=mode,
            do_constant_folding=folded,
            input_names=["input"],
            output_names=["output"],
            dynamic_axes={"input": {0: "batch"}} if is_symbolic else None,
        )

    return with_any_batch(export)


def export_dynamo(network: nn.Module, x: torch.Tensor, paths: dict[str, Path]) -> str:
    """With torch.export; its optimizer folds BatchNormalization, without it nothing is folded."""

    def export(is_symbolic: bool) -> None:
        program = torch.onnx.export(
            network,
            (x,),
            dynamo=True,
            verbose=False,
            optimize=False,
            opset_version=DYNAMO_OPSET,
            input_names=["input"],
            output_names=["output"],
            dynamic_shapes=({0: torch.export.Dim("batch")},) if is_symbolic else None,
        )
        if "dynamo-unfolded" in paths:
            program.save(paths["dynamo-unfolded"])
        if "dynamo-folded" in paths:
            program.optimize()
            program.save(paths["dynamo-folded"])

    return with_any_batch(export)


def attempt(
    export: Callable[[torch.Tensor], str], inputs: Sequence[torch.Tensor]
) -> dict[str, object]:
    """What came of an export with the first input that it takes."""
    start = time.perf_counter()
    facts: dict[str, object] = {}
    for x in inputs:
        try:
            facts = {"batch": export(x), "side": x.shape[-1]}
            break
        except Exception as error:
            cause = error  # the newer exporter says what step failed; what went wrong is its cause
            while isinstance(cause.__cause__, Exception):
                cause = cause.__cause__
            lines = str(cause).strip().splitlines() or [""]
            facts = {"error": f"{type(cause).__name__}: {lines[0]}"[:300], "side": x.shape[-1]}
    return facts | {"seconds": round(time.perf_counter() - start, 1)}


def main() -> None:
    library, name, folder, size, *variants = sys.argv[1:]
    warnings.filterwarnings("ignore")
    torch.manual_seed(0)
    import_libraries()
    target = Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    network, own_side = create(library, name)
    x = fitting_input(network, own_side, size == "own")
    randomise(network, torch.cat([x, torch.randn_like(x)]))
    with torch.no_grad():
        is_finite = bool(torch.isfinite(network(x)).all())
    inputs = [x] if x.shape[-1] == own_side else [x, torch.randn(BATCH, 3, own_side, own_side)]
    facts: dict[str, object] = {"side": x.shape[-1], "is_finite": is_finite, "variants": {}}
    record = target / "export.json"
    results = json.loads(record.read_text())["variants"] if record.exists() else {}
    for variant in variants:
        path = target / f"{variant}.onnx"
        if variant.startswith("torchscript"):
            folded = variant == "torchscript-folded"
            results[variant] = attempt(
                lambda x, path=path, folded=folded: export_torchscript(network, x, path, folded),
                inputs,
            )
    paths = {v: target / f"{v}.onnx" for v in variants if v.startswith("dynamo")}
    if paths:
        outcome = attempt(lambda x: export_dynamo(network, x, paths), inputs)
        results |= dict.fromkeys(paths, outcome)
    record.write_text(json.dumps(facts | {"variants": results}))


if __name__ == "__main__":
    main()
