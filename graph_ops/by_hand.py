"""Surgery by hand: channels that a person names, or that a report kept, dropped and proven.

Classes go as a whole. So a list of filters to drop takes along what is coupled to them; a list of
filters to keep has to name the same classes in every convolution it speaks of.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from graph_ops.bundle import BundleLimits
from graph_ops.channels import Convolution
from graph_ops.conclusion import Conclusion
from graph_ops.errors import ChannelListError, ReportMismatchError
from graph_ops.evidence import BundleEvidence, Evidence, RandomEvidence
from graph_ops.metrics import Examiner, choose_metric
from graph_ops.model import ModelLimits, SourceModel, load_model
from graph_ops.network import TaylorPrunableNetwork
from graph_ops.options import Criterion, PruneOptions, parse_options
from graph_ops.progress import ProgressCallback
from graph_ops.result import PruneResult
from graph_ops.rounds import Course
from graph_ops.run import Run, input_specs, opened

STOP_REASON = "cut_as_asked"


class ChannelLists(BaseModel):
    """Which filters go: exactly one field is set."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    drop: dict[str, tuple[int, ...]] | None = None
    """By name of a convolution, indices of filters to drop; what is coupled to them goes too."""
    keep: dict[str, tuple[int, ...]] | None = None
    """By name of a convolution, indices of all its filters that stay; convolutions that are not
    named keep what is not coupled to a dropped filter."""
    report: dict[str, Any] | None = None
    """A report of a run on a model of the same graph: what it kept is kept here."""

    @model_validator(mode="after")
    def _exactly_one(self) -> Self:
        given = [name for name in type(self).model_fields if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(f"give exactly one of drop, keep, report; found {given or 'none'}")
        return self


def parse_channel_lists(raw: ChannelLists | Mapping[str, Any]) -> ChannelLists:
    """Lists from a plain dict, or as they are.

    Raises:
        ChannelListError: not what lists look like.
    """
    if isinstance(raw, ChannelLists):
        return raw
    try:
        return ChannelLists.model_validate(dict(raw))
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        field = ".".join(str(part) for part in first["loc"]) or "channels"
        raise ChannelListError(f"{field}: {first['msg']}.", field=field) from None


def cut_channels(
    model: str | Path | bytes | SourceModel,
    channels: ChannelLists | Mapping[str, Any],
    bundle: str | Path | bytes | None = None,
    options: PruneOptions | dict[str, Any] | str | None = None,
    *,
    sample_shapes: Mapping[str, tuple[int, ...]] | None = None,
    progress: ProgressCallback | None = None,
    model_limits: ModelLimits | None = None,
    bundle_limits: BundleLimits | None = None,
) -> PruneResult:
    """Drop the channels that are named, and prove the result.

    With a bundle the proof is made on its samples, recovery gives back what it can (option
    `recovery`), and the metric is measured. Without one the proof is made on random inputs, and
    the weights stay as they are.

    Args:
        model: Path, bytes or loaded model.
        channels: `drop`, `keep` or `report`.
        bundle: Path or bytes of a bundle, or None.
        options: `recovery`, `metric` and what concerns the bundle; the target is not used.
        sample_shapes: Shape of one sample by input name, where the model leaves axes open and
            there is no bundle.
        progress: Called as the run goes on.
        model_limits: Bounds on the model file.
        bundle_limits: Bounds on the bundle.

    Raises:
        ChannelListError: a convolution or filter that is not there or may not go.
        ReportMismatchError: the report is of another graph.
        PrunerError: any other subclass; see `graph_ops.errors`.
    """
    lists = parse_channel_lists(channels)
    # Nothing is ranked, so nothing stays for want of a score or above a floor.
    asked = parse_options(options)
    unranked = {"criterion": Criterion.MAGNITUDE_L2, "min_filters": 1}
    run = Run(asked.model_copy(update=unranked), progress or (lambda _: None))
    if bundle is not None:
        with opened(run, model, bundle, model_limits, bundle_limits) as parts:
            network = parts.network
            metric = choose_metric(run.options, network.judgement)
            examiner = Examiner(network.source.model, parts.dataset, metric)
            evidence = BundleEvidence(parts.dataset, parts.bundle_sha256, examiner)
            return _cut(run, network, lists, evidence)
    with run.phase("load"):
        source = load_model(model, limits=model_limits)
    with run.phase("analyse"):
        network = TaylorPrunableNetwork(
            source, run.options, sample_shapes=sample_shapes, targets=None
        )
    specs = input_specs(source.model)
    random = RandomEvidence(specs, network.sample_shapes, run.options.seed)
    return _cut(run, network, lists, random)


def _cut(
    run: Run, network: TaylorPrunableNetwork, lists: ChannelLists, evidence: Evidence
) -> PruneResult:
    conclusion = Conclusion(run, network, evidence, network.num_prunables)
    with run.phase("select"):
        network.drop_classes(dropped_by(network, lists))
    return conclusion.result(Course(STOP_REASON, None))


def dropped_by(network: TaylorPrunableNetwork, lists: ChannelLists) -> NDArray[np.bool_]:
    """[classes] which go.

    Raises:
        ChannelListError: a convolution or filter that is not there, may not go, or that two lists
            disagree on.
        ReportMismatchError: the report is of another graph.
    """
    if lists.report is not None:
        dropped = _of_report(network, lists.report)
    elif lists.keep is not None:
        dropped = _of_keep(network, lists.keep)
    else:
        assert lists.drop is not None
        dropped = _of_drop(network, lists.drop)
    _check_allowed(network, dropped)
    return dropped


def _of_drop(
    network: TaylorPrunableNetwork, lists: Mapping[str, tuple[int, ...]]
) -> NDArray[np.bool_]:
    dropped = np.zeros_like(network.dropped)
    for name, indices in lists.items():
        convolution = _find(network, name)
        filters = network.classes.of_filters(convolution)
        dropped[filters[_checked(convolution, filters, indices, "drop")]] = True
    return dropped


def _of_keep(
    network: TaylorPrunableNetwork, lists: Mapping[str, tuple[int, ...]]
) -> NDArray[np.bool_]:
    dropped = np.zeros_like(network.dropped)
    for name, indices in lists.items():
        convolution = _find(network, name)
        filters = network.classes.of_filters(convolution)
        kept = _checked(convolution, filters, indices, "keep")
        dropped[np.delete(filters, kept)] = True
    for name, indices in lists.items():
        filters = network.classes.of_filters(_find(network, name))
        clash = [i for i in indices if dropped[filters[i]]]
        if clash:
            raise ChannelListError(
                f"Filter {clash[0]} of {name!r} is kept, but goes with a filter that another "
                "convolution, or this one, does not keep.",
                convolution=name,
                filter=clash[0],
            )
    return dropped


def _of_report(network: TaylorPrunableNetwork, report: Mapping[str, Any]) -> NDArray[np.bool_]:
    """What a report kept, once every convolution has been found to be the same."""
    entries = report.get("convolutions")
    if not isinstance(entries, list):
        raise ReportMismatchError("The report has no list of convolutions.", field="convolutions")
    convolutions = network.convolutions
    for number, (entry, convolution) in enumerate(zip(entries, convolutions, strict=False)):
        _check_same(number, entry, convolution)
    if len(entries) != len(convolutions):
        raise ReportMismatchError(
            f"The report has {len(entries)} convolutions; the model has {len(convolutions)}.",
            field="convolutions",
            expected=len(convolutions),
            found=len(entries),
        )
    lists = {
        c.name: tuple(entry["kept"])
        for entry, c in zip(entries, convolutions, strict=True)
        if c.filters is not None
    }
    try:
        return _of_keep(network, lists)
    except ChannelListError as error:
        raise ReportMismatchError(
            f"The report's lists do not fit the model: {error.message}", **error.details
        ) from None


def _check_same(number: int, entry: Any, convolution: Convolution) -> None:
    expected = {
        "name": convolution.name,
        "op_type": convolution.node.op_type,
        "depthwise": not convolution.is_producer,
        "filters_before": convolution.filter_count,
    }
    found = entry if isinstance(entry, dict) else {}
    for field, value in expected.items():
        if found.get(field) != value:
            raise ReportMismatchError(
                f"Convolution {number} of the model has {field} = {value!r}, and that of the "
                f"report has {found.get(field)!r}.",
                convolution=convolution.name,
                field=field,
                expected=value,
                found=found.get(field),
            )
    kept = found.get("kept")
    if not isinstance(kept, list) or not all(type(i) is int for i in kept):
        raise ReportMismatchError(
            f"The report's list of filters kept in {convolution.name!r} is no list of indices.",
            convolution=convolution.name,
            field="kept",
        )


def _find(network: TaylorPrunableNetwork, name: str) -> Convolution:
    for convolution in network.convolutions:
        if convolution.name == name:
            return convolution
    raise ChannelListError(
        f"The model has no convolution {name!r}.",
        convolution=name,
        convolutions=[c.name for c in network.convolutions],
    )


def _checked(
    convolution: Convolution,
    filters: NDArray[np.int64],
    indices: tuple[int, ...],
    verb: Literal["drop", "keep"],
) -> NDArray[np.int64]:
    """Indices that are inside, once each."""
    outside = [i for i in indices if not 0 <= i < filters.size]
    if outside or len(set(indices)) != len(indices):
        wrong = f"filter {outside[0]} is outside" if outside else "a filter is listed twice"
        raise ChannelListError(
            f"{verb}: convolution {convolution.name!r} has {filters.size} filters; {wrong}.",
            convolution=convolution.name,
            filters=int(filters.size),
        )
    return np.asarray(indices, dtype=np.int64)


def _check_allowed(network: TaylorPrunableNetwork, dropped: NDArray[np.bool_]) -> None:
    classes = network.classes
    for convolution in network.convolutions:
        filters = classes.of_filters(convolution)
        frozen = np.flatnonzero(dropped[filters] & classes.is_frozen[filters])
        if frozen.size:
            reason = classes.reason(int(filters[frozen[0]]))
            raise ChannelListError(
                f"Filter {int(frozen[0])} of {convolution.name!r} cannot be dropped: {reason}.",
                convolution=convolution.name,
                filter=int(frozen[0]),
            )
        if filters.size and dropped[filters].all():
            raise ChannelListError(
                f"No filter would be left of {convolution.name!r}.", convolution=convolution.name
            )
    if not classes.balances.hold(dropped):
        raise ChannelListError(
            "The groups of a grouped convolution would differ in width; drop as many filters from "
            "each of its groups."
        )
