"""docs/zoo.md, from what was measured."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.tables import markdown_table
from benchmarks.zoo.networks import NETWORKS, VARIANTS, Network
from benchmarks.zoo.results import Results

INTRODUCTION = Path(__file__).with_name("introduction.md")
MEGA = 1e6
LONGEST_ERROR = 200
HEADER = (
    "network",
    "side",
    "variant",
    "convolutions",
    "prunable",
    "MACs",
    "parameters",
    "proof",
    "s",
    "left alone",
)


def page(results: Results) -> str:
    """The page: a summary, then a table for each library."""
    cases = [
        (network, variant, facts)
        for network in NETWORKS
        for variant in VARIANTS
        if (facts := results.get(network.id, variant)) is not None
    ]
    parts = [INTRODUCTION.read_text(), summary([(n.id, facts) for n, _, facts in cases])]
    for library in dict.fromkeys(network.library for network, _, _ in cases):
        rows = [row(n, v, f) for n, v, f in cases if n.library == library]
        parts.append(f"\n## {library}\n\n{markdown_table(HEADER, rows)}\n")
    return "".join(parts)


def summary(cases: Sequence[tuple[str, dict[str, Any]]]) -> str:
    """How many cases came to what, of the networks measured."""
    found = [facts for _, facts in cases]
    outcomes = Counter(str(f["outcome"]) for f in found)
    gaps = [f["engine_gap"] for f in found if "engine_gap" in f]
    networks = Counter(network_id for network_id, _ in cases)
    complete = sum(count == len(VARIANTS) for count in networks.values())
    lines = [
        f"Measured so far: {len(networks)} of the list's {len(NETWORKS)} networks, "
        f"{complete} of them in all {len(VARIANTS)} variants."
    ]
    lines += [f"{len(found)} cases: {', '.join(f'{n} {o}' for o, n in outcomes.most_common())}."]
    proofs = [f["proof"] for f in found if f["outcome"] == "pruned"]
    if proofs:
        lines.append(f"Largest proof figure: {max(proofs):.1e}.")
        rounded = [f["float32_proof"] for f in found if f.get("float32_proof")]
        if rounded:
            lines.append(
                f"Proven in float64, because their random weights carry rounding too far: "
                f"{len(rounded)}, with up to {max(rounded):.1e} in float32."
            )
    if gaps:
        lines.append(
            f"Scored with both engines: {len(gaps)}; largest difference of the scores, "
            f"relative to the largest score: {max(gaps):.1e}."
        )
    return " ".join(lines) + "\n"


def row(network: Network, variant: str, facts: dict[str, Any]) -> list[str]:
    """One case."""
    first = [network.name, str(facts.get("side") or ""), variant]
    outcome = facts["outcome"]
    if outcome == "pruned":
        return [
            *first,
            str(facts["convolutions"]),
            f"{facts['prunable']} of {facts['filters']}",
            _arrow(facts["macs"]),
            _arrow(facts["parameters"]),
            _proof(facts),
            str(round(facts["seconds"])),
            _reasons(facts["frozen"]),
        ]
    count = str(facts.get("convolutions", ""))
    why = _reasons(facts["frozen"]) if "frozen" in facts else _one_line(str(facts.get("error")))
    return [*first, count, outcome, "", "", "", str(round(facts.get("seconds", 0)) or ""), why]


def _proof(facts: Mapping[str, Any]) -> str:
    """The figure, and how it was come by."""
    how = " in float64" if facts.get("float32_proof") else ""
    if facts.get("float64_proof"):
        how = " node by node"
    return f"{facts['proof']:.1e}{how}"


def _arrow(pair: list[int | None]) -> str:
    if pair[0] is None or pair[1] is None:
        return ""
    return f"{pair[0] / MEGA:.1f} → {pair[1] / MEGA:.1f}"


def _reasons(counts: dict[str, int]) -> str:
    return "; ".join(f"{count}: {reason}" for reason, count in counts.items())


def _one_line(text: str) -> str:
    return " ".join(text.split("\n")[-1].replace("|", "/").split())[:LONGEST_ERROR]
