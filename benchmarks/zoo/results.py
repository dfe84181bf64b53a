"""What came of every case, a tracked JSON file each: a run that was cut off goes on anywhere."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent / "measured"


@dataclass(frozen=True)
class Results:
    """A folder of cases.

    Attributes:
        folder: Where they are kept.
    """

    folder: Path = FOLDER

    def path(self, network_id: str, variant: str) -> Path:
        """Where a case is kept."""
        return self.folder / f"{network_id}.{variant}.json"

    def get(self, network_id: str, variant: str) -> dict[str, Any] | None:
        """A case's facts, or None where it was not measured."""
        path = self.path(network_id, variant)
        facts: dict[str, Any] | None = json.loads(path.read_text()) if path.exists() else None
        return facts

    def put(self, network_id: str, variant: str, facts: dict[str, Any]) -> None:
        """Keep a case."""
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.path(network_id, variant)
        partial = path.with_suffix(".partial")
        partial.write_text(json.dumps(facts, indent=1) + "\n")
        partial.replace(path)
