"""`scripts/test-packages.sh` installs what is missing and nothing else, and never fails a run."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
SCRIPT = REPOSITORY / "scripts" / "test-packages.sh"


class Machine:
    """Programs that a machine has, and what its apt-get was asked for."""

    def __init__(self, folder: Path) -> None:
        self.programs = folder / "programs"
        self.asked = folder / "asked"
        self.root = folder / "root"
        self.policy = self.root / "usr" / "sbin" / "policy-rc.d"
        self.policy.parent.mkdir(parents=True)
        self.programs.mkdir()
        for name in ("bash", "rm", "chmod"):
            (self.programs / name).symlink_to(str(shutil.which(name)))

    def add(self, name: str, text: str = "exit 0") -> None:
        path = self.programs / name
        path.write_text(f"#!/bin/bash\n{text}\n")
        path.chmod(0o755)

    def run(self, user: int = 0, apt: str = "exit 0") -> str:
        """What the script says."""
        self.add("id", f"echo {user}")
        if apt:
            policy = f"[[ -x {self.policy} ]] && echo unstarted >> {self.asked}"
            self.add("apt-get", f'echo "$@" >> {self.asked}; {policy}\n{apt}')
        environment = {"PATH": str(self.programs), "TEST_PACKAGES_ROOT": str(self.root)}
        done = subprocess.run(
            [SCRIPT], env=environment, capture_output=True, text=True, check=True, timeout=60
        )
        return done.stdout + done.stderr

    @property
    def installed(self) -> list[str]:
        lines = self.asked.read_text().splitlines() if self.asked.exists() else []
        return [line.partition("install ")[2] for line in lines if " install " in line]


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def test_what_is_missing_is_installed_and_not_started(machine: Machine) -> None:
    assert "Installing chromium postgresql" in machine.run()
    assert machine.installed == ["chromium postgresql"]
    assert "unstarted" in machine.asked.read_text()
    assert not machine.policy.exists()


def test_what_is_there_is_left_alone(machine: Machine) -> None:
    machine.add("chromium")
    assert "Installing postgresql" in machine.run()
    assert machine.installed == ["postgresql"]
    programs = machine.root / "usr" / "lib" / "postgresql" / "15" / "bin"
    programs.mkdir(parents=True)
    (programs / "pg_ctl").touch()
    assert machine.run() == ""
    assert machine.installed == ["postgresql"]


def test_a_policy_of_the_machine_stays(machine: Machine) -> None:
    machine.policy.write_text("theirs")
    machine.run()
    assert machine.policy.read_text() == "theirs"


@pytest.mark.parametrize(
    ("user", "apt", "words"),
    [
        (0, "exit 100", "apt-get failed"),
        (1000, "exit 0", "takes root and apt-get"),
        (0, "", "takes root and apt-get"),
    ],
)
def test_where_nothing_can_be_installed_it_says_so_and_does_not_fail(
    machine: Machine, user: int, apt: str, words: str
) -> None:
    said = machine.run(user, apt)
    assert words in said
    assert "the tests that need them are skipped" in said


def test_continuous_integration_runs_it_first() -> None:
    commands = (REPOSITORY / ".ci" / "run").read_text().splitlines()
    assert commands.index("scripts/test-packages.sh") < commands.index("make setup")
    assert os.access(SCRIPT, os.X_OK)
