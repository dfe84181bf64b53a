"""For random networks and random legal drops, the pruned model equals the masked original."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support.cutting import assert_masked_equals_pruned
from tests.support.random_networks import networks

EXAMPLES = 100


@settings(
    max_examples=EXAMPLES,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
@given(
    model=networks(),
    seed=st.integers(0, 2**16),
    share=st.sampled_from((0.2, 0.5, 1.0)),
)
def test_pruned_equals_masked_and_may_be_pruned_again(
    model: bytes, seed: int, share: float
) -> None:
    rng = np.random.default_rng(seed)
    once = assert_masked_equals_pruned(model, rng, share)
    again = ir.to_proto(once.pruned).SerializeToString()
    assert_masked_equals_pruned(again, rng, share)
