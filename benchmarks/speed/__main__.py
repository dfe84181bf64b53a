"""All of docs/performance.md, each part in a process of its own: `make bench-speed`."""

from __future__ import annotations

import subprocess
import sys

PARTS = ("scoring", "operators", "rounds", "memory", "latency")


def main() -> None:
    """Run the parts in turn; each prints its own table."""
    for part in PARTS:
        print(f"\n# {part}\n", flush=True)
        subprocess.run([sys.executable, "-m", f"benchmarks.speed.{part}"], check=True)


if __name__ == "__main__":
    main()
