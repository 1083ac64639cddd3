"""From rankings of proxies to thresholds: the winner of each axis, as lines for params.yaml."""

from collections.abc import Mapping, Sequence
from typing import Final, Literal

from svd.errors import MissingInputError
from svd.evaluation.votes.page import StudyResults
from svd.evaluation.votes.standing import JudgeStanding, Standing
from svd.types.ablation import AblationReport, AxisOutcome, PartStanding
from svd.types.vote import Study

RankedBy = Literal["people", "judge"]
# Comparisons of winner and unfiltered below which nothing is called clear: of a handful that all
# went one way the bootstrap's interval has no width.
MIN_MEETINGS: Final = 16


def judge_axis(
    score: str,
    drops: Literal["lowest", "highest"],
    study: Study,
    found: StudyResults,
    *,
    ranked_by: RankedBy,
    shares: Mapping[str, float],
    num_clips: Mapping[str, int],
) -> AxisOutcome:
    """Return how the parts of one axis stand and which wins; people and judge are never mixed.

    Args:
        score: The axis.
        drops: Its worse end.
        study: Whose models are the axis's parts, the unfiltered one first.
        found: Its results.
        ranked_by: Whose ranking decides.
        shares: Left out, by part.
        num_clips: Trained on, by part.

    Raises:
        MissingInputError: There are not votes enough, or no judge was asked.
    """
    standings = {
        one.asked: one.people if ranked_by == "people" else one.judge for one in found.results
    }
    together = standings.get("aggregate")
    if together is None:
        raise MissingInputError(f"{score}: no chain of votes links all models: collect more")
    aggregate = together.ratings
    parts = tuple(
        PartStanding(
            part=name,
            share=shares[name],
            num_clips=num_clips[name],
            quality=_value(standings.get("quality"), index),
            following=_value(standings.get("following"), index),
            aggregate=round(float(aggregate.value[index]), 2),
            low=round(float(aggregate.low[index]), 2),
            high=round(float(aggregate.high[index]), 2),
        )
        for index, name in enumerate(study.models)
    )
    # Of equals the mildest wins: what is not shown to help is not dropped.
    winner = max(parts, key=lambda part: (part.aggregate, -part.share))
    place = study.models.index(winner.part)
    num_met = float(together.wins[place, 0] + together.wins[0, place])
    return AxisOutcome(
        score=score,
        drops=drops,
        parts=parts,
        winner=winner.part,
        is_clear=num_met >= MIN_MEETINGS and winner.low > parts[0].high,
    )


def proposal(report: AblationReport) -> str:
    """Return the winners as YAML to be laid over params.yaml, with the reason on each line."""
    said = report.ranked_by if report.ranked_by != "people" else f"{report.num_votes} votes"
    lines = [
        f"# By `svd curate study`: {report.num_steps} steps, {report.num_prompts} prompts, {said}.",
        "# Shares are of the clips that have the score. Look at the videos before you take them.",
        "filter:",
        "  thresholds:",
    ]
    rows = [_line(outcome) for outcome in report.outcomes]
    if all(row.lstrip().startswith("#") for row in rows):
        lines[-1] += " {}"
    return "\n".join([*lines, *rows]) + "\n"


def _line(outcome: AxisOutcome) -> str:
    unfiltered = outcome.parts[0]
    winner = next(part for part in outcome.parts if part.part == outcome.winner)
    stands = f"{winner.aggregate:.0f} ({winner.low:.0f} to {winner.high:.0f})"
    if winner is unfiltered:
        return f"    # {outcome.score}: no threshold; unfiltered stands highest, {stands}"
    against = f"{unfiltered.aggregate:.0f} ({unfiltered.low:.0f} to {unfiltered.high:.0f})"
    doubt = "" if outcome.is_clear else "; not clear: intervals overlap, or too few comparisons"
    key = f"drop_{outcome.drops}"
    return f"    {outcome.score}: {{{key}: {winner.share:g}}}  # {stands}, all {against}{doubt}"


def _value(standing: Standing | JudgeStanding | None, index: int) -> float | None:
    return None if standing is None else round(float(standing.ratings.value[index]), 2)


def ranked_by_name(found: Sequence[StudyResults], ranked_by: RankedBy) -> str:
    """Return who ranked: "people", or the judge by its full name."""
    judges = {one.judgement.judge for one in found if one.judgement is not None}
    return ranked_by if ranked_by == "people" else ", ".join(sorted(judges))
