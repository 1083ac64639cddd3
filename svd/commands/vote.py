"""`svd vote`: studies of human preference, from folders of samples to a ranking."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from svd.errors import ConfigError

if TYPE_CHECKING:
    from svd.evaluation.votes.page import StudyResults
    from svd.evaluation.votes.study import Entry
    from svd.types.vote import Study

app = typer.Typer(no_args_is_help=True)
StudyFolder = Annotated[Path, typer.Argument(metavar="STUDY", help="Folder of the study.")]


def add_commands(root: typer.Typer) -> None:
    """Hang these commands on the root."""
    root.add_typer(
        app,
        name="vote",
        help="Human preference: make a study of blind pairs, take votes, rank the models.",
        rich_help_panel="Results",
    )


@app.command()
def create(
    study: StudyFolder,
    models: Annotated[
        list[str],
        typer.Argument(
            metavar="NAME=FOLDER...",
            help="Two or more models: a folder of <item>.mp4, as `svd sample`, `svd evaluate` "
            "(reports/evaluate) and `svd protocol run --videos` leave them.",
        ),
    ],
    prompts: Annotated[
        Path | None,
        typer.Option(
            help="What was asked for: .json of item and prompt, or lines of item, tab, prompt. "
            "Default: what `svd sample` recorded."
        ),
    ] = None,
    title: Annotated[str, typer.Option(help="Raters see it.")] = "Which video is better?",
    num_items: Annotated[
        int | None, typer.Option(min=1, help="Draw so many of the items (default: all).")
    ] = None,
    votes_per_pair: Annotated[
        int, typer.Option(min=1, help="Of different raters; the paper's is 3.")
    ] = 3,
    check_every: Annotated[
        int, typer.Option(min=2, help="One pair in so many is an attention check.")
    ] = 10,
    min_watch: Annotated[
        float, typer.Option(min=0, help="Seconds both videos are seen before a vote is taken.")
    ] = 1.0,
    ties: Annotated[
        bool, typer.Option("--ties", help="Allow 'about the same'; the paper's raters chose.")
    ] = False,
    seed: Annotated[int, typer.Option(min=0, help="Of items, orders and sides.")] = 0,
) -> None:
    """Pair up the models' samples of the same items, in one form, under names that tell nothing."""
    from svd.evaluation.votes.study import StudyOptions, create_study, read_prompts

    options = StudyOptions(title, seed, votes_per_pair, check_every, ties, min_watch, num_items)
    asked = None if prompts is None else read_prompts(prompts)
    made = create_study([_entry(text) for text in models], study, options, prompts=asked)
    num_checks = sum(pair.is_check for pair in made.pairs)
    typer.echo(
        f"{study}: {len(made.pairs) - num_checks} pairs of {len(made.models)} models over "
        f"{len(made.items)} items, {num_checks} attention checks"
    )
    if not any(item.asks for item in made.items):
        typer.echo("no prompt or picture was found: only quality is asked about")
    typer.echo(f"take votes with `svd vote serve {study}`")


@app.command()
def serve(
    study: StudyFolder,
    host: Annotated[
        str, typer.Option(help="Address to bind to; anything but loopback asks for a token.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one.")] = 8765,
    new_tokens: Annotated[
        bool, typer.Option("--new-tokens", help="Make links given out before worthless.")
    ] = False,
    open_it: Annotated[bool, typer.Option("--open", help="Open the page in a browser.")] = False,
) -> None:
    """Take votes in the browser until stopped; raters who come back go on where they were."""
    import uvicorn

    from svd.evaluation.votes.access import is_loopback, listen, read_or_make_tokens
    from svd.evaluation.votes.app import build_app
    from svd.evaluation.votes.folder import read_study
    from svd.evaluation.votes.store import VoteStore

    found = read_study(study)
    store = VoteStore(study, found)
    tokens = None if is_loopback(host) else read_or_make_tokens(study, renew=new_tokens)
    listener = listen(host, port)
    url = f"http://{_shown_host(host)}:{listener.getsockname()[1]}"
    rater, owner = (
        ("", "") if tokens is None else (f"?token={tokens.rater}", f"?token={tokens.owner}")
    )
    typer.echo(f"raters:  {url}/{rater}")
    typer.echo(f"results: {url}/results{owner}")
    if tokens is not None:
        typer.echo("votes travel unencrypted: put a proxy with TLS before it on an open network")
    typer.echo("stop with Ctrl-C; every vote is on disk before it is answered for")
    if open_it:
        typer.launch(f"{url}/")
    config = uvicorn.Config(
        build_app(study, found, store, tokens),
        log_level="warning",
        access_log=False,  # it would keep addresses of raters and tokens
        server_header=False,
        limit_concurrency=256,
        timeout_graceful_shutdown=2,
    )
    server = uvicorn.Server(config)
    server.run(sockets=[listener])
    if server.started:  # only Ctrl-C gets here; whether it is raised depends on uvicorn's last task
        raise KeyboardInterrupt


@app.command()
def judge(study: StudyFolder) -> None:
    """Let the automatic judge score a study's videos; it stays in its own column."""
    from svd.evaluation.votes.folder import read_study
    from svd.evaluation.votes.judge import judge_study

    judgement = judge_study(read_study(study), study)
    typer.echo(f"{judgement.judge} scored {len(judgement.videos)} videos: see `svd vote results`")


@app.command()
def results(
    study: StudyFolder,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Rank the models; write results.html and results.json into the study."""
    import json

    from svd.evaluation.votes.folder import read_study
    from svd.evaluation.votes.page import as_json as to_tree
    from svd.evaluation.votes.page import read_results, render_results
    from svd.evaluation.votes.store import VoteStore

    found = read_study(study)
    votes = VoteStore(study, found).votes()
    said = read_results(study, found, votes)
    tree = to_tree(found, said)
    text = json.dumps(tree, indent=2)
    (study / "results.html").write_text(render_results(study, found, votes), encoding="utf-8")
    (study / "results.json").write_text(text + "\n", encoding="utf-8")
    if as_json:
        typer.echo(text)
        return
    _print_results(found, said)
    typer.echo(f"{study / 'results.html'}, results.json")


@app.command()
def export(
    study: StudyFolder,
    out: Annotated[
        Path | None,
        typer.Argument(metavar="FILE", help=".jsonl or .csv; default: STUDY/votes.jsonl."),
    ] = None,
) -> None:
    """Write every vote, checks and inattentive raters among them."""
    from svd.evaluation.votes.export import export_votes
    from svd.evaluation.votes.folder import read_study
    from svd.evaluation.votes.store import VoteStore

    votes = VoteStore(study, read_study(study)).votes()
    path = out or study / "votes.jsonl"
    export_votes(votes, path)
    typer.echo(f"{path}: {len(votes)} votes")


def _entry(text: str) -> "Entry":
    from svd.evaluation.votes.study import Entry

    name, equals, folder = text.partition("=")
    if not (equals and name and folder):
        raise ConfigError(f"{text}: write a model as NAME=FOLDER")
    return Entry(name, Path(folder))


def _shown_host(host: str) -> str:
    import socket

    if host in ("0.0.0.0", "::"):  # noqa: S104 - read, not bound: where it can be reached
        return socket.gethostname()
    return f"[{host}]" if ":" in host else host


def _print_results(study: "Study", said: "StudyResults") -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console()
    console.print(
        f"{said.num_votes} votes by {len(said.raters)} raters on {said.num_pairs} pairs"
        + (f"; {len(said.inattentive)} raters failed the checks" if said.inattentive else "")
    )
    for one in said.results:
        table = Table("model", "Bradley-Terry", "95 %", "paper's Elo", "judge", title=one.asked)
        for index, model in enumerate(study.models):
            people = one.people
            row = (
                ("-", "-", "-")
                if people is None
                else (
                    f"{people.ratings.value[index]:.0f}",
                    f"{people.ratings.low[index]:.0f} to {people.ratings.high[index]:.0f}",
                    f"{people.elo[index]:.1f}",
                )
            )
            judged = "-" if one.judge is None else f"{one.judge.ratings.value[index]:.0f}"
            table.add_row(model, *row, judged)
        console.print(table)
    if not said.results:
        console.print("no chain of votes links all models yet: there is nothing to rank")
