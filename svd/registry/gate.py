"""Whether a model may become a version: pure judgement of metric records.

Only like is compared with like: two records of a metric are held against each other only if their
variant, which names everything that changes the number, their data set, their sampler's settings
and the weights that measured are the same.
"""

import math
from collections.abc import Sequence

from svd.registry.paired import paired_difference
from svd.types.artifact import MetricRecord, Value
from svd.types.gate import Decision, Gate, GateVerdict, Verdict


def decide(
    gates: Sequence[Gate],
    candidate: Sequence[MetricRecord],
    production: Sequence[MetricRecord] | None,
) -> Decision:
    """Judge a candidate by all gates; it passes if every one says "pass".

    Args:
        gates: At least one; a decision without gates does not pass.
        candidate: What was measured of the candidate.
        production: What was measured of the version in production; None if there is none.
    """
    verdicts = tuple(judge(gate, candidate, production) for gate in gates)
    passed = bool(verdicts) and all(item.verdict == "pass" for item in verdicts)
    return Decision(passed=passed, verdicts=verdicts)


def judge(
    gate: Gate, candidate: Sequence[MetricRecord], production: Sequence[MetricRecord] | None
) -> GateVerdict:
    """Judge a candidate by one gate."""
    found = _find(gate, candidate)
    if isinstance(found, str):
        return _insufficient(gate, found)
    shortage = _shortage(gate, found)
    if shortage is not None:
        return _insufficient(gate, shortage, found)
    if gate.comparison != "no-worse-than-production":
        return _hold_against(gate, found, _threshold(gate), at_least=gate.comparison == "at-least")
    return _judge_against_production(gate, found, production)


def _judge_against_production(
    gate: Gate, found: MetricRecord, production: Sequence[MetricRecord] | None
) -> GateVerdict:
    if production is None:
        reason = f"{gate.metric}: nothing is in production to compare with"
        return _verdict(gate, "pass", found, reference=None, reason=reason)
    incumbent = _comparable(found, production)
    if isinstance(incumbent, str):
        return _insufficient(gate, incumbent, found)
    if gate.judged_on == "paired":
        return _judge_pairs(gate, found, incumbent)
    slack = -gate.margin if found.higher_is_better else gate.margin
    return _hold_against(gate, found, incumbent.value + slack, at_least=found.higher_is_better)


def _find(gate: Gate, records: Sequence[MetricRecord]) -> MetricRecord | str:
    """Return the one record a gate speaks of, or why there is not exactly one."""
    named = [record for record in records if record.name == gate.metric]
    fitting = [record for record in named if gate.variant in {None, record.variant}]
    variants = sorted({record.variant for record in named})
    if not named:
        known = ", ".join(sorted({record.name for record in records})) or "nothing"
        return f"{gate.metric}: not measured; measured: {known}"
    if not fitting:
        return f"{gate.metric}: not measured as {gate.variant}, only as {', '.join(variants)}"
    if len(fitting) > 1:
        return f"{gate.metric}: measured as {', '.join(variants)}; the gate must name one variant"
    return fitting[0]


def _shortage(gate: Gate, record: MetricRecord) -> str | None:
    """Return why a record cannot be judged by this gate, if so."""
    if record.num < gate.min_num:
        return f"{gate.metric}: {record.num} examples, the gate wants {gate.min_num}"
    wrong_way = {"at-least": False, "at-most": True}.get(gate.comparison)
    if record.higher_is_better is wrong_way:
        better = "higher" if record.higher_is_better else "lower"
        return f"{gate.metric}: the gate says {gate.comparison}, but {better} is better"
    if gate.judged_on == "interval" and (record.low is None or record.high is None):
        return f"{gate.metric}: has no interval, which the gate judges on"
    return None


def _comparable(candidate: MetricRecord, production: Sequence[MetricRecord]) -> MetricRecord | str:
    """Return production's record of the same measurement, or why there is none."""
    named = [record for record in production if record.name == candidate.name]
    same = [record for record in named if record.variant == candidate.variant]
    if not same:
        known = ", ".join(sorted({record.variant for record in named})) or "not at all"
        return (
            f"{candidate.name}: measured as {candidate.variant}, "
            f"in production as {known}: not comparable"
        )
    if same[0].dataset_fingerprint != candidate.dataset_fingerprint:
        return f"{candidate.name}: production was measured on other data: not comparable"
    if same[0].sampling_fingerprint != candidate.sampling_fingerprint:
        return f"{candidate.name}: production was sampled with other settings: not comparable"
    if _weights(same[0]) != _weights(candidate):
        return f"{candidate.name}: production was measured with other weights: not comparable"
    return same[0]


def _weights(record: MetricRecord) -> tuple[Value | None, ...]:
    """Return what of an extractor's card decides its numbers."""
    card = record.extractor or {}
    return tuple(card.get(key) for key in ("name", "weights_sha256", "code_version"))


def _judge_pairs(gate: Gate, candidate: MetricRecord, incumbent: MetricRecord) -> GateVerdict:
    """Judge the mean difference to production over the clips both were measured on.

    Positive is better. Both ends of its interval above minus the margin pass, both below fail,
    and between them there are too few clips to tell.
    """
    ours, theirs = candidate.per_clip, incumbent.per_clip
    if ours is None or theirs is None:
        return _insufficient(gate, f"{gate.metric}: no values clip by clip to pair up", candidate)
    if ours.keys() != theirs.keys() or candidate.seed != incumbent.seed:
        return _insufficient(
            gate, f"{gate.metric}: production was measured on other clips or seeds", candidate
        )
    sign = 1.0 if candidate.higher_is_better else -1.0
    gains = [sign * (ours[clip_id] - theirs[clip_id]) for clip_id in sorted(ours)]
    found = paired_difference(gains, seed=candidate.seed)
    verdict: Verdict = "insufficient"
    if found.low >= -gate.margin:
        verdict = "pass"
    elif not found.high >= -gate.margin:  # also where a value is not a number
        verdict = "fail"
    words = {"pass": "no worse than", "fail": "worse than", "insufficient": "too near to"}
    reason = (
        f"{gate.metric}: better by {found.mean:.4g} ({found.low:.4g} to {found.high:.4g}) over "
        f"{len(gains)} pairs: {words[verdict]} production less a margin of {gate.margin:g}"
    )
    return _verdict(gate, verdict, candidate, reference=incumbent.value, reason=reason)


def _hold_against(
    gate: Gate, record: MetricRecord, reference: float, *, at_least: bool
) -> GateVerdict:
    value = _judged_value(gate, record)
    passed = value >= reference if at_least else value <= reference
    passed = passed and math.isfinite(value)
    relation = (">=" if at_least else "<=") if passed else "not " + (">=" if at_least else "<=")
    source = "production's " if gate.comparison == "no-worse-than-production" else ""
    reason = f"{gate.metric}: {value:.6g} is {relation} {source}{reference:.6g} (n={record.num})"
    return _verdict(gate, "pass" if passed else "fail", record, reference=reference, reason=reason)


def _judged_value(gate: Gate, record: MetricRecord) -> float:
    """Return the value, or the unfavourable end of its interval."""
    end = record.low if record.higher_is_better else record.high
    return end if gate.judged_on == "interval" and end is not None else record.value


def _threshold(gate: Gate) -> float:
    if gate.threshold is None:  # ruled out by Gate's own check
        raise ValueError(f"gate on {gate.metric!r} has no threshold")
    return gate.threshold


def _insufficient(gate: Gate, reason: str, record: MetricRecord | None = None) -> GateVerdict:
    return _verdict(gate, "insufficient", record, reference=gate.threshold, reason=reason)


def _verdict(
    gate: Gate,
    verdict: Verdict,
    record: MetricRecord | None,
    *,
    reference: float | None,
    reason: str,
) -> GateVerdict:
    value = None if record is None else _judged_value(gate, record)
    return GateVerdict(
        gate=gate,
        verdict=verdict,
        value=value if value is not None and math.isfinite(value) else None,
        reference=reference,
        num=None if record is None else record.num,
        reason=reason,
    )
