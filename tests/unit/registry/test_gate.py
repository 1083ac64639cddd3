"""What gates decide about metric records."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from svd.registry.gate import decide, judge
from svd.types.artifact import MetricRecord
from svd.types.gate import Gate


def metric(value: float = 0.9, *, name: str = "retrieval", **changes: object) -> MetricRecord:
    fields = {
        "name": name,
        "value": value,
        "num": 16,
        "paired": True,
        "higher_is_better": True,
        "variant": "v1",
        "comparability": "internal",
        "seed": 0,
        "dataset_fingerprint": "data",
        "checkpoint_sha256": "c",
    }
    return MetricRecord.model_validate({**fields, **changes})


def gate(comparison: str = "at-least", threshold: float | None = 0.8, **changes: object) -> Gate:
    return Gate.model_validate(
        {"metric": "retrieval", "comparison": comparison, "threshold": threshold, **changes}
    )


@given(st.floats(-1e6, 1e6), st.floats(-1e6, 1e6))
def test_a_bound_is_inclusive_and_nothing_else(value: float, bound: float) -> None:
    up = judge(gate("at-least", bound), [metric(value)], None)
    assert (up.verdict == "pass") == (value >= bound)
    down = judge(gate("at-most", bound), [metric(value, higher_is_better=False)], None)
    assert (down.verdict == "pass") == (value <= bound)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_number_that_is_none_fails(value: float) -> None:
    verdict = judge(gate(), [metric(value)], None)
    assert verdict.verdict == "fail"
    assert verdict.value is None


@pytest.mark.parametrize(
    ("the_gate", "records", "reason"),
    [
        (gate(), [], "not measured; measured: nothing"),
        (gate(), [metric(name="FVD")], "not measured; measured: FVD"),
        (gate(min_num=17), [metric()], "16 examples, the gate wants 17"),
        (gate(), [metric(), metric(variant="v2")], "measured as v1, v2; the gate must name one"),
        (gate(variant="v3"), [metric()], "not measured as v3, only as v1"),
        (gate(), [metric(higher_is_better=False)], "says at-least, but lower is better"),
        (gate("at-most"), [metric()], "says at-most, but higher is better"),
        (gate(judged_on="interval"), [metric()], "has no interval"),
    ],
    ids=[
        "nothing-measured",
        "other-metric",
        "too-few",
        "ambiguous",
        "other-variant",
        "wrong-way-up",
        "wrong-way-down",
        "no-interval",
    ],
)
def test_what_cannot_be_judged_is_insufficient_and_says_why(
    the_gate: Gate, records: list[MetricRecord], reason: str
) -> None:
    verdict = judge(the_gate, records, None)
    assert verdict.verdict == "insufficient"
    assert reason in verdict.reason


def test_a_variant_named_by_the_gate_is_the_one_judged() -> None:
    records = [metric(0.1), metric(0.9, variant="v2")]
    assert judge(gate(variant="v2"), records, None).verdict == "pass"
    assert judge(gate(variant="v1"), records, None).verdict == "fail"


def test_the_interval_is_judged_at_its_unfavourable_end() -> None:
    wide = metric(0.9, low=0.7, high=0.95)
    assert judge(gate(judged_on="interval"), [wide], None).value == 0.7
    lower = metric(0.5, low=0.4, high=0.9, higher_is_better=False)
    assert judge(gate("at-most", judged_on="interval"), [lower], None).verdict == "fail"


def production_gate(**changes: object) -> Gate:
    return gate("no-worse-than-production", None, **changes)


def test_without_production_nothing_can_be_worse() -> None:
    assert judge(production_gate(), [metric(0.0)], None).verdict == "pass"


@pytest.mark.parametrize(
    ("candidate", "production", "higher", "verdict"),
    [
        (0.9, 0.9, True, "pass"),
        (0.84, 0.9, True, "fail"),
        (0.86, 0.9, True, "pass"),
        (0.9, 0.9, False, "pass"),
        (0.96, 0.9, False, "fail"),
        (0.94, 0.9, False, "pass"),
    ],
)
def test_production_is_compared_in_the_metrics_own_direction_with_slack(
    candidate: float, production: float, higher: bool, verdict: str
) -> None:
    found = judge(
        production_gate(margin=0.05),
        [metric(candidate, higher_is_better=higher)],
        [metric(production, higher_is_better=higher)],
    )
    assert found.verdict == verdict


@pytest.mark.parametrize(
    "production",
    [
        metric(variant="v2"),
        metric(name="FVD"),
        metric(dataset_fingerprint="other"),
        metric(sampling_fingerprint="other"),
    ],
    ids=["variant", "metric", "data", "sampler"],
)
def test_unlike_records_are_never_compared(production: MetricRecord) -> None:
    verdict = judge(production_gate(), [metric()], [production])
    assert verdict.verdict == "insufficient"
    assert "not comparable" in verdict.reason


def test_one_gate_that_does_not_pass_blocks_and_no_gates_pass_nothing() -> None:
    assert decide([gate()], [metric()], None).passed
    mixed = decide([gate(), gate("at-least", 0.99)], [metric()], None)
    assert not mixed.passed
    assert mixed.reasons == ("retrieval: 0.9 is not >= 0.99 (n=16)",)
    assert not decide([], [metric()], None).passed
