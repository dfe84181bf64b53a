"""Run every benchmark in turn, each in a process of its own: `python -m benchmarks`.

Those in `ALONE` take long, or a machine of their own, and are run by name.
"""

from __future__ import annotations

import subprocess
import sys

ORDER = (
    "digits_curve",
    "criterion_correlation",
    "defaults",
    "graph_scaling",
    "job_overhead",
)
ALONE = ("goals", "image_memory", "load", "upload")


def main() -> None:
    """Run them; each prints its own tables."""
    for name in ORDER:
        print(f"\n# {name}\n", flush=True)
        subprocess.run([sys.executable, "-m", f"benchmarks.{name}"], check=True)


if __name__ == "__main__":
    main()
