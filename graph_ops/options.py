"""The options of a pruning run: one pydantic model for library, CLI and HTTP.

Its JSON schema is served at `/v1/options/schema`; every field's description below is what a
person reads there.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from graph_ops.errors import OptionsError

Ratio = Annotated[float, Field(gt=0.0, lt=1.0)]


class _Options(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class Target(_Options):
    """What to reach: exactly one field is set."""

    filters: Annotated[int, Field(ge=1)] | None = None
    """Drop at most this many filters, the least important first."""
    filter_ratio: Ratio | None = None
    """Share of the convolution filters that may remain."""
    max_params_ratio: Ratio | None = None
    """Share of the parameters that may remain."""
    max_macs_ratio: Ratio | None = None
    """Share of the multiply-accumulate operations that may remain."""
    max_size_bytes: Annotated[int, Field(ge=1)] | None = None
    """Largest size of the model file, in bytes."""

    @model_validator(mode="after")
    def _exactly_one(self) -> Self:
        given = [name for name in type(self).model_fields if getattr(self, name) is not None]
        if len(given) != 1:
            names = ", ".join(type(self).model_fields)
            raise ValueError(f"give exactly one of {names}; found {', '.join(given) or 'none'}")
        return self

    @property
    def kind(self) -> str:
        """Name of the field that is set."""
        return next(n for n in type(self).model_fields if getattr(self, n) is not None)

    @property
    def value(self) -> float:
        """Value of the field that is set."""
        return float(getattr(self, self.kind))


class Criterion(StrEnum):
    """How a filter's importance is measured."""

    TAYLOR = "taylor"
    TAYLOR_SQUARED = "taylor_squared"
    MAGNITUDE_L2 = "magnitude_l2"
    RANDOM = "random"

    @property
    def needs_gradients(self) -> bool:
        """Whether scores come from forward and backward passes over the bundle."""
        return self in (Criterion.TAYLOR, Criterion.TAYLOR_SQUARED)


class PruneOptions(_Options):
    """Everything a pruning run can be told."""

    target: Target = Target(filters=8)
    """What to reach."""
    steps: Annotated[int, Field(ge=1, le=1000)] | None = None
    """Rounds of score and drop on the way to the target; one when neither this nor
    `filters_per_step` is given."""
    filters_per_step: Annotated[int, Field(ge=1)] | None = None
    """Filters dropped in each round, as many rounds as the target needs."""
    criterion: Criterion = Criterion.TAYLOR
    """`taylor`: mean over samples of |Σ activation·gradient|; `taylor_squared`: of its square;
    `magnitude_l2`: l2 norm of the filter's weights; `random`: seeded noise (a baseline)."""
    normalization: Literal["none", "l2", "mean"] = "none"
    """Scores are divided by this statistic of their layer before layers are compared."""
    rank_by: Literal["auto", "score", "score_per_mac"] = "auto"
    """What is compared across layers; `auto` is `score` for the targets `filters` and
    `filter_ratio`, and `score_per_mac` for the others."""
    reduction: Literal["sum", "mean"] = "sum"
    """How activation·gradient is reduced over a filter's output positions: `sum` is the
    first-order change of the loss; `mean` (Molchanov 2017) divides by their number."""
    gate: Literal["batch_norm", "convolution"] = "batch_norm"
    """Where a filter is taken to end: `batch_norm` measures the change when its output moves to
    the value that a following BatchNormalization maps to zero, which is what dropping does;
    `convolution` when the convolution's own output moves to zero."""
    min_filters: Annotated[int, Field(ge=1)] = 4
    """Never fewer filters left in a convolution."""
    channel_multiple: Annotated[int, Field(ge=1, le=256)] = 1
    """Kept filter counts are a multiple of this where the structure allows."""
    include: tuple[str, ...] = ("*",)
    """Only convolutions whose name matches one of these globs are pruned."""
    exclude: tuple[str, ...] = ()
    """Convolutions whose name matches one of these globs are never pruned."""
    on_unreachable: Literal["error", "best"] = "error"
    """What to do when the target cannot be reached: fail and say how far it could go, or return
    the nearest result with a stop reason."""
    loss: Literal["auto", "cross_entropy", "bce", "mse", "l1", "unlabelled"] = "auto"
    """Loss whose change is measured; `auto` decides from the model's output and the targets."""
    output: str | None = None
    """Model output the loss is taken on; the first one when not given."""
    targets: str = "labels"
    """Name of the bundle's array of targets."""
    recovery: Literal["none", "bias", "reconstruct", "distill"] = "reconstruct"
    """How accuracy is given back after the cut: `bias` moves the mean of what was removed into
    biases; `reconstruct` refits every layer behind a cut by ridge regression; `distill` does that
    and then trains the network towards the original's outputs, without labels."""
    distill_iterations: Annotated[int, Field(ge=1, le=100_000)] = 300
    """Gradient steps of `distill`, each on one batch."""
    engine: Literal["auto", "standard", "ort-training"] = "auto"
    """Who computes the gradients: `standard` (our own backward graph), `ort-training`
    (onnxruntime-training in its own process), or `auto`: `ort-training` where it can use a GPU,
    else `standard`."""
    batch_size: Annotated[int, Field(ge=1, le=65536)] = 32
    """Samples per forward and backward pass (a model with a fixed batch size uses its own)."""
    max_samples: Annotated[int, Field(ge=1)] | None = None
    """Samples of the bundle that are used, drawn by the seed; all when not given."""
    validation_fraction: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.1
    """Share of the samples held out for the before/after metric and never scored on."""
    seed: Annotated[int, Field(ge=0, le=2**32 - 1)] = 0
    """Seed of every random choice."""

    @model_validator(mode="after")
    def _one_schedule(self) -> Self:
        if self.steps is not None and self.filters_per_step is not None:
            raise ValueError("give steps or filters_per_step, not both")
        return self

    @property
    def ranks_by_macs(self) -> bool:
        """Whether a class's score is divided by the MACs its removal saves."""
        if self.rank_by == "auto":
            return self.target.kind not in ("filters", "filter_ratio")
        return self.rank_by == "score_per_mac"


def parse_options(raw: str | bytes | dict[str, Any] | PruneOptions | None) -> PruneOptions:
    """Options from JSON text, a plain dict, or as they are.

    Raises:
        OptionsError: not JSON, an unknown field, or a value out of range; `details["fields"]`
            lists every problem as {field, problem}.
    """
    if raw is None:
        return PruneOptions()
    if isinstance(raw, PruneOptions):
        return raw
    try:
        if isinstance(raw, dict):
            return PruneOptions.model_validate(raw)
        return PruneOptions.model_validate_json(raw)
    except ValidationError as error:
        problems = [
            {"field": ".".join(str(part) for part in e["loc"]) or "options", "problem": e["msg"]}
            for e in error.errors(include_url=False, include_context=False, include_input=False)
        ]
        first = problems[0]
        raise OptionsError(
            f"Option {first['field']!r}: {first['problem']}.", fields=problems
        ) from None
