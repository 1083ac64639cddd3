"""`svd lineage`: from a version down to its source videos, and from a video to every version."""

from typing import TYPE_CHECKING, Annotated

import typer

from svd.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from rich.console import Console

    from svd.data.lineage import ClipRow
    from svd.registry.trace import VideoUse
    from svd.types.version import ModelVersion

_VIDEOS_SHOWN = 50


def add_commands(root: typer.Typer) -> None:
    """Hang these commands on the root."""
    root.command(rich_help_panel="Models")(lineage)


def lineage(
    version: Annotated[
        str | None, typer.Argument(help="v0.1.2, a stage such as production, or latest.")
    ] = None,
    video: Annotated[
        str | None, typer.Option(help="Instead: every version that saw this video (sha256).")
    ] = None,
    clips: Annotated[bool, typer.Option("--clips", help="Also list every clip.")] = False,
    every: Annotated[
        bool, typer.Option("--all", help="List every source video, not only the largest.")
    ] = False,
    name: Annotated[str, typer.Option("--name", help="The model's name.")] = "svd-i2v",
) -> None:
    """Show what a version was made from, or with --video which versions saw a video."""
    from svd.commands.terminal import open_console
    from svd.data.lineage import find_rows
    from svd.registry.catalog import Catalog
    from svd.registry.trace import uses_of_video, version_table
    from svd.runtime.storage import default_store_uri, open_store
    from svd.runtime.workspace import Workspace

    if (version is None) == (video is None):
        raise ConfigError("svd lineage: give either a version or --video SHA256")
    workspace = Workspace.find()
    store = open_store(default_store_uri(workspace))
    console = open_console()
    if video is not None:
        print_uses(console, video, uses_of_video(workspace, store, video))
        return
    catalog = Catalog.read(workspace.root, name)
    record = catalog.record(catalog.resolve(str(version)))
    _print_version(console, record)
    path = version_table(record, workspace, store)
    _print_videos(console, record, path, most=None if every else _VIDEOS_SHOWN)
    if clips:
        _print_clips(console, find_rows(path))


def _print_version(console: "Console", record: "ModelVersion") -> None:
    from rich.tree import Tree

    tree = Tree(f"{record.name} {record.version}")
    tree.add(f"weights {record.weights_sha256}")
    tree.add(f"code    commit {record.code_commit}")
    tree.add(f"recipe  params.yaml, sha256 {record.params_sha256}")
    tree.add(f"W&B run {record.wandb_run_id}")
    for stage in record.lineage.stages:
        branch = tree.add(stage.stage)
        for path, md5 in stage.deps.items():
            branch.add(f"read  {path}  {md5}")
        for path, md5 in stage.outs.items():
            branch.add(f"wrote {path}  {md5}")
    manifests = tree.add("data")
    for path, sha256 in record.lineage.manifests.items():
        manifests.add(f"{path}  sha256 {sha256}")
    console.print(tree, highlight=False, markup=False)


def _print_videos(
    console: "Console", record: "ModelVersion", path: "Path", *, most: int | None
) -> None:
    from rich.table import Table

    from svd.data.lineage import source_videos

    videos, lineage = source_videos(path), record.lineage
    title = (
        f"{len(videos):,} source videos, {lineage.num_clips:,} clips in {lineage.num_shards:,} "
        "shards"
    )
    table = Table("video (sha256)", "origin", "licence", "clips per split", title=title)
    for video in videos[:most]:
        counts = ", ".join(f"{split} {num}" for split, num in video.num_clips.items())
        table.add_row(video.video_id[:16], video.origin, video.licence, counts)
    console.print(table)
    if most is not None and len(videos) > most:
        left = len(videos) - most
        console.print(f"and {left:,} videos with fewer clips: --all lists them", highlight=False)


def _print_clips(console: "Console", rows: "list[ClipRow]") -> None:
    from rich.table import Table

    table = Table("video", "clip", "split", "shard")
    for row in rows:
        table.add_row(row.video_id[:16], row.clip_id, row.split, row.shard[:16])
    console.print(table)


def print_uses(console: "Console", video: str, uses: "Sequence[VideoUse]") -> None:
    """Print every use of a video by a registered version."""
    from rich.table import Table

    if not uses:
        console.print(f"no registered version saw a video {video}", markup=False)
        return
    table = Table(
        "version", "in use", "checkpoint", "video", "origin", "licence", "clips", "shards"
    )
    for use in uses:
        table.add_row(
            f"{use.name} {use.version}",
            ", ".join(use.stages),
            use.weights_sha256[:16],
            use.video_id[:16],
            use.origin,
            use.licence,
            "\n".join(f"{split}: {', '.join(ids)}" for split, ids in use.clips.items()),
            "\n".join(shard[:16] for shard in use.shards),
        )
    console.print(table)
