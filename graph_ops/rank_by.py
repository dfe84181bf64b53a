"""What layers are compared by, and why: the option `rank_by`, with `auto` resolved.

`auto` measures the layers where that was seen to pay (docs/accuracy.md): filters are scored by
Taylor and go in one round, and what is left is refitted. Whether a bundle allows it shows only when
it is read; `score_per_mac` is what takes its place then.
"""

from __future__ import annotations

from dataclasses import dataclass

from graph_ops.options import Criterion, PruneOptions

SCORE, SCORE_PER_MAC, ERROR_PER_MAC = "score", "score_per_mac", "error_per_mac"
COUNTED = ("filters", "filter_ratio")
"""Targets that count filters, whatever each costs."""
REFITTING = ("reconstruct", "distill")
"""Recoveries that give what is left new weights."""
TAYLOR = (Criterion.TAYLOR, Criterion.TAYLOR_SQUARED)


@dataclass(frozen=True)
class RankBy:
    """What is compared across layers.

    Attributes:
        kind: `score`, `score_per_mac` or `error_per_mac`.
        why: A sentence for the report.
        is_asked: Whether the options name it.
    """

    kind: str
    why: str
    is_asked: bool = False

    @property
    def measures(self) -> bool:
        """Whether layers are compared by measured errors."""
        return self.kind == ERROR_PER_MAC

    def unmeasured(self, reason: str) -> RankBy:
        """What takes its place where errors cannot be measured."""
        return RankBy(SCORE_PER_MAC, f"Errors of layers cannot be measured: {reason}.")


def rank_by(options: PruneOptions) -> RankBy:
    """What options come to, as far as they say."""
    if options.rank_by != "auto":
        return RankBy(options.rank_by, "The options say so.", is_asked=True)
    if options.target.kind in COUNTED:
        return RankBy(SCORE, "The target counts filters.")
    reason = _why_not_measured(options)
    if reason is not None:
        return RankBy(SCORE_PER_MAC, reason)
    return RankBy(ERROR_PER_MAC, "One round, scored by Taylor, and what is left is refitted.")


def _why_not_measured(options: PruneOptions) -> str | None:
    if options.recovery not in REFITTING:
        return f"With recovery {options.recovery} nothing is refitted."
    if options.rounds != 1:
        return "There are several rounds."
    if options.criterion not in TAYLOR:
        return f"The criterion is {options.criterion.value}."
    if options.normalization != "none":
        return f"Scores are normalised by {options.normalization}."
    return None
