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


def scored(values: list[float], **changes: object) -> MetricRecord:
    mean = sum(values) / len(values)
    return metric(mean, per_clip={f"c{i:03d}": value for i, value in enumerate(values)}, **changes)


PAIRED = gate("no-worse-than-production", None, judged_on="paired", margin=0.05)
HARD = [0.1 * (i % 10) for i in range(40)]  # clips differ far more than models do


@pytest.mark.parametrize(
    ("shift", "verdict"), [(0.02, "pass"), (0.0, "pass"), (-0.02, "pass"), (-0.2, "fail")]
)
def test_pairs_see_a_difference_that_is_small_against_the_clips(shift: float, verdict: str) -> None:
    ours = scored([value + shift for value in HARD])
    assert judge(PAIRED, [ours], [scored(HARD)]).verdict == verdict


def test_pairs_that_cannot_tell_block() -> None:
    noise = [0.9 if i % 2 else -1.0 for i in range(12)]
    ours = scored([value + off for value, off in zip(HARD, noise, strict=False)])
    verdict = judge(PAIRED, [ours], [scored(HARD[:12])])
    assert verdict.verdict == "insufficient"
    assert "too near to production" in verdict.reason
    assert not decide([PAIRED], [ours], [scored(HARD[:12])]).passed


def test_pairs_go_by_the_metrics_own_direction() -> None:
    lower = {"higher_is_better": False}
    worse = scored([value + 0.2 for value in HARD], **lower)
    assert judge(PAIRED, [worse], [scored(HARD, **lower)]).verdict == "fail"
    assert judge(PAIRED, [scored(HARD, **lower)], [worse]).verdict == "pass"


@pytest.mark.parametrize(
    ("production", "reason"),
    [
        (metric(0.4), "no values clip by clip"),
        (scored(HARD[:20]), "other clips or seeds"),
        (scored(HARD, seed=1), "other clips or seeds"),
    ],
    ids=["none", "other clips", "other seed"],
)
def test_what_cannot_be_paired_is_insufficient(production: MetricRecord, reason: str) -> None:
    verdict = judge(PAIRED, [scored(HARD)], [production])
    assert verdict.verdict == "insufficient"
    assert reason in verdict.reason


def test_another_card_is_not_comparable() -> None:
    card = {"name": "i3d", "weights_sha256": "a" * 64, "code_version": "1"}
    against = gate("no-worse-than-production", None)
    same = judge(against, [metric(extractor=card)], [metric(extractor=card)])
    assert same.verdict == "pass"
    other = judge(
        against, [metric(extractor=card)], [metric(extractor=card | {"weights_sha256": "b" * 64})]
    )
    assert other.verdict == "insufficient"
    assert "other weights" in other.reason


def test_pairs_need_production() -> None:
    with pytest.raises(ValueError, match="compares with production only"):
        gate("at-least", 0.5, judged_on="paired")


def test_a_value_that_is_no_number_fails_in_pairs() -> None:
    ours = scored([*HARD[:-1], math.nan])
    assert judge(PAIRED, [ours], [scored(HARD)]).verdict == "fail"
