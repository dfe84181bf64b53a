"""What the accuracy benchmarks prune: a classifier, calibration samples, unseen test samples."""

from __future__ import annotations

import argparse
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from graph_ops.pruning import prune, score
from graph_ops.scores import ScoreState

DIGITS = Path(__file__).parents[1] / "examples" / "digits"
CIFAR10_MEAN = (0.4914, 0.4822, 0.4465)
CIFAR10_STD = (0.247, 0.2435, 0.2616)
CIFAR10_CALIBRATION = 400
CIFAR10_TEST = 2000
"""Samples used of the file's: a few hundred to score on are what a user is asked for."""
BATCH = 100
EVERY_FILTER: Mapping[str, object] = {"channel_multiple": 1}
"""Counts of filters are free where accuracy is compared, whatever the option's default."""
SMALLEST_PROBABILITY = 1e-30

FloatArray = NDArray[np.float32]
IntArray = NDArray[np.int64]


@dataclass(frozen=True)
class Task:
    """A classifier and its data.

    Attributes:
        name: For headings.
        model: The model file.
        input_name: Its one input.
        is_softmaxed: Whether its output holds probabilities and not logits.
        images: [N, ...] calibration inputs.
        labels: [N] their class ids.
        test_images: [T, ...] inputs that are never scored on.
        test_labels: [T] their class ids.
        other_images: [K, ...] training images that are no calibration samples, to choose defaults
            by; may be empty.
        other_labels: [K] their class ids.
    """

    name: str
    model: bytes
    input_name: str
    is_softmaxed: bool
    images: FloatArray
    labels: IntArray
    test_images: FloatArray
    test_labels: IntArray
    other_images: FloatArray
    other_labels: IntArray

    def bundle(self) -> bytes:
        """The calibration samples as a `.npz` bundle."""
        stream = io.BytesIO()
        np.savez(stream, **{self.input_name: self.images, "labels": self.labels})  # type: ignore[arg-type]
        return stream.getvalue()

    def outputs(self, model: bytes, images: FloatArray) -> FloatArray:
        """[N, classes] outputs of the task's model or of a pruned one."""
        session = ort.InferenceSession(model, providers=["CPUExecutionProvider"])
        parts = [
            session.run(None, {self.input_name: images[i : i + BATCH]})[0]
            for i in range(0, len(images), BATCH)
        ]
        return np.asarray(np.concatenate(parts), dtype=np.float32)

    def accuracy(self, model: bytes) -> float:
        """Share of the test samples that a model gets right."""
        return self._right(model, self.test_images, self.test_labels)

    def accuracy_to_choose_by(self, model: bytes) -> float | None:
        """The same of training images that nothing was fitted on; None where there are none."""
        if not len(self.other_labels):
            return None
        return self._right(model, self.other_images, self.other_labels)

    def _right(self, model: bytes, images: FloatArray, labels: IntArray) -> float:
        return float((self.outputs(model, images).argmax(axis=1) == labels).mean())

    def mean_loss(self, model: bytes) -> float:
        """Mean cross-entropy on the calibration samples."""
        output = self.outputs(model, self.images).astype(np.float64)
        if self.is_softmaxed:
            logs = np.log(np.maximum(output, SMALLEST_PROBABILITY))
        else:
            shifted = output - output.max(axis=1, keepdims=True)
            logs = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
        return float(-logs[np.arange(len(self.labels)), self.labels].mean())

    def taylor_scores(self) -> ScoreState:
        """Scores of the whole network by the default definition, to be given to several runs."""
        return score(self.model, self.bundle(), {"batch_size": BATCH, **EVERY_FILTER})

    def pruned_accuracy(
        self, options: Mapping[str, object], scores: ScoreState | None = None
    ) -> float:
        """Accuracy on the test samples after a run of `prune` with these options.

        Nothing is recovered unless they say so: what is compared is the choice of filters.
        """
        given = {"batch_size": BATCH, "on_unreachable": "best", "recovery": "none"}
        given |= {**EVERY_FILTER, **options}
        return self.accuracy(prune(self.model, self.bundle(), given, scores=scores).model)


def digits() -> Task:
    """The repository's example: 60 filters, 1,000 calibration and 2,000 test digits."""
    with np.load(DIGITS / "calibration.npz") as data:
        images, labels = data["image"], data["labels"]
    with np.load(DIGITS / "test.npz") as data:
        test_images, test_labels = data["image"], data["labels"]
    model = (DIGITS / "digits.onnx").read_bytes()
    return Task(
        name="digits",
        model=model,
        input_name="image",
        is_softmaxed=True,
        images=images,
        labels=labels,
        test_images=test_images,
        test_labels=test_labels,
        other_images=images[:0],
        other_labels=labels[:0],
    )


def cifar10(
    model: Path, data: Path, calibration: int = CIFAR10_CALIBRATION, test: int = CIFAR10_TEST
) -> Task:
    """A network trained on CIFAR-10, given as files.

    Args:
        model: ONNX file with one input [N, 3, 32, 32] and logits [N, 10].
        data: `.npz` of `calibration_images`, `test_images` (uint8 [N, 3, 32, 32]) and
            `calibration_labels`, `test_labels`.
        calibration: Calibration samples drawn of the file's.
        test: Test samples used of the file's.
    """
    content = model.read_bytes()
    session = ort.InferenceSession(content, providers=["CPUExecutionProvider"])
    with np.load(data) as arrays:
        order = np.random.default_rng(0).permutation(len(arrays["calibration_labels"]))
        chosen, other = order[:calibration], order[calibration:]
        return Task(
            name=model.stem,
            model=content,
            input_name=session.get_inputs()[0].name,
            is_softmaxed=False,
            images=_normalised(arrays["calibration_images"][chosen]),
            labels=arrays["calibration_labels"][chosen].astype(np.int64),
            test_images=_normalised(arrays["test_images"][:test]),
            test_labels=arrays["test_labels"][:test].astype(np.int64),
            other_images=_normalised(arrays["calibration_images"][other]),
            other_labels=arrays["calibration_labels"][other].astype(np.int64),
        )


def tasks_from_arguments(program: str, description: str, arguments: Sequence[str]) -> list[Task]:
    """The digits, and the CIFAR-10 network of `--model` and `--data` where both are given."""
    parser = argparse.ArgumentParser(prog=program, description=description)
    parser.add_argument("--model", type=Path, help="ONNX file of a network trained on CIFAR-10")
    parser.add_argument("--data", type=Path, help=".npz of CIFAR-10 samples")
    options = parser.parse_args(arguments)
    if (options.model is None) != (options.data is None):
        parser.error("give --model and --data together")
    tasks = [digits()]
    if options.model is not None:
        tasks.append(cifar10(options.model, options.data))
    return tasks


def _normalised(images: NDArray[np.uint8]) -> FloatArray:
    """(x / 255 − mean) / std per colour channel, as such networks are trained."""
    mean = np.asarray(CIFAR10_MEAN, dtype=np.float32)[:, None, None]
    std = np.asarray(CIFAR10_STD, dtype=np.float32)[:, None, None]
    return np.asarray((images.astype(np.float32) / 255 - mean) / std, dtype=np.float32)
