"""The options of a pruning run: one pydantic model for library, CLI and HTTP.

Its JSON schema is served at `/v1/options/schema`; every field's description below is what a
person reads there.
"""

from __future__ import annotations

import math
from enum import StrEnum
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from graph_ops.errors import OptionsError
from graph_ops.preprocessing import Preprocessing

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
    max_latency_ratio: Ratio | None = None
    """Share of the latency that may remain, measured with ONNX Runtime here, or reckoned from
    `latency_table`."""
    max_metric_drop: Annotated[float, Field(gt=0.0)] | None = None
    """The smallest model whose held-out metric is worse by at most this, in the metric's unit
    (0.01 is one point of accuracy)."""

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
    def is_searched(self) -> bool:
        """Whether the size that meets it has to be found by trying."""
        return self.kind in ("max_metric_drop", "max_latency_ratio")

    @property
    def value(self) -> float:
        """Value of the field that is set."""
        return float(getattr(self, self.kind))


class LayerLatency(_Options):
    """Latency of one convolution by its numbers of channels."""

    outputs: Annotated[tuple[int, ...], Field(min_length=1)]
    """Numbers of filters, ascending."""
    inputs: Annotated[tuple[int, ...], Field(min_length=1)] | None = None
    """Numbers of input channels, ascending; not given where the latency goes by the filters alone,
    as for depthwise convolutions."""
    ms: Annotated[tuple[tuple[Annotated[float, Field(ge=0)], ...], ...], Field(min_length=1)]
    """Milliseconds: a row for each of `inputs` (one row without them), an entry for each of
    `outputs`."""

    @model_validator(mode="after")
    def _is_a_grid(self) -> Self:
        for axis in (self.outputs, self.inputs or (1,)):
            if list(axis) != sorted(set(axis)) or axis[0] < 1:
                raise ValueError(f"numbers of channels have to ascend from 1 or more: {axis}")
        rows = len(self.inputs or (1,))
        if len(self.ms) != rows or any(len(row) != len(self.outputs) for row in self.ms):
            raise ValueError(f"ms has to have {rows} rows of {len(self.outputs)} entries")
        return self


class LatencyTable(_Options):
    """What convolutions of a model cost on a device, as measured there."""

    device: str = ""
    """Name of the device, for people."""
    overhead_ms: Annotated[float, Field(ge=0)] = 0.0
    """Milliseconds of everything else, whatever the channels."""
    layers: Annotated[dict[str, LayerLatency], Field(min_length=1)]
    """By name of the convolution."""


BLOCK_ITERATIONS = 50
"""Gradient steps for each block where none are asked for."""


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
    increment: Ratio | None = None
    """Share of the original that each round takes on the way to a ratio, in place of `steps`:
    with `max_params_ratio` 0.6 and an increment of 0.1 there are four rounds. For other targets
    a share of the way."""
    score_batches: Annotated[int, Field(ge=1)] | None = None
    """Batches that each round scores on, drawn anew; all when not given."""
    min_metric: float | None = None
    """Value that the held-out metric may not fall below (or rise above, where lower is better):
    the round that would is taken back, and the run ends."""
    minimize: Literal["macs", "parameters", "bytes", "latency"] = "macs"
    """What `max_metric_drop` makes as small as it can."""
    points: Annotated[int, Field(ge=2, le=50)] | None = None
    """Return the whole curve: so many models, evenly spaced on the way to the target, each proven
    and recovered; the bundle is scored once."""
    latency_table: LatencyTable | None = None
    """Latencies of the convolutions on your device, for `max_latency_ratio`."""
    criterion: Criterion = Criterion.TAYLOR
    """`taylor`: mean over samples of |Σ activation·gradient|; `taylor_squared`: of its square;
    `magnitude_l2`: l2 norm of the filter's weights; `random`: seeded noise (a baseline)."""
    normalization: Literal["none", "l2", "mean"] = "none"
    """Scores are divided by this statistic of their layer before layers are compared."""
    rank_by: Literal["auto", "score", "score_per_mac", "error_per_mac"] = "auto"
    """What is compared across layers. `error_per_mac` measures what each layer is worth: parts of
    it go, the rest is refitted, and the outputs' error counts; within a layer those filters go
    first that a refit can make up for. `auto` is `score` for the targets `filters` and
    `filter_ratio`; for the others `error_per_mac` where one round is scored by Taylor without
    normalization and refitted, and `score_per_mac` elsewhere."""
    reduction: Literal["sum", "mean"] = "sum"
    """How activation·gradient is reduced over a filter's output positions: `sum` is the
    first-order change of the loss; `mean` (Molchanov 2017) divides by their number."""
    gate: Literal["batch_norm", "convolution"] = "batch_norm"
    """Where a filter is taken to end: `batch_norm` measures the change when its output moves to
    the value that a following BatchNormalization maps to zero, which is what dropping does;
    `convolution` when the convolution's own output moves to zero."""
    min_filters: Annotated[int, Field(ge=1)] = 4
    """Never fewer filters left in a convolution."""
    channel_multiple: Annotated[int, Field(ge=1, le=256)] | None = None
    """Kept filter counts are a multiple of this where the structure allows. When not given, the
    target is about MACs or latency and a layer has 64 filters or more: 8 in layers of at least 64
    and 4 in those of at least 16, because runtimes are slow at other counts; 1 elsewhere."""
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
    preprocessing: Preprocessing | None = None
    """How the images of a bundle become samples, in place of its `bundle.json`."""
    recovery: Literal["none", "bias", "reconstruct", "distill"] = "reconstruct"
    """How accuracy is given back after the cut: `bias` moves the mean of what was removed into
    biases; `reconstruct` refits every layer behind a cut by ridge regression, and then trains one
    block after the other towards what the original's gives there; `distill` does that and then
    trains the network towards the original's outputs. None of it needs labels."""
    block_iterations: Annotated[int, Field(ge=0, le=100_000)] | None = None
    """Gradient steps of `reconstruct` for each block, each on 64 samples (down to 8 where a
    network has many MACs); 0 leaves the regressions' result as it is. When not given 50, and 0
    for the target `max_metric_drop`, which would train every size it tries."""
    distill_iterations: Annotated[int, Field(ge=1, le=100_000)] = 300
    """Gradient steps of `distill`, each on one batch."""
    engine: Literal["auto", "standard", "ort-training"] = "auto"
    """Who computes the gradients: `standard` (our own backward graph), `ort-training`
    (onnxruntime-training in its own process), or `auto`: `ort-training` where it can use a GPU,
    else `standard`."""
    score_shards: Annotated[int, Field(ge=1, le=256)] | None = None
    """Parts that a service's workers may score at the same time, 1 for none; when not given, what
    the service is set to. Any number gives the same scores, bit for bit."""
    batch_size: Annotated[int, Field(ge=1, le=65536)] = 32
    """Samples per forward and backward pass (a model with a fixed batch size uses its own)."""
    max_samples: Annotated[int, Field(ge=1)] | None = None
    """Samples of the bundle that are used, drawn by the seed; all when not given."""
    validation_fraction: Annotated[float, Field(ge=0.0, lt=1.0)] | None = None
    """Share of the samples held out for the before/after metric and never scored on; when not
    given 0.1, and 0.3 for the target `max_metric_drop`, which is decided on them."""
    metric: Literal["auto", "accuracy", "top_k", "loss", "mse", "agreement", "custom"] = "auto"
    """What is measured on the hold-out; `auto` fits the output and the targets. `mse` is taken to
    the original model's output where there are no targets like it; `agreement` is the share of
    samples that get the original model's class; `custom` is the model in `metric_model`."""
    top_k: Annotated[int, Field(ge=1)] = 5
    """The k of the metric `top_k`."""
    metric_model: str | None = None
    """An ONNX file in base64: from `output`, `original` and `targets` (those that it names as its
    inputs) to one number per sample."""
    metric_direction: Literal["higher", "lower"] = "higher"
    """Which values of `metric_model` are better."""
    seed: Annotated[int, Field(ge=0, le=2**32 - 1)] = 0
    """Seed of every random choice."""

    @model_validator(mode="after")
    def _one_schedule(self) -> Self:
        schedules = ("steps", "filters_per_step", "increment")
        given = [name for name in schedules if getattr(self, name) is not None]
        if len(given) > 1:
            raise ValueError(f"give {' or '.join(given)}, not both")
        if self.is_on_one_ranking and (given or self.min_metric is not None):
            raise ValueError(
                "max_metric_drop, max_latency_ratio and points go along one ranking: give no "
                + ", ".join([*schedules, "min_metric"])
            )
        if self.points is not None and self.target.max_metric_drop is not None:
            raise ValueError("points go with a target that says where the curve ends")
        return self

    @property
    def is_on_one_ranking(self) -> bool:
        """Whether sizes are searched or listed along a single ranking of the filters."""
        return self.points is not None or self.target.is_searched

    @property
    def rounds(self) -> int | None:
        """Rounds on the way to the target; None where filters are counted in each."""
        if self.filters_per_step is not None:
            return None
        if self.increment is not None:
            return max(1, math.ceil(self._way / self.increment - 1e-9))
        return self.steps or 1

    @property
    def _way(self) -> float:
        """What `increment` is a share of: what has to go, as a share of the original."""
        return 1 - self.target.value if self.target.kind.endswith("_ratio") else 1.0

    def share_of(self, number: int) -> float:
        """Share of the way to the target that a round should reach."""
        if self.increment is not None:
            return min(1.0, number * self.increment / self._way)
        return min(1.0, number / (self.rounds or 1))

    @property
    def steps_of_blocks(self) -> int:
        """Gradient steps for each block after `reconstruct`."""
        if self.block_iterations is not None:
            return self.block_iterations
        return 0 if self.target.max_metric_drop is not None else BLOCK_ITERATIONS

    @property
    def held_out_share(self) -> float:
        """Share of the samples that is held out."""
        if self.validation_fraction is not None:
            return self.validation_fraction
        return 0.3 if self.target.max_metric_drop is not None else 0.1

    @property
    def minds_latency(self) -> bool:
        """Whether the target speaks of computation, so that what is left should be fast."""
        if self.filters_per_step is not None:
            return False
        if self.target.max_metric_drop is not None:
            return self.minimize in ("macs", "latency")
        return self.target.kind in ("max_macs_ratio", "max_latency_ratio")


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
