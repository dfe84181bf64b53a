"""From the filters that are left to a result: cut, write, prove, recover, measure, report."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from graph_ops.cost import latencies_ms
from graph_ops.equivalence import check_same_structure, prove
from graph_ops.evidence import Evidence
from graph_ops.metrics import MetricResult
from graph_ops.network import TaylorPrunableNetwork
from graph_ops.profiling import OperatorTime, operator_times
from graph_ops.report import Cost, RunFacts, build_report
from graph_ops.result import PruneResult, write_and_read_back
from graph_ops.rounds import Course
from graph_ops.run import Run, options_as_text
from graph_ops.runtime import Session
from graph_ops.version import TOOL, VERSION

LATENCY_S = 0.6
"""Time that the two latencies of a report may take (three runs are always made)."""
_UNMEASURED = MetricResult(None, None, None, 0)


@dataclass(frozen=True)
class Conclusion:
    """What turns a network with filters dropped into a result.

    Attributes:
        run: Options, clock, progress.
        network: The network.
        evidence: What is proven and measured on.
        prunable_before: Filters that could have gone at most.
    """

    run: Run
    network: TaylorPrunableNetwork
    evidence: Evidence
    prunable_before: int

    def result(self, course: Course) -> PruneResult:
        """Cut the network as it stands, prove, recover, measure, report.

        The model is cut from the original in one piece, so that the proof compares like with
        like; recovery changes its weights after that.

        Args:
            course: How the run came here; its recovery is taken over where there is one.

        Raises:
            SurgeryError: the cut model is refused by the checks.
            ProofError: it does not equal the masked original.
        """
        run, network, evidence = self.run, self.network, self.evidence
        with run.phase("cut"):
            run.tell("cut", 0, 1)
            plain = network.to_plain_ir()
        with run.phase("write"):
            run.tell("write", 0, 1)
            metadata = self._metadata()
            proven = write_and_read_back(network.source, plain, metadata)
        with run.phase("prove"):
            run.tell("prove", 0, 1)
            cut_only = proven.reloaded.model
            proof = prove(network.classes, network.dropped, cut_only, evidence.proof_batches())
        recovery = course.recovery
        if recovery is None and evidence.dataset is not None:
            number = len(run.rounds)
            recovery = run.recover(network, evidence.dataset, number, is_interim=False)
        pruned, written = plain, proven
        if recovery is not None and recovery.weights:
            with run.phase("write"):
                pruned = network.to_ir()
                written = write_and_read_back(network.source, pruned, metadata)
                check_same_structure(cut_only, written.reloaded.model)
        returned = written.reloaded.model
        with run.phase("measure"):
            run.tell("measure", 0, 1)
            found = self._measure(returned)
            unrecovered = found if written is proven else self._measure(cut_only)
            batch, feeds = evidence.latency_feeds()
            before_ms, after_ms = latencies_ms(
                [self._original, Session(returned)], feeds, budget_s=LATENCY_S
            )
            operators_before = self._operators_before
            operators_after = operator_times(returned, feeds)
        if run.rounds and run.rounds[-1]["latency_ms"] is None:
            run.rounds[-1] |= {"metric": found.after, "latency_ms": after_ms}
        nothing = np.zeros_like(network.dropped)
        facts = RunFacts(
            bundle_sha256=evidence.bundle_sha256,
            bundle_samples=evidence.samples,
            images=None if run.images is None else run.images.as_json(),
            held_out=evidence.held_out,
            proof_inputs=evidence.inputs,
            stop_reason=course.stop_reason,
            rounds=run.rounds,
            rank_by=run.rank_by,
            engine=run.engine,
            metric=found,
            before=_cost(network, nothing, network.source.size_bytes, before_ms, batch),
            after=_cost(network, network.dropped, written.size_bytes, after_ms, batch),
            proof=proof,
            recovery=recovery,
            unrecovered=unrecovered,
            operators_before=operators_before,
            operators_after=operators_after,
            prunable_before=self.prunable_before,
            timing_s=run.timing_s,
            goal=course.goal,
        )
        report = build_report(network, facts)
        run.tell("measure", 1, 1)
        return PruneResult(report, course.first_scores, network.source, pruned, metadata, written)

    @cached_property
    def _original(self) -> Session:
        """The original, loaded once for all points of a curve; the examiner has it too."""
        if self.evidence.examiner is not None:
            return self.evidence.examiner.original
        return Session(self.network.source.model)

    @cached_property
    def _operators_before(self) -> list[OperatorTime]:
        _, feeds = self.evidence.latency_feeds()
        return operator_times(self.network.source.model, feeds)

    def _measure(self, model: ir.Model) -> MetricResult:
        examiner = self.evidence.examiner
        return _UNMEASURED if examiner is None else examiner.examine(model).result

    def _metadata(self) -> dict[str, str]:
        return {
            "onnx_filter_pruner.version": f"{TOOL} {VERSION}",
            "onnx_filter_pruner.source_sha256": self.network.source.sha256,
            "onnx_filter_pruner.options": options_as_text(self.run.options),
        }


def _cost(
    network: TaylorPrunableNetwork,
    dropped: NDArray[np.bool_],
    size_bytes: int,
    milliseconds: float,
    batch: int,
) -> Cost:
    macs, parameters, _ = network.cost.totals(dropped)
    known = network.cost.are_macs_complete
    return Cost(macs if known else None, parameters, size_bytes, milliseconds, batch)
