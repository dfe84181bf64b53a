"""The trained networks: digits, two VGG-like ones, a residual, a depthwise and a dense one.

1,000 labelled images of a training set score and refit. The hold-outs (MNIST's test set of 10,000
digits, 4,000 images of CIFAR-10's) are read for the accuracies in the tables and for nothing else.
Defaults are chosen by the 3,000 training images of the file that are left. A benchmark of larger
bundles may take those, too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.tasks import Task, cifar10, digits

REPOSITORY = Path(__file__).parents[2]
SHARED = REPOSITORY.parent / "shared"
MODELS = REPOSITORY / "benchmarks" / "models"
CIFAR10 = Path("data") / "cifar10_8k.npz"
MNIST = Path("data") / "mnist_10k.npz"
"""Below the shared folder."""
MNIST_TEST = REPOSITORY / "build" / "mnist" / "package" / "data"
"""MNIST's test set as `make mnist` brings it. All digits of the example are of the training set."""
MNIST_IMAGES, MNIST_LABELS = "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"
CALIBRATION, TEST = 1000, 4000
DIGITS = "digits"
OF_THE_REPOSITORY = ("cifar10_residual", "cifar10_depthwise", "cifar10_dense")
OF_THE_SHARED_FOLDER = ("vgg_cifar10", "vgg_cifar10_bn")
NAMES = (DIGITS, *OF_THE_SHARED_FOLDER, *OF_THE_REPOSITORY)


def file_of(name: str, shared: Path) -> Path:
    """The model file of a network trained on CIFAR-10."""
    folder = MODELS if name in OF_THE_REPOSITORY else shared / "models"
    return folder / f"{name}.onnx"


def missing_files(names: Sequence[str], shared: Path = SHARED) -> list[Path]:
    """What networks need and this machine does not have."""
    on_cifar10 = [name for name in names if name != DIGITS]
    needed = [file_of(name, shared) for name in on_cifar10]
    if DIGITS in names:
        needed += [MNIST_TEST / MNIST_IMAGES, MNIST_TEST / MNIST_LABELS]
    if on_cifar10:
        needed.append(shared / CIFAR10)
    return [path for path in needed if not path.exists()]


def network(name: str, shared: Path = SHARED, samples: int = CALIBRATION) -> Task:
    """A network with its data.

    Args:
        name: One of `NAMES`.
        shared: The folder of networks and data that are not the repository's.
        samples: Calibration samples.

    Raises:
        FileNotFoundError: the model or its data is not there; the message names it.
    """
    missing = missing_files([name], shared)
    if missing:
        files = ", ".join(str(path) for path in missing)
        raise FileNotFoundError(f"{name} cannot be measured without {files}")
    if name == DIGITS:
        return _with_more(_tested_on_mnist(digits()), samples, shared / MNIST)
    return cifar10(file_of(name, shared), shared / CIFAR10, samples, TEST)


def read_idx(path: Path) -> NDArray[np.uint8]:
    """An array of bytes in the format of MNIST's files: two zeros, a type, axes, their lengths."""
    content = path.read_bytes()
    axes = content[3]
    shape = np.frombuffer(content, dtype=">i4", count=axes, offset=4)
    return np.frombuffer(content, dtype=np.uint8, offset=4 + 4 * axes).reshape(shape)


def _tested_on_mnist(task: Task) -> Task:
    """The digits with MNIST's test set as hold-out: the example's own 2,000 decide too little."""
    images = read_idx(MNIST_TEST / MNIST_IMAGES)[:, np.newaxis]
    labels = read_idx(MNIST_TEST / MNIST_LABELS).astype(np.int64)
    return replace(
        task, test_images=images.astype(np.float32) / np.float32(255), test_labels=labels
    )


def _with_more(task: Task, samples: int, data: Path) -> Task:
    """The digits with so many calibration samples; none of those added is a test sample.

    Raises:
        FileNotFoundError: the file that holds more of them is not there.
    """
    if samples <= len(task.labels):
        return replace(task, images=task.images[:samples], labels=task.labels[:samples])
    known = {image.tobytes() for image in (*task.images, *digits().test_images)}
    with np.load(data) as arrays:
        images = arrays["images"][:, np.newaxis].astype(np.float32) / np.float32(255)
        labels = arrays["labels"].astype(np.int64)
    new = [i for i, image in enumerate(images) if image.tobytes() not in known]
    new = new[: samples - len(task.labels)]
    return replace(
        task,
        images=np.concatenate([task.images, images[new]]),
        labels=np.concatenate([task.labels, labels[new]]),
    )
