"""What a model is worth on samples that were never scored on.

judgement.py     the output that is judged, and the loss that fits it
definitions.py   the metrics: per-sample values of an output
custom.py        a metric of the user's own, as an ONNX model
intervals.py     how far the hold-out's size lets a change be known
examiner.py      before and after, sample by sample
"""

from graph_ops.metrics.definitions import Metric, choose_metric
from graph_ops.metrics.examiner import Comparison, Examiner, MetricResult
from graph_ops.metrics.intervals import Interval
from graph_ops.metrics.judgement import Judgement

__all__ = [
    "Comparison",
    "Examiner",
    "Interval",
    "Judgement",
    "Metric",
    "MetricResult",
    "choose_metric",
]
