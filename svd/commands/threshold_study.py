"""`svd curate study`: train proxies on parts of the clips, rank them, propose thresholds."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

if TYPE_CHECKING:
    from filelock import FileLock

    from svd.config.params import Params
    from svd.curation.filter.ablation import Part
    from svd.curation.filter.sweep import Axis
    from svd.evaluation.votes.page import StudyResults
    from svd.runtime.workspace import Workspace
    from svd.types.ablation import AblationPlan, AblationReport, AxisOutcome
    from svd.types.vote import Study

PLAN, REPORT, PROPOSAL = "plan.json", "report.json", "proposal.yaml"
StudyStep = Literal["encode", "train", "sample", "rank"]


def study(
    scores: Annotated[
        list[str] | None,
        typer.Option(
            "--score",
            help="An axis; repeat for more. NAME drops the lowest, NAME:highest the highest. "
            "Default: the scores with a threshold in the recipe.",
        ),
    ] = None,
    shares: Annotated[
        list[float] | None,
        typer.Option("--share", help="Left out; repeat. Default: 0.125, 0.25, 0.5 (the paper's)."),
    ] = None,
    steps: Annotated[
        int | None,
        typer.Option(min=1, help="Of every proxy. Default: the first phase of pretrain-video."),
    ] = None,
    prompts: Annotated[
        Path | None, typer.Option(help="One a line. Default: captions of the clips.")
    ] = None,
    num_prompts: Annotated[int, typer.Option(min=1, help="Used at most; the paper's is 64.")] = 64,
    setting: Annotated[
        list[str] | None,
        typer.Option("--set", help="A key of the sampling section, e.g. schedule.num_steps=50."),
    ] = None,
    rank_by: Annotated[
        Literal["judge", "people"],
        typer.Option(help="Who ranks: the automatic judge, or votes by `svd vote serve`."),
    ] = "judge",
    out: Annotated[
        Path | None, typer.Option(help="Folder of the study (default: reports/threshold-study).")
    ] = None,
    until: Annotated[
        StudyStep, typer.Option(help="Stop after this; the next call goes on.")
    ] = "rank",
) -> None:
    """Find thresholds as the paper did: proxies on parts of the clips, ranked axis by axis.

    A killed study goes on where it was. Nothing is changed: the winners are written to
    proposal.yaml, for you to take into params.yaml.
    """
    from svd.config.load import load_params
    from svd.curation.filter.ablation import plan_parts
    from svd.runtime.workspace import Workspace
    from svd.training.ablation import encode_everything, proxy_params, sample_proxy, train_proxy

    home = Workspace.find()
    recipe = load_params(home.params_file)
    params = proxy_params(recipe, num_steps=steps)
    folder = out or home.root / "reports" / "threshold-study"
    plan = _plan(folder, home, recipe, params, scores, shares, prompts, num_prompts, setting)
    parts = plan_parts(_axes(plan), plan.shares)
    with _only_here(folder):
        encode_everything(params, home, folder)
        if until == "encode":
            return
        num_clips = {}
        for index, part in enumerate(parts, start=1):
            typer.echo(f"proxy {index} of {len(parts)}: {part.name}", err=True)
            num_clips[part.name] = train_proxy(params, home, folder, part)
        if until == "train":
            return
        for part in parts:
            sample_proxy(folder, part, plan.prompts, plan.sampling, seed=plan.seed)
        if until == "sample":
            return
        _rank(folder, plan, parts, num_clips, rank_by)


def _only_here(folder: Path) -> "FileLock":
    """Take the study's lock.

    Raises:
        LaunchError: Another process works on it.
    """
    from filelock import FileLock, Timeout

    from svd.errors import LaunchError

    lock = FileLock(folder / "lock")
    try:
        lock.acquire(timeout=0)
    except Timeout as err:
        raise LaunchError(f"another process works on this study: {lock.lock_file} is held") from err
    return lock


def _plan(
    folder: Path,
    home: "Workspace",
    recipe: "Params",
    params: "Params",
    scores: list[str] | None,
    shares: list[float] | None,
    prompts: Path | None,
    num_prompts: int,
    setting: list[str] | None,
) -> "AblationPlan":
    """Return the study's plan; one that lies there must be the same."""
    from svd.atomic import write_text
    from svd.commands.sample_parts import parse_settings
    from svd.curation.filter.sweep import PAPER_SHARES, parse_axes
    from svd.errors import ConfigError
    from svd.runtime.fingerprint import path_identity
    from svd.training.ablation import STAGE, fixed_prompts, proxy_identity
    from svd.types.ablation import AblationPlan

    asked = (
        fixed_prompts(params, home, num=num_prompts, seed=params.seed)
        if prompts is None
        else _read_lines(prompts)[:num_prompts]
    )
    plan = AblationPlan(
        axes=tuple((axis.score, axis.drops) for axis in parse_axes(scores, recipe.filter)),
        shares=tuple(sorted(set(shares or PAPER_SHARES))),
        num_steps=params.training(STAGE).phases[0].num_steps,
        prompts=asked,
        sampling=parse_settings(setting or [], "--set"),
        seed=params.seed,
        recipe_sha256=proxy_identity(params, home),
        annotations_sha256=path_identity(home.annotations),
    )
    path = folder / PLAN
    if path.is_file():
        before = AblationPlan.parse(path.read_text(encoding="utf-8"), origin=str(path))
        if before != plan:
            differs = [key for key, value in plan if getattr(before, key) != value]
            raise ConfigError(
                f"{folder} holds another study; {', '.join(differs)} differ: give another --out"
            )
        return before
    write_text(path, plan.canonical_json())
    return plan


def _axes(plan: "AblationPlan") -> "list[Axis]":
    from svd.curation.filter.sweep import Axis

    return [Axis(score, drops) for score, drops in plan.axes]


def _read_lines(path: Path) -> tuple[str, ...]:
    from svd.errors import ConfigError, MissingInputError

    if not path.is_file():
        raise MissingInputError(f"{path}: no such file")
    lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
    if not any(lines):
        raise ConfigError(f"{path} holds no prompt")
    return tuple(line for line in lines if line)


def _rank(
    folder: Path,
    plan: "AblationPlan",
    parts: "Sequence[Part]",
    num_clips: dict[str, int],
    rank_by: Literal["judge", "people"],
) -> None:
    """Rank every axis; write report.json and proposal.yaml, or say where votes are to be given."""
    from svd.errors import MissingInputError
    from svd.evaluation.votes.proposal import judge_axis, proposal, ranked_by_name
    from svd.types.ablation import AblationReport

    outcomes: list[AxisOutcome] = []
    results: list[StudyResults] = []
    waiting: list[str] = []
    for score, drops in plan.axes:
        of_axis = [part for part in parts if part.axis is None or part.axis.score == score]
        asked, found = _ask(folder, score, of_axis, plan, by_judge=rank_by == "judge")
        results.append(found)
        try:
            outcomes.append(
                judge_axis(
                    score,
                    drops,
                    asked,
                    found,
                    ranked_by=rank_by,
                    shares={part.name: part.share for part in of_axis},
                    num_clips=num_clips,
                )
            )
        except MissingInputError:
            waiting.append(f"  svd vote serve {folder / 'votes' / score}")
    if waiting:
        typer.echo("\n".join(["votes are wanted; run this command again afterwards:", *waiting]))
        return
    report = AblationReport(
        ranked_by=ranked_by_name(results, rank_by),
        num_votes=sum(one.num_votes for one in results) if rank_by == "people" else 0,
        num_prompts=len(plan.prompts),
        num_steps=plan.num_steps,
        outcomes=tuple(outcomes),
    )
    (folder / REPORT).write_text(report.canonical_json() + "\n", encoding="utf-8")
    (folder / PROPOSAL).write_text(proposal(report), encoding="utf-8")
    _print_outcomes(report)
    typer.echo(proposal(report))
    typer.echo(f"{folder / PROPOSAL}; videos side by side: svd vote serve {folder / 'votes'}/AXIS")


def _ask(
    folder: Path, score: str, parts: "Sequence[Part]", plan: "AblationPlan", *, by_judge: bool
) -> "tuple[Study, StudyResults]":
    """Make the study of an axis unless it is there, let the judge look, and read its results."""
    from svd.evaluation.votes.folder import STUDY, read_judgement, read_study
    from svd.evaluation.votes.judge import judge_study
    from svd.evaluation.votes.page import read_results, render_results
    from svd.evaluation.votes.store import VoteStore
    from svd.evaluation.votes.study import Entry, StudyOptions, create_study
    from svd.training.ablation import part_folder

    place = folder / "votes" / score
    if not (place / STUDY).is_file():
        entries = [Entry(part.name, part_folder(folder, part) / "samples") for part in parts]
        create_study(entries, place, StudyOptions(f"Proxies: {score}", plan.seed))
    asked = read_study(place)
    if by_judge and read_judgement(place) is None:
        judge_study(asked, place)
    votes = VoteStore(place, asked).votes()
    (place / "results.html").write_text(render_results(place, asked, votes), encoding="utf-8")
    return asked, read_results(place, asked, votes)


def _print_outcomes(report: "AblationReport") -> None:
    from rich.console import Console
    from rich.table import Table

    for outcome in report.outcomes:
        table = Table(
            "left out", "clips", "quality", "following", "aggregate", "95 %", title=outcome.score
        )
        for part in outcome.parts:
            cells = [part.quality, part.following, part.aggregate]
            shown = ["-" if value is None else f"{value:.0f}" for value in cells]
            mark = " *" if part.part == outcome.winner else ""
            left_out = (
                f"{outcome.drops} {100 * part.share:g} %{mark}" if part.share else f"none{mark}"
            )
            table.add_row(
                left_out, f"{part.num_clips}", *shown, f"{part.low:.0f} to {part.high:.0f}"
            )
        Console().print(table)
