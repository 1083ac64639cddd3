"""`svd takedown`: withdraw a source video, and say what has seen it."""

from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from pathlib import Path

    from svd.registry.takedown import Exposure


def add_commands(root: typer.Typer) -> None:
    """Hang these commands on the root."""
    root.command(rich_help_panel="Models")(takedown)


def takedown(
    video: Annotated[str, typer.Argument(help="sha256 of the video; six digits of a known one.")],
    reason: Annotated[str, typer.Option(help="Why; kept in git, so no personal data.")] = "",
    by: Annotated[str, typer.Option(help="Who answers for it (default: git's user.name).")] = "",
    look: Annotated[
        bool, typer.Option("--look", help="Only say what has seen it; withdraw nothing.")
    ] = False,
) -> None:
    """Withdraw a source video: the next curation drops it.

    Prints every shard, checkpoint and registered version that saw it. The entry goes into
    withdrawn.jsonl, which ingest reads: commit it, then run the pipeline.
    """
    from svd.registry.takedown import find_exposure
    from svd.runtime.storage import default_store_uri, open_store
    from svd.runtime.workspace import Workspace

    workspace = Workspace.find()
    exposure = find_exposure(workspace, open_store(default_store_uri(workspace)), video)
    if not look:
        _withdraw(workspace.root, exposure.video_id, reason, by)
    _print(exposure)
    if look:
        return
    typer.echo("next: git commit withdrawn.jsonl, then run the pipeline: ingest drops the video")
    for use in exposure.versions:
        for stage in use.stages:
            typer.echo(f"      {use.name} {use.version} holds {stage}: decide about it")


def _withdraw(root: "Path", video_id: str, reason: str, by: str) -> None:
    from datetime import UTC, datetime

    from svd.curation.ingest.withdrawn import withdraw
    from svd.errors import ConfigError
    from svd.registry.git import GitRepo
    from svd.runtime.workspace import Workspace
    from svd.types.video import WithdrawnVideo

    who = by or GitRepo(root).setting("user.name")
    if not who:
        raise ConfigError("svd takedown: --by is needed, git has no user.name")
    entry = WithdrawnVideo(
        video_id=video_id,
        withdrawn_on=datetime.now(UTC).date().isoformat(),
        by=who,
        reason=reason or "no reason given",
    )
    is_new = withdraw(Workspace(root), entry)
    typer.echo(f"{video_id} {'is withdrawn' if is_new else 'was withdrawn before'}")


def _print(exposure: "Exposure") -> None:
    from svd.commands.lineage import print_uses
    from svd.commands.terminal import open_console

    console = open_console()
    here = exposure.checkout
    if not exposure.origin:
        console.print("nothing here knows this video", markup=False)
        return
    console.print(f"origin: {exposure.origin}", markup=False, highlight=False)
    for split, clips in here.clips.items():
        console.print(f"clips here, {split}: {', '.join(clips)}", markup=False, highlight=False)
    for shard in here.shards:
        console.print(f"shard here: {shard}", markup=False, highlight=False)
    for stage, weights in here.models.items():
        console.print(f"checkpoint here: models/{stage}, {weights}", markup=False, highlight=False)
    print_uses(console, exposure.video_id, exposure.versions)
