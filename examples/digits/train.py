"""Trains the reference network on handwritten digits and writes it as ONNX with its data.

The network is the one of MATLAB's example for ``taylorPrunableNetwork``: three convolutions of
20 filters, each with batch normalization and ReLU, then one fully connected layer and softmax.
It is exported with BatchNormalization as nodes of its own, since a pruning tool must be able to
cut them together with the convolution they follow.

Of the 10,000 digits 2,000 are set aside by a seeded permutation. They choose nothing: the number of
epochs is fixed, and the calibration bundle is drawn from the other 8,000.

    python examples/digits/train.py --data ../shared/data/mnist_10k.npz
"""

import argparse
import re
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
import torch
from torch import Tensor, nn

SEED = 0
TEST_DIGITS = 2_000
CALIBRATION_DIGITS_PER_CLASS = 100
CLASSES = 10

EPOCHS = 12
BATCH_SIZE = 64
MAX_LEARNING_RATE = 4e-3
WEIGHT_DECAY = 1e-2
MAX_SHIFT_PIXELS = 2
CHANNEL_DROPOUT = 0.15

OPSET = 17
MIN_ACCURACY = 0.97
MAX_EXPORT_DIFFERENCE = 1e-4


@dataclass(frozen=True)
class Digits:
    """Images with their classes.

    Attributes:
        image: float32 [N, 1, 28, 28], 0 to 1.
        labels: int64 [N], 0 to 9.
    """

    image: npt.NDArray[np.float32]
    labels: npt.NDArray[np.int64]

    def take(self, indices: npt.NDArray[np.int64]) -> "Digits":
        """Returns the digits at ``indices`` [M], in that order."""
        return Digits(self.image[indices], self.labels[indices])

    def save(self, path: Path) -> None:
        """Writes a bundle: one array named as the graph's input, and ``labels``."""
        np.savez_compressed(path, image=self.image, labels=self.labels)


def load_digits(path: Path) -> Digits:
    """Reads ``images`` uint8 [N, 28, 28] and ``labels`` uint8 [N], and scales images by 1/255."""
    with np.load(path, allow_pickle=False) as arrays:
        image = arrays["images"][:, np.newaxis].astype(np.float32) / np.float32(255)
        return Digits(image, arrays["labels"].astype(np.int64))


def split(digits: Digits) -> tuple[Digits, Digits]:
    """Returns the training digits and the ``TEST_DIGITS`` held-out ones, disjoint."""
    order = np.random.default_rng(SEED).permutation(len(digits.labels))
    return digits.take(order[TEST_DIGITS:]), digits.take(order[:TEST_DIGITS])


def balanced_sample(digits: Digits) -> Digits:
    """Returns ``CALIBRATION_DIGITS_PER_CLASS`` digits of each class, shuffled."""
    generator = np.random.default_rng(SEED)
    chosen = [
        generator.choice(
            np.flatnonzero(digits.labels == label), CALIBRATION_DIGITS_PER_CLASS, replace=False
        )
        for label in range(CLASSES)
    ]
    return digits.take(generator.permutation(np.concatenate(chosen)))


def build_network() -> nn.Sequential:
    """Returns the untrained network: [N, 1, 28, 28] to probabilities [N, 10].

    Its last layer is the softmax; all before it gives logits. Channel dropout, which is not in the
    exported graph, teaches the network to bear the loss of a filter.
    """
    return nn.Sequential(
        OrderedDict[str, nn.Module](
            conv1=nn.Conv2d(1, 20, kernel_size=5),  # [N, 20, 24, 24], as all below up to flatten
            bn1=nn.BatchNorm2d(20),
            relu1=nn.ReLU(),
            drop1=nn.Dropout2d(CHANNEL_DROPOUT),
            conv2=nn.Conv2d(20, 20, kernel_size=3, padding=1),
            bn2=nn.BatchNorm2d(20),
            relu2=nn.ReLU(),
            drop2=nn.Dropout2d(CHANNEL_DROPOUT),
            conv3=nn.Conv2d(20, 20, kernel_size=3, padding=1),
            bn3=nn.BatchNorm2d(20),
            relu3=nn.ReLU(),
            drop3=nn.Dropout2d(CHANNEL_DROPOUT),
            flatten=nn.Flatten(),  # [N, 11520]
            fc=nn.Linear(20 * 24 * 24, CLASSES),
            softmax=nn.Softmax(dim=1),
        )
    )


def shift_randomly(image: Tensor) -> Tensor:
    """Moves each image of [N, 1, H, W] by up to ``MAX_SHIFT_PIXELS`` along both axes."""
    count, _, height, width = image.shape
    padded = nn.functional.pad(image, [MAX_SHIFT_PIXELS] * 4)
    windows = padded.unfold(2, height, 1).unfold(3, width, 1)  # [N, 1, shifts, shifts, H, W]
    down, right = torch.randint(2 * MAX_SHIFT_PIXELS + 1, (2, count))
    return windows[torch.arange(count), :, down, right]


def train(network: nn.Sequential, digits: Digits) -> None:
    """Trains ``network`` in place with AdamW and one learning-rate cycle; leaves it in eval mode.

    The loss is taken from the logits, where it is numerically safe.
    """
    image, labels = torch.from_numpy(digits.image), torch.from_numpy(digits.labels)
    logits_network = network[:-1]
    steps_per_epoch = -(-len(labels) // BATCH_SIZE)
    optimizer = torch.optim.AdamW(network.parameters(), weight_decay=WEIGHT_DECAY)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, MAX_LEARNING_RATE, epochs=EPOCHS, steps_per_epoch=steps_per_epoch
    )
    network.train()
    for epoch in range(1, EPOCHS + 1):
        total_loss = 0.0
        for batch in torch.randperm(len(labels)).split(BATCH_SIZE):
            optimizer.zero_grad()
            logits = logits_network(shift_randomly(image[batch]))
            loss = nn.functional.cross_entropy(logits, labels[batch])
            loss.backward()
            optimizer.step()
            schedule.step()
            total_loss += loss.item() * len(batch)
        print(f"epoch {epoch:2d}/{EPOCHS}: loss {total_loss / len(labels):.4f}", flush=True)
    network.eval()


def export(network: nn.Sequential, path: Path) -> None:
    """Writes ``network`` as ONNX with every layer as one node, and checks the file."""
    torch.onnx.export(
        network,
        (torch.zeros(1, 1, 28, 28),),
        path,
        input_names=["image"],
        output_names=["probabilities"],
        dynamic_axes={"image": {0: "batch"}, "probabilities": {0: "batch"}},
        opset_version=OPSET,
        # The exporter folds BatchNormalization into Conv in its EVAL mode; PRESERVE takes the
        # mode the network is in, which is eval as well, and folds nothing.
        training=torch.onnx.TrainingMode.PRESERVE,
        do_constant_folding=False,
        dynamo=False,
    )
    model = onnx.load(path)
    name_after_layers(model.graph)
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, path)


def name_after_layers(graph: onnx.GraphProto) -> None:
    """Renames nodes and inner values to their layer: ``/conv1/Conv_output_0`` to ``conv1``.

    Graph inputs, outputs and initializers have no such path and keep their names.
    """
    path = re.compile(r"/(\w+)/\w+")
    for node in graph.node:
        node.name = path.sub(r"\1", node.name)
        node.input[:] = [path.sub(r"\1", name) for name in node.input]
        node.output[:] = [path.sub(r"\1", name) for name in node.output]


def predict_with_torch(network: nn.Sequential, digits: Digits) -> npt.NDArray[np.float32]:
    """Returns probabilities [N, 10] of the PyTorch network."""
    with torch.inference_mode():
        probabilities = [network(batch) for batch in torch.from_numpy(digits.image).split(500)]
    return torch.cat(probabilities).numpy()


def predict_with_onnx(path: Path, digits: Digits) -> npt.NDArray[np.float32]:
    """Returns probabilities [N, 10] of the ONNX file, run by ONNX Runtime."""
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    batches = np.split(digits.image, range(500, len(digits.image), 500))
    return np.concatenate(
        [session.run(["probabilities"], {"image": batch})[0] for batch in batches]
    )


def accuracy(probabilities: npt.NDArray[np.float32], labels: npt.NDArray[np.int64]) -> float:
    """Returns the share of rows of [N, 10] whose largest entry is at the label."""
    return float((probabilities.argmax(axis=1) == labels).mean())


def verify(network: nn.Sequential, path: Path, test: Digits) -> None:
    """Checks that the ONNX file agrees with ``network`` and is accurate on the held-out digits.

    Raises:
        RuntimeError: The file differs from the network, or is below ``MIN_ACCURACY``.
    """
    expected = predict_with_torch(network, test)
    found = predict_with_onnx(path, test)
    difference = float(np.abs(expected - found).max())
    expected_accuracy, found_accuracy = (accuracy(p, test.labels) for p in (expected, found))
    print(
        f"accuracy on {len(test.labels)} held-out digits: PyTorch {expected_accuracy:.2%}, "
        f"ONNX Runtime {found_accuracy:.2%}; largest difference {difference:.1e}"
    )
    if difference > MAX_EXPORT_DIFFERENCE or expected_accuracy != found_accuracy:
        raise RuntimeError(f"{path.name} does not compute what the trained network computes.")
    if found_accuracy < MIN_ACCURACY:
        raise RuntimeError(f"Accuracy {found_accuracy:.2%} is below {MIN_ACCURACY:.0%}.")


def parse_arguments() -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description="Train and export the digits example.")
    parser.add_argument("--data", type=Path, required=True, help="path of mnist_10k.npz")
    parser.add_argument(
        "--output",
        type=Path,
        default=Path(__file__).parent,
        help="folder for digits.onnx, calibration.npz and test.npz (default: this script's)",
    )
    return parser.parse_args()


def main() -> None:
    """Trains the network and writes ``digits.onnx``, ``calibration.npz`` and ``test.npz``."""
    arguments = parse_arguments()
    torch.manual_seed(SEED)
    torch.use_deterministic_algorithms(True)
    training, test = split(load_digits(arguments.data))
    arguments.output.mkdir(parents=True, exist_ok=True)
    balanced_sample(training).save(arguments.output / "calibration.npz")
    test.save(arguments.output / "test.npz")
    network = build_network()
    train(network, training)
    export(network, arguments.output / "digits.onnx")
    verify(network, arguments.output / "digits.onnx", test)


if __name__ == "__main__":
    main()
