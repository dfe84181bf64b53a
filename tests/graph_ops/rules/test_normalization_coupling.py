"""What normalisations over positions and over features do to channels."""

from __future__ import annotations

import numpy as np

from graph_ops.analysis import analyse
from graph_ops.canonical import bind_shapes
from graph_ops.channel_classes import ChannelClasses
from tests.graph_ops.rules.gradient_harness import GradientSpec, build_model

IMAGE = (2, 3, 6, 6)
WEIGHTS = {"w1": (4, 3, 3, 3), "w2": (5, 4, 3, 3), "s": (4,), "b": (4,)}


def classes_of(body: str, **weights: object) -> ChannelClasses:
    """Classes of Conv (4 filters) → body from a to z → Conv (5 filters)."""
    spec = GradientSpec(
        "coupling", f"a = Conv(x, w1) {body} y = Conv(z, w2)", {"x": IMAGE}, {**WEIGHTS, **weights}
    )
    model = build_model(spec)
    return analyse(model, bind_shapes(model, {"x": IMAGE[1:]}))


def test_instance_normalization_couples_its_parameters_to_the_channels() -> None:
    classes = classes_of("z = InstanceNormalization(a, s, b)")
    filters = classes.of_filters(classes.channels.convolutions[0])
    assert len(set(filters.tolist())) == 4
    assert not classes.is_frozen[filters].any()
    by_name = {str(value.name): axes for value, axes in classes.channels.labelled_values()}
    for vector in ("s", "b"):
        labels = by_name[vector][0]
        assert labels is not None
        assert classes.class_of[labels].tolist() == filters.tolist()


def test_layer_normalization_over_positions_leaves_channels_free() -> None:
    classes = classes_of("z = LayerNormalization <axis=2> (a, p)", p=(4, 4))
    assert not classes.is_frozen[classes.of_filters(classes.channels.convolutions[0])].any()


def test_layer_normalization_over_channels_freezes_them() -> None:
    body = (
        "t = Transpose <perm=[0,2,3,1]> (a) n = LayerNormalization(t, s, b) "
        "z = Transpose <perm=[0,3,1,2]> (n)"
    )
    classes = classes_of(body)
    filters = classes.of_filters(classes.channels.convolutions[0])
    assert classes.is_frozen[filters].all()
    assert "LayerNormalization" in str(classes.reason(int(filters[0])))


def test_group_normalization_through_reshapes_keeps_groups_rectangular() -> None:
    body = "r = Reshape(a, to) n = InstanceNormalization(r, g, g) z = Reshape(n, back)"
    classes = classes_of(
        body, to=np.asarray([0, 2, -1]), back=np.asarray([0, 4, 4, 4]), g=np.ones(2, np.float32)
    )
    filters = classes.of_filters(classes.channels.convolutions[0])
    is_whole_groups = len(set(filters[:2].tolist())) == 1 == len(set(filters[2:].tolist()))
    assert is_whole_groups or classes.is_frozen[filters].all()
