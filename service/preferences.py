"""The `Prefer` header (RFC 7240): whether and how long a client wants to wait."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

_WAIT = re.compile(r'wait\s*=\s*"?(\d{1,9})"?')


@dataclass(frozen=True)
class Preferences:
    """What of the header is understood here.

    Attributes:
        is_async: The client takes 202 and a place to look.
        wait_s: Seconds it wants to wait at most; None when it says nothing.
    """

    is_async: bool = False
    wait_s: int | None = None

    @property
    def patience_s(self) -> float | None:
        """Seconds to wait before answering 202; None to wait to the end."""
        if self.wait_s is None and self.is_async:
            return 0.0
        return self.wait_s

    @property
    def applied(self) -> str:
        """Value of `Preference-Applied`; empty when nothing was asked."""
        applied = ["respond-async"] if self.is_async else []
        if self.wait_s is not None:
            applied.append(f"wait={self.wait_s}")
        return ", ".join(applied)


def parse_prefer(values: Sequence[str]) -> Preferences:
    """Preferences from all `Prefer` header lines; unknown ones are ignored, the first one wins."""
    is_async, wait_s = False, None
    for preference in ",".join(values).split(","):
        token = preference.split(";")[0].strip().lower()
        wait = _WAIT.fullmatch(token)
        if token == "respond-async":
            is_async = True
        elif wait and wait_s is None:
            wait_s = int(wait.group(1))
    return Preferences(is_async, wait_s)
