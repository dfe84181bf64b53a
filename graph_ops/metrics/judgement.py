"""The output that is judged, and the loss that fits it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import onnx_ir as ir

from graph_ops.bundle import ArrayInfo
from graph_ops.canonical import scoring_copy
from graph_ops.errors import LossError, ModelRunError
from graph_ops.loss import LossChoice, OutputForm, choose_loss, output_form
from graph_ops.options import PruneOptions
from graph_ops.recovery import Classifier


@dataclass(frozen=True)
class Judgement:
    """What says which metric fits.

    Attributes:
        form: The output; None where no loss fits any.
        loss: The loss; None where none fits.
    """

    form: OutputForm | None
    loss: LossChoice | None

    @classmethod
    def of(
        cls,
        model: ir.Model,
        sample_shapes: Mapping[str, tuple[int, ...]],
        targets: ArrayInfo | None,
        options: PruneOptions,
    ) -> Judgement:
        """Of a model that is not scored.

        Criteria without gradients have no loss, but their result is judged like any other.
        """
        try:
            copy = scoring_copy(model, sample_shapes)
            form = output_form(copy.model, copy.shapes, options.output)
            return cls(form, choose_loss(form, targets, options.loss))
        except (LossError, ModelRunError):
            return cls(None, None)

    @property
    def classifier(self) -> Classifier | None:
        """The output that names a class, or None."""
        is_classifier = self.loss is not None and self.loss.name in (
            "cross_entropy",
            "pseudo_labels",
        )
        form = self.form
        return Classifier(form.name, form.classes) if form and is_classifier else None
