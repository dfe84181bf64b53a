"""The accuracy benchmark's parts on something small, and its page names what it runs."""

from __future__ import annotations

import shutil
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks import tasks
from benchmarks.accuracy import __main__ as program
from benchmarks.accuracy import networks, ours, peers
from benchmarks.accuracy.results import Measured, Results

PAGE = (Path(__file__).parents[2] / "docs" / "accuracy.md").read_text()
FAKE_PEER = """
import os

import child


def open_network(folder, criterion, spread, output):
    name, images, labels = child.read_bundle(folder)
    assert len(images) == len(labels)
    assert output == "probabilities"
    whole = (folder / "model.onnx").read_bytes()

    def prune(ratio, path):
        print("what a peer prints is no answer")
        if ratio < 0:
            os._exit(1)
        if ratio > 0.5:
            raise ValueError(f"{criterion} {spread} cannot")
        path.write_bytes(whole)

    return prune


child.serve(open_network)
"""


@pytest.fixture(scope="module")
def task() -> tasks.Task:
    whole = tasks.digits()
    return replace(
        whole,
        images=whole.images[:60],
        labels=whole.labels[:60],
        test_images=whole.test_images[:200],
        test_labels=whole.test_labels[:200],
    )


def test_a_row_is_measured_once_and_kept(task: tasks.Task, tmp_path: Path) -> None:
    results = Results(tmp_path)
    (first,) = ours.row(task, "Taylor", [0.7], results)
    assert first is not None
    assert first.accuracy is not None
    assert first.accuracy > 0.8
    assert first.macs_ratio is not None
    assert first.macs_ratio <= 0.7
    kept = Results(tmp_path, measures=False)
    assert ours.row(task, "Taylor", [0.7, 0.5], kept) == [first, None]


def test_cells_say_where_the_macs_are_not_the_targets() -> None:
    assert Measured(0.9, 0.7).cell(0.7) == "90.0"
    assert Measured(0.9, 0.65).cell(0.7) == "90.0 (at 0.65)"
    assert Measured(error="no such filter").cell(0.7) == "fails: no such filter"


def test_findings_hold_the_goals_against_the_losses() -> None:
    row: list[Measured | None] = [Measured(0.98, t) for t in program.TARGETS]
    found = program.findings(0.995, {ours.RECONSTRUCT: row}, {})
    assert found == [
        "Taylor + reconstruct at 0.7: 1.5 points lost; at most 1 does not hold.",
        "Taylor + reconstruct at 0.5: 1.5 points lost; at most 3 holds.",
    ]


def test_findings_name_a_peer_that_is_not_beaten_at_no_more_macs() -> None:
    row: list[Measured | None] = [Measured(0.98, t) for t in program.TARGETS]
    peer = [
        Measured(0.99, 0.9),
        None,
        Measured(0.99, 0.8),
        Measured(error="x"),
        Measured(0.97, 0.5),
    ]
    found = program.findings(0.98, {ours.RECONSTRUCT: row}, {"Peer": peer})
    assert [line for line in found if "Peer" in line] == [
        "Taylor + reconstruct at 0.9: 98.0; Peer has 99.0."
    ]


def test_digits_are_tested_on_mnists_own_test_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(networks, "MNIST_TEST", tmp_path)
    with pytest.raises(FileNotFoundError, match="t10k-images"):
        networks.network("digits")
    images, labels = bytes(range(256)) * 7, bytes([3, 1])
    header = (2).to_bytes(4, "big") + (28).to_bytes(4, "big") * 2
    (tmp_path / networks.MNIST_IMAGES).write_bytes(b"\0\0\x08\x03" + header + images[: 2 * 784])
    (tmp_path / networks.MNIST_LABELS).write_bytes(b"\0\0\x08\x01\0\0\0\x02" + labels)
    task = networks.network("digits")
    assert task.test_images.shape == (2, 1, 28, 28)
    assert task.test_images.dtype == task.images.dtype
    assert task.test_images.max() == task.images.max() == 1.0
    assert task.test_images[0, 0, 1, 0] == pytest.approx(28 / 255)
    assert task.test_labels.tolist() == [3, 1]


def test_the_page_names_every_network_every_method_and_every_peer() -> None:
    assert all(f"`{name}`" in PAGE for name in networks.NAMES)
    assert all(f"| {method} " in PAGE for method in ours.METHODS)
    assert all(f"| {peer.label} " in PAGE for peer in peers.PEERS)


def a_network(size: float) -> bytes:
    return b"x" * int(size)


def test_bisection_finds_the_ratio_for_every_target() -> None:
    search = peers.Bisection(lambda ratio: a_network(1000 * (1 - ratio) ** 2), len)
    for target in (900, 700, 500):
        left, network = search.reach(target)
        assert left == len(network) == pytest.approx(target, rel=0.01)


def test_bisection_keeps_away_from_ratios_that_fail() -> None:
    def prune(ratio: float) -> bytes:
        if ratio > 0.2:
            raise peers.PeerError("too much")
        return a_network(1000 * (1 - ratio))

    left, _ = peers.Bisection(prune, len).reach(500)
    assert 795 <= left <= 830


def test_a_peer_that_always_fails_gives_its_reason() -> None:
    def prune(ratio: float) -> bytes:
        raise peers.PeerError("no such operator")

    with pytest.raises(peers.PeerError, match="no such operator"):
        peers.Bisection(prune, len).reach(500)


@pytest.fixture
def fake_peer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> peers.Peer:
    shutil.copy(peers.SCRIPTS / "child.py", tmp_path)
    (tmp_path / "with_fake.py").write_text(FAKE_PEER)
    (tmp_path / "fake.txt").touch()
    python = tmp_path / "fake" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    python.chmod(0o755)
    monkeypatch.setattr(peers, "SCRIPTS", tmp_path)
    monkeypatch.setattr(peers, "ENVIRONMENTS", tmp_path)
    return peers.Peer("Fake", "fake", "Taylor", "global")


def test_a_peer_answers_from_a_process_of_its_own(task: tasks.Task, fake_peer: peers.Peer) -> None:
    with peers.opened(task, fake_peer) as child:
        assert child.prune(0.4) == task.model
        with pytest.raises(peers.PeerError, match="ValueError: Taylor global cannot"):
            child.prune(0.6)
        assert child.prune(0.3) == task.model


def test_a_peer_that_ends_is_an_error(task: tasks.Task, fake_peer: peers.Peer) -> None:
    with peers.opened(task, fake_peer) as child, pytest.raises(peers.PeerError, match="ended"):
        child.prune(-1)


def test_a_peer_is_measured_once(task: tasks.Task, fake_peer: peers.Peer, tmp_path: Path) -> None:
    folder = tmp_path / "results"
    (measured,) = peers.measured(task, fake_peer, (0.7,), Results(folder))
    assert measured == Measured(task.accuracy(task.model), 1.0)
    (kept,) = peers.measured(task, fake_peer, (0.7,), Results(folder, measures=False))
    assert kept == measured


def test_the_networks_of_the_repository_are_there() -> None:
    for name in networks.OF_THE_REPOSITORY:
        assert networks.file_of(name, networks.SHARED).is_file()


def test_missing_data_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="cifar10_8k"):
        networks.network("vgg_cifar10", tmp_path)


def test_defaults_are_chosen_by_images_that_are_neither_fitted_nor_the_hold_outs(
    task: tasks.Task, tmp_path: Path
) -> None:
    spare = replace(task, other_images=task.test_images[:50], other_labels=task.test_labels[:50])
    assert task.accuracy_to_choose_by(task.model) is None
    found = ours.measured(spare, {"recovery": "none"}, 0.7, Results(tmp_path))
    assert found is not None
    assert found.accuracy is not None
    assert found.to_choose_by is not None
    assert (50 * found.to_choose_by).is_integer()
    shown = program.defaults_table({"none, score, 1 step": [found, Measured(0.9, 0.5)]})
    cells = [f"{100 * found.to_choose_by:.1f}", f"{100 * found.accuracy:.1f}", "–", "90.0"]
    assert [c.strip() for c in shown.splitlines()[-1].split("|")[2:-1]] == cells
