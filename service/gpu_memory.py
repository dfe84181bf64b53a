"""How much memory of its GPU a worker's machine uses, as the driver's own tool says."""

from __future__ import annotations

import shutil
import subprocess
import time

_ASK_S = 15.0
_TIMEOUT_S = 5.0
_MIB = 2**20


class GpuMemory:
    """Asks `nvidia-smi`, no more often than every 15 seconds.

    Args:
        device: Index of the GPU.
    """

    def __init__(self, device: int) -> None:
        self._device = device
        self._asked_at = -_ASK_S
        self._found: tuple[int, int] | None = None

    def read(self) -> tuple[int, int] | None:
        """Used and total bytes; None where there is no GPU."""
        at = time.monotonic()
        if at - self._asked_at >= _ASK_S:
            self._asked_at, self._found = at, self._ask()
        return self._found

    def _ask(self) -> tuple[int, int] | None:
        program = shutil.which("nvidia-smi")
        if program is None:
            return None
        query = "--query-gpu=memory.used,memory.total"
        try:
            done = subprocess.run(
                [program, query, "--format=csv,noheader,nounits", f"--id={self._device}"],
                capture_output=True,
                text=True,
                timeout=_TIMEOUT_S,
                check=True,
            )
            used, total = (int(part) * _MIB for part in done.stdout.split(","))
        except (OSError, ValueError, subprocess.SubprocessError):
            return None
        return used, total
