"""The result of a run: the file that was proven, its report, and the scores it came from."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import onnx_ir as ir

from graph_ops.errors import ModelError, ModelTooLargeError, SurgeryError
from graph_ops.model import SourceModel, load_model, model_bytes, write_model
from graph_ops.report_page import render_report
from graph_ops.scores import ScoreState


@dataclass(frozen=True)
class WrittenModel:
    """A pruned model as it is returned, read back from what was written.

    Attributes:
        reloaded: The model that was read back; it passed `onnx.checker` like any model that is
            sent. What is proven and measured is this one.
        size_bytes: Size of the file.
        content: The file; None where it is over 2 GB and so written as a `.zip` when asked for.
    """

    reloaded: SourceModel
    size_bytes: int
    content: bytes | None = field(repr=False)


def write_and_read_back(
    source: SourceModel, pruned: ir.Model, metadata: Mapping[str, str]
) -> WrittenModel:
    """Write a pruned model and load it again with every check a model from outside gets.

    Args:
        source: The model it was cut from.
        pruned: The cut graph.
        metadata: What is written into its `metadata_props`.

    Raises:
        SurgeryError: the written model is refused by the checks.
    """
    try:
        try:
            content = model_bytes(source, pruned, metadata)
            return WrittenModel(load_model(content), len(content), content)
        except ModelTooLargeError:
            with tempfile.TemporaryDirectory() as folder:
                path = write_model(source, pruned, metadata, Path(folder) / "pruned.onnx")
                return WrittenModel(load_model(path), path.stat().st_size, None)
    except ModelError as error:
        raise SurgeryError(
            f"The model that was cut is refused: {error.message}",
            cause=error.code,
            **error.details,
        ) from error


@dataclass(frozen=True)
class CurvePoint:
    """One size of a curve.

    Attributes:
        report: As of a run that ends there.
        model: The file.
    """

    report: dict[str, Any]
    model: bytes = field(repr=False)


@dataclass(frozen=True)
class PruneResult:
    """A pruned model with its report.

    Attributes:
        report: JSON-ready report.
        scores: Score state of the original network, to cut it again at another target; None for
            criteria without gradients.
        points: All sizes of a run with the option `points`, from the largest to the result itself.
    """

    report: dict[str, Any]
    scores: ScoreState | None
    _source: SourceModel = field(repr=False)
    _pruned: ir.Model = field(repr=False)
    _metadata: dict[str, str] = field(repr=False)
    _written: WrittenModel = field(repr=False)
    points: tuple[CurvePoint, ...] = field(default=(), repr=False)

    @property
    def model(self) -> bytes:
        """The pruned model, serialized: the bytes that were proven.

        Raises:
            ModelTooLargeError: it is over 2 GB; use `write_model`.
        """
        if self._written.content is None:
            raise ModelTooLargeError(
                "The pruned model is over 2 GB, more than one protobuf holds: use write_model.",
                size_bytes=self._written.size_bytes,
            )
        return self._written.content

    def write_model(self, path: str | Path) -> Path:
        """Write the model; one over 2 GB becomes a `.zip` of model and data file."""
        return write_model(self._source, self._pruned, self._metadata, Path(path))

    def write_html(self, path: str | Path, title: str = "") -> None:
        """Write the report as one HTML page that needs no network.

        Args:
            path: Of the file.
            title: What the model is called; by default the beginning of its digest.
        """
        Path(path).write_text(render_report(self.report, title), encoding="utf-8")

    def write_scores(self, path: str | Path) -> None:
        """Write the score state (an empty one for criteria without gradients)."""
        state = self.scores or ScoreState.empty("", 0)
        state.save(path)
