"""Exports networks of torchvision and timm and prunes each: `make zoo ARGS="timm.resnet* ..."`.

    python -m benchmarks.zoo [PATTERN ...] [--variants ...] [--again] [--keep] [--table-only]

A pattern is a glob over LIBRARY.NAME; without one the whole list is run, which takes many hours.
What was measured is kept in benchmarks/zoo/measured, so that a run that was cut off goes on;
`--again` measures anew. Afterwards docs/zoo.md is written from all that is there.
"""

from __future__ import annotations

import argparse
from fnmatch import fnmatchcase
from pathlib import Path

from benchmarks.zoo.networks import NETWORKS, VARIANTS
from benchmarks.zoo.results import FOLDER, Results
from benchmarks.zoo.run import ROOT, Keep, measure_network
from benchmarks.zoo.table import page


def main() -> None:
    """Measure what is asked for and not there, then write the page."""
    parser = argparse.ArgumentParser(prog="benchmarks.zoo", description=__doc__)
    parser.add_argument("patterns", nargs="*", default=["*"], help="globs over LIBRARY.NAME")
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=VARIANTS)
    parser.add_argument("--again", action="store_true", help="measure what is there as well")
    parser.add_argument("--keep", action="store_true", help="keep exports for --again")
    parser.add_argument("--table-only", action="store_true", help="measure nothing")
    parser.add_argument(
        "--python", type=Path, default=ROOT / ".venv-zoo/bin/python", help="that of `make zoo`"
    )
    parser.add_argument("--results", type=Path, default=FOLDER, help="folder to keep results in")
    parser.add_argument("--page", type=Path, default=ROOT / "docs/zoo.md")
    arguments = parser.parse_args()
    results = Results(arguments.results)
    keeps = Keep.SMALL if arguments.keep else Keep.NONE
    asked = [n for n in NETWORKS if any(fnmatchcase(n.id, p) for p in arguments.patterns)]
    for number, network in enumerate([] if arguments.table_only else asked, start=1):
        missing = [
            variant
            for variant in arguments.variants
            if arguments.again or results.get(network.id, variant) is None
        ]
        if missing:
            measure_network(network, missing, arguments.python, results, keeps)
            outcomes = [results.get(network.id, v) or {} for v in missing]
            found = ", ".join(str(o.get("outcome")) for o in outcomes)
            print(f"{number}/{len(asked)} {network.id}: {found}", flush=True)
    arguments.page.write_text(page(results))


if __name__ == "__main__":
    main()
