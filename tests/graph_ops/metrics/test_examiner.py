"""The examiner runs the original once, however many models are held against it."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from graph_ops.metrics import Examiner, choose_metric, examiner
from graph_ops.options import parse_options
from graph_ops.run import Opened, Run, opened
from graph_ops.runtime import Array, Session
from tests.support import digits

OPTIONS = parse_options({"max_samples": 300, "batch_size": 16, "metric": "agreement"})


@pytest.fixture
def parts() -> Iterator[Opened]:
    with opened(Run(OPTIONS), digits.MODEL, digits.BUNDLE, None, None) as parts:
        yield parts


def new_examiner(parts: Opened) -> Examiner:
    metric = choose_metric(OPTIONS, parts.network.judgement)
    return Examiner(parts.network.source.model, parts.dataset, metric)


def test_the_originals_outputs_are_kept(parts: Opened, monkeypatch: pytest.MonkeyPatch) -> None:
    runs: list[Session] = []
    whole = Session.run

    def counted(session: Session, *arguments: object) -> list[Array]:
        runs.append(session)
        return whole(session, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(Session, "run", counted)
    found = new_examiner(parts)
    for _ in range(3):
        found.examine(parts.network.to_ir())
    assert sum(session is found.original for session in runs) == 2  # batches


@pytest.mark.parametrize("room", [0, 16 * 10 * 4])
def test_what_there_is_no_room_for_is_computed_again(
    parts: Opened, monkeypatch: pytest.MonkeyPatch, room: int
) -> None:
    wanted = new_examiner(parts).examine(parts.network.to_ir())
    monkeypatch.setattr(examiner, "KEPT_BYTES", room)
    narrow = new_examiner(parts)
    for _ in range(2):
        found = narrow.examine(parts.network.to_ir())
        assert np.array_equal(found.after, wanted.after)
        assert np.array_equal(found.before, wanted.before)


def test_a_glance_sees_fewer_samples_and_the_same_values(parts: Opened) -> None:
    whole = new_examiner(parts)
    count = len(parts.dataset.held_out)
    assert whole.on_fewer(count) is whole
    glance = whole.on_fewer(7)
    assert glance.original is whole.original
    model = parts.network.to_ir()
    picked = np.linspace(0, count - 1, 7).round().astype(int)
    few, all_of_them = glance.examine(model), whole.examine(model)
    assert np.array_equal(few.before, all_of_them.before[picked])
    assert np.allclose(few.soft_after, all_of_them.soft_after[picked], rtol=1e-5)
