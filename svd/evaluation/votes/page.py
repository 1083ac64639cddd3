"""The results of a study as a page and as JSON: forest plot, win matrix, the judge apart."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from svd.evaluation.metrics.ranking import Ratings
from svd.evaluation.report.svg import Scale, canvas, element, spread, tick_label
from svd.evaluation.votes.folder import read_judgement
from svd.evaluation.votes.standing import (
    Asked,
    JudgeStanding,
    Standing,
    counted_votes,
    stand,
    stand_by_judge,
)
from svd.types.vote import Judgement, Study, Vote

TITLES: Final[dict[Asked, str]] = {
    "quality": "Which looks better",
    "following": "Which follows what was asked for",
    "aggregate": "Both questions together",
}
_ROW, _NAMES, _WIDTH = 26.0, 110.0, 440.0  # pixels of the forest plot


@dataclass(frozen=True, slots=True)
class Result:
    """One question: what people said, and the judge apart; each None while it says nothing."""

    asked: Asked
    people: Standing | None
    judge: JudgeStanding | None


@dataclass(frozen=True, slots=True)
class StudyResults:
    """Everything the page shows.

    Attributes:
        results: By question.
        num_pairs: To be compared, without checks.
        num_votes: That count.
        raters: Votes of each rater that counts.
        inattentive: Raters whose votes do not count.
        judgement: What the judge said, or None.
    """

    results: tuple[Result, ...]
    num_pairs: int
    num_votes: int
    raters: dict[str, int]
    inattentive: tuple[str, ...]
    judgement: Judgement | None


def read_results(folder: Path, study: Study, votes: Sequence[Vote]) -> StudyResults:
    """Work out a study's results from its votes, checks among them."""
    counted, inattentive = counted_votes(votes)
    judgement = read_judgement(folder)
    results = [
        Result(
            asked,
            stand(study, counted, asked),
            None if judgement is None else stand_by_judge(study, judgement, counted, asked),
        )
        for asked in TITLES
    ]
    return StudyResults(
        tuple(one for one in results if one.people is not None or one.judge is not None),
        sum(not pair.is_check for pair in study.pairs),
        len(counted),
        dict(Counter(vote.rater for vote in counted)),
        inattentive,
        judgement,
    )


def render_results(folder: Path, study: Study, votes: Sequence[Vote]) -> str:
    """Return the page; it needs nothing else."""
    environment = Environment(
        loader=ChoiceLoader(
            [PackageLoader("svd.evaluation.votes"), PackageLoader("svd.evaluation.report")]
        ),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals["forest"] = forest
    return environment.get_template("results.html.j2").render(
        study=study,
        found=read_results(folder, study, votes),
        titles=TITLES,
        style=Markup(style()),  # noqa: S704 - our own style sheet
    )


def as_json(study: Study, found: StudyResults) -> dict[str, object]:
    """Return the results for programs."""
    return {
        "study": study.content_hash(),
        "title": study.title,
        "models": list(study.models),
        "pairs": found.num_pairs,
        "votes": found.num_votes,
        "raters": found.raters,
        "inattentive_raters": list(found.inattentive),
        "questions": {
            one.asked: {"people": _people(one.people), "judge": _judge(one.judge, found.judgement)}
            for one in found.results
        },
    }


def style() -> str:
    """Return the style sheet of both pages: the report's, and what is new here."""
    here = Path(__file__).parent
    files = (here.parent / "report" / "templates" / "style.css", here / "templates" / "vote.css")
    return "\n".join(file.read_text(encoding="utf-8") for file in files)


def forest(models: Sequence[str], people: Ratings | None, judge: Ratings | None) -> Markup:
    """Return a forest plot: a row per model, people's interval above the judge's."""
    drawn = [ratings for ratings in (people, judge) if ratings is not None]
    ends = [float(end) for one in drawn for side in (one.low, one.high) for end in side]
    across = Scale(*spread(ends), start=_NAMES, stop=_WIDTH - 12)
    height = _ROW * len(models) + 26
    parts = []
    for tick in across.ticks(6):
        x = across(tick)
        parts.append(element("line", class_="grid", x1=x, x2=x, y1=4.0, y2=height - 20))
        label = element(
            "text", tick_label(tick), class_="tick", x=x, y=height - 6, text_anchor="middle"
        )
        parts.append(label)
    first = drawn[0].value
    for row, index in enumerate(sorted(range(len(models)), key=lambda i: -float(first[i]))):
        y = _ROW * (row + 0.5) + 4
        name = element(
            "text", models[index], class_="name", x=_NAMES - 10, y=y + 4, text_anchor="end"
        )
        parts.append(name)
        for ratings, shift, kind in ((people, -4.0, ""), (judge, 4.0, " judge")):
            if ratings is not None:
                parts += _whisker(
                    ratings, index, across, y + (shift if len(drawn) > 1 else 0), kind
                )
    return canvas(_WIDTH, height, parts, label="Strength of each model with its interval")


def _whisker(ratings: Ratings, index: int, across: Scale, y: float, kind: str) -> list[Markup]:
    value, low, high = (float(part[index]) for part in ratings)
    tip = element("title", f"{value:.0f} ({low:.0f} to {high:.0f})")
    line = element(
        "line", tip, class_=f"whisker{kind}", x1=across(low), x2=across(high), y1=y, y2=y
    )
    return [line, element("circle", tip, class_=f"point{kind}", cx=across(value), cy=y, r=4.0)]


def _people(standing: Standing | None) -> dict[str, object] | None:
    if standing is None:
        return None
    return {
        "bradley_terry": _rounded(standing.ratings),
        "paper_elo": [round(float(value), 2) for value in standing.elo],
        "wins": standing.wins.tolist(),
        "answers": standing.num_votes,
        "krippendorff_alpha": standing.agreement,
    }


def _judge(standing: JudgeStanding | None, judgement: Judgement | None) -> dict[str, object] | None:
    if standing is None or judgement is None:
        return None
    return {
        "judge": judgement.judge,
        "bradley_terry": _rounded(standing.ratings),
        "pairs_compared_with_people": standing.num_compared,
        "accuracy": standing.accuracy,
        "kappa": standing.kappa,
    }


def _rounded(ratings: Ratings) -> dict[str, list[float]]:
    return {
        name: [round(float(value), 2) for value in part]
        for name, part in zip(("value", "low", "high"), ratings, strict=True)
    }
