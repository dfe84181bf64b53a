"""The pages and pins about dependencies agree with pyproject.toml and with what is installed."""

from __future__ import annotations

import re
import subprocess
import tomllib
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from graph_ops.engines.ort_training.environment import REQUIRED_VERSION

REPOSITORY = Path(__file__).resolve().parents[1]
TRAINING = REPOSITORY / "graph_ops" / "engines" / "ort_training" / "requirements"
PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]
CONSTRAINTS = [
    line
    for line in (REPOSITORY / "constraints.txt").read_text().splitlines()
    if line and not line.startswith("#")
]

# What would tie the repository to one machine or one package registry. The parts are joined here,
# so that this file does not hold what it looks for.
FORBIDDEN = re.compile(
    "|".join(
        [
            r"(?<![\w.~])/" + r"(?:work|root)/[\w.]",
            r"/opt/" + r"(?:pypi|wheels)",
            r"pypi\." + r"(?:org|python)",
            r"python" + r"hosted\.org",
            r"(?:extra-)?index-" + r"url",
            r"trusted-" + r"host",
            r"file://" + r"/\w",
        ]
    )
)


def direct_dependencies() -> list[Requirement]:
    lists = [PROJECT["dependencies"], *EXTRAS.values()]
    return [Requirement(text) for texts in lists for text in texts]


def pins() -> dict[str, str]:
    return {canonicalize_name(name): version for name, version in map(split_pin, CONSTRAINTS)}


def split_pin(line: str) -> tuple[str, str]:
    found = re.fullmatch(r"([A-Za-z0-9._-]+)==([A-Za-z0-9.]+)", line)
    assert found, f"{line!r} in constraints.txt is not name==version"
    return found[1], found[2]


def training_pins(kind: str) -> dict[str, str]:
    """Everything that an environment of the ort-training engine holds."""
    lines = (TRAINING / f"{kind}.txt").read_text().splitlines()
    return dict(split_pin(line) for line in lines if line and not line.startswith("#"))


def installed_closure() -> dict[str, str]:
    """Installed packages that this project asks for, directly or not, with their versions."""
    versions: dict[str, str] = {}
    waiting = [r for r in direct_dependencies() if not r.name.startswith("onnxruntime")]
    waiting += [Requirement(text) for text in EXTRAS["cpu"]]
    while waiting:
        requirement = waiting.pop()
        name = canonicalize_name(requirement.name)
        if name in versions:
            continue
        try:
            found = distribution(name)
        except PackageNotFoundError:
            continue  # for another platform or Python
        versions[name] = found.version
        texts = map(Requirement, found.requires or [])
        extras = ["", *requirement.extras]
        waiting += [
            r for r in texts if not r.marker or any(r.marker.evaluate({"extra": e}) for e in extras)
        ]
    return versions


def tracked_files() -> list[Path]:
    listing = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
    )
    if listing.returncode != 0:
        pytest.skip("not a git checkout")
    return [path for name in listing.stdout.split("\0") if (path := REPOSITORY / name).is_file()]


def test_every_dependency_has_a_line_that_says_why() -> None:
    page = (REPOSITORY / "docs" / "dependencies.md").read_text()
    explained = {name for name, why in re.findall(r"^\| `([\w-]+)` \| (.{10,}) \|$", page, re.M)}
    training = {
        name for name in {**training_pins("cpu"), **training_pins("gpu")} if "training" in name
    }
    assert explained == {requirement.name for requirement in direct_dependencies()} | training


def test_every_dependency_names_the_oldest_version_that_will_do() -> None:
    for requirement in direct_dependencies():
        assert [s.operator for s in requirement.specifier] == [">="], requirement


def test_everything_installed_is_pinned_at_its_version() -> None:
    installed = installed_closure()
    assert {"onnx", "starlette", "pluggy"} <= set(installed)
    known = pins()
    assert {name: known.get(name) for name in installed} == installed


def test_the_pins_satisfy_what_is_asked_for() -> None:
    known = pins()
    for requirement in direct_dependencies():
        assert requirement.specifier.contains(known[canonicalize_name(requirement.name)])


def test_nothing_is_pinned_twice() -> None:
    assert len(pins()) == len(CONSTRAINTS)


def test_no_file_names_a_registry_or_a_path_of_one_machine() -> None:
    found = []
    for path in tracked_files():
        content = path.read_bytes()
        if b"\0" in content:
            continue  # models and arrays
        for number, line in enumerate(content.decode(errors="replace").splitlines(), 1):
            if FORBIDDEN.search(line):
                found.append(f"{path.relative_to(REPOSITORY)}:{number}: {line.strip()[:100]}")
    assert not found, "\n".join(found)


@pytest.mark.parametrize("kind", ["cpu", "gpu"])
def test_the_training_environment_has_the_versions_of_this_one_where_they_share(kind: str) -> None:
    """Arrays and graphs pass between the two."""
    shared = {
        name: v for name, v in training_pins(kind).items() if canonicalize_name(name) in pins()
    }
    assert {"numpy", "onnx", "onnx-ir"} <= set(shared)
    assert shared == {name: pins()[canonicalize_name(name)] for name in shared}


def test_the_training_environments_have_the_version_the_engine_asks_for() -> None:
    assert training_pins("cpu")["onnxruntime-training-cpu"] == REQUIRED_VERSION
    assert training_pins("gpu")["onnxruntime-training"] == REQUIRED_VERSION
