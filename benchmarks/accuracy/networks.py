"""The trained networks: digits, two VGG-like ones, a residual, a depthwise and a dense one.

1,000 labelled images of a training set score and refit. The hold-outs (2,000 digits, 4,000 images
of CIFAR-10's test set) are read for the accuracies in the tables and for nothing else. Defaults are
chosen by the 3,000 training images of the file that are left.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from benchmarks.tasks import Task, cifar10, digits

REPOSITORY = Path(__file__).parents[2]
SHARED = REPOSITORY.parent / "shared"
MODELS = REPOSITORY / "benchmarks" / "models"
CIFAR10 = Path("data") / "cifar10_8k.npz"
"""Below the shared folder."""
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
    if on_cifar10:
        needed.append(shared / CIFAR10)
    return [path for path in needed if not path.exists()]


def network(name: str, shared: Path = SHARED) -> Task:
    """A network with its data.

    Raises:
        FileNotFoundError: the model or its data is not there; the message names it.
    """
    missing = missing_files([name], shared)
    if missing:
        files = ", ".join(str(path) for path in missing)
        raise FileNotFoundError(f"{name} cannot be measured without {files}")
    if name == DIGITS:
        return digits()
    return cifar10(file_of(name, shared), shared / CIFAR10, CALIBRATION, TEST)
