"""The rule tables: what an operator does to channels, and its gradient.

A rule is registered for an operator of the default ONNX domain and a range of opsets. Two rules
whose ranges overlap are an error at import, so that a rule is never silently replaced.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    import onnx_ir as ir

    from graph_ops.channels import Channels
    from graph_ops.engines.tape import BackwardTape

    CouplingRule = Callable[[ir.Node, Channels], None]
    GradientRule = Callable[
        [ir.Node, Sequence[ir.Value | None], BackwardTape], Sequence[ir.Value | None]
    ]
    MixingRule = Callable[[ir.Node, Channels], Collection[int]]

NEWEST = 1_000
"""Upper end of an open opset range."""

_Rule = TypeVar("_Rule")


class DuplicateRuleError(ValueError):
    """Two rules claim the same operator at the same opset."""


@dataclass(frozen=True)
class _Entry(Generic[_Rule]):
    since: int
    until: int
    rule: _Rule


class RuleTable(Generic[_Rule]):
    """Rules by operator name and opset range (both ends included)."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._entries: dict[str, list[_Entry[_Rule]]] = {}

    def register(
        self, *op_types: str, since: int = 1, until: int = NEWEST
    ) -> Callable[[_Rule], _Rule]:
        """Decorator that registers a rule for the operators at opsets `since` to `until`.

        Raises:
            DuplicateRuleError: another rule covers one of the opsets.
        """

        def decorate(rule: _Rule) -> _Rule:
            for op_type in op_types:
                entries = self._entries.setdefault(op_type, [])
                for entry in entries:
                    if since <= entry.until and entry.since <= until:
                        raise DuplicateRuleError(
                            f"{self.name}: {op_type} at opsets {since}..{until} overlaps the rule "
                            f"for {entry.since}..{entry.until}"
                        )
                entries.append(_Entry(since, until, rule))
            return rule

        return decorate

    def find(self, domain: str, op_type: str, opset: int) -> _Rule | None:
        """The rule for an operator, or None when there is none."""
        if domain not in ("", "ai.onnx"):
            return None
        for entry in self._entries.get(op_type, ()):
            if entry.since <= opset <= entry.until:
                return entry.rule
        return None

    @property
    def op_types(self) -> list[str]:
        """Every operator that has a rule, sorted."""
        return sorted(self._entries)


COUPLINGS: RuleTable[CouplingRule] = RuleTable("coupling")
GRADIENTS: RuleTable[GradientRule] = RuleTable("gradient")
MIXINGS: RuleTable[MixingRule] = RuleTable("mixing")

coupling = COUPLINGS.register
gradient = GRADIENTS.register
mixing = MIXINGS.register
