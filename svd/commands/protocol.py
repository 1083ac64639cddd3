"""`svd protocol`: published benchmarks, run on a model, an autoencoder or somebody's videos."""

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from svd.errors import ConfigError, LaunchError

if TYPE_CHECKING:
    from svd.evaluation.protocols.base import ProtocolCard, Shard
    from svd.evaluation.protocols.sources import VideoSource
    from svd.types.protocol import ProtocolReport

app = typer.Typer(no_args_is_help=True)
SOURCE, NETWORKS, RUN = "What is measured", "What measures", "The run"
Name = Annotated[str, typer.Argument(help="From `svd protocol list`.")]


def add_commands(root: typer.Typer) -> None:
    """Hang these commands on the root."""
    root.add_typer(
        app,
        name="protocol",
        help="Published benchmarks: list, show, run, try on synthetic data.",
        rich_help_panel="Results",
    )


@app.command("list")
def list_protocols() -> None:
    """List the protocols, what they measure and on which data."""
    from rich.console import Console
    from rich.table import Table

    from svd.evaluation.protocols.catalogue import PROTOCOLS
    from svd.evaluation.references import references_of

    table = Table("name", "measures", "data", "published")
    for name, protocol in PROTOCOLS.items():
        published = references_of(name)
        shown = "; ".join(f"{one.system}: {one.metric} {one.value:g}" for one in published[:1])
        table.add_row(name, protocol.card.title, protocol.card.dataset.name, shown)
    Console().print(table)


@app.command()
def show(name: Name) -> None:
    """Say what a protocol asks for, which data it expects, and what others got."""
    from svd.evaluation.protocols.catalogue import find_protocol
    from svd.evaluation.references import references_of

    card = find_protocol(name).card
    typer.echo(f"{card.name}: {card.title}\n{card.question}\n")
    typer.echo(f"Measures: {', '.join(card.sources)}")
    if card.published_num is not None:
        typer.echo(f"Clips of the published number: {card.published_num:,}")
    for key, value in card.sampling.items():
        typer.echo(f"Sampling: {key} = {value}")
    for sentence in card.assumed:
        typer.echo(f"Assumed: {sentence}")
    typer.echo("\n" + card.dataset.expectation(Path("DATA")))
    for one in references_of(name):
        typer.echo(f"\nPublished: {one.system}: {one.metric} = {one.value:g} ({one.source})")
        typer.echo(f"  differs: {one.differs}")


@app.command()
def synthesise(
    name: Name,
    folder: Annotated[Path, typer.Argument(help="An empty folder, or one to be made.")],
    num: Annotated[int, typer.Option(min=1, max=500, help="Clips, prompts or objects.")] = 8,
) -> None:
    """Write a small synthetic set in the layout that a protocol reads, to try it."""
    from svd.evaluation.protocols.catalogue import find_protocol

    if folder.exists() and any(folder.iterdir()):
        raise ConfigError(f"{folder} is not empty")
    folder.mkdir(parents=True, exist_ok=True)
    find_protocol(name).card.dataset.write_small(folder, num)
    typer.echo(f"{folder}: a synthetic set for {name}; its numbers mean nothing")


@app.command()
def bins(
    data: Annotated[Path, typer.Argument(help="Folder with clips/*.mp4.")],
    num_bins: Annotated[int, typer.Option(min=1, help="Of equal counts.")] = 4,
    num_frames: Annotated[int, typer.Option(min=2, help="Of each clip, from its start.")] = 17,
) -> None:
    """Measure how much the clips of motionhd-local move, and write its manifest.jsonl."""
    from svd.evaluation.datasets.motionhd_local import write_manifest

    clips = write_manifest(data, num_frames=num_frames, num_bins=num_bins)
    typer.echo(f"{data / 'manifest.jsonl'}: {len(clips)} clips in {num_bins} bins")


@app.command()
def run(
    name: Name,
    data: Annotated[
        Path | None, typer.Option(help="Folder of the data set (default: the checkout).")
    ] = None,
    model: Annotated[
        Path | None,
        typer.Option(help="Folder of a denoiser or an autoencoder.", rich_help_panel=SOURCE),
    ] = None,
    autoencoder: Annotated[
        Path | None,
        typer.Option(help="Of a denoiser (default: models/autoencoder).", rich_help_panel=SOURCE),
    ] = None,
    videos: Annotated[
        Path | None,
        typer.Option(
            help="Videos made elsewhere, one .mp4 a clip, instead of a model.",
            rich_help_panel=SOURCE,
        ),
    ] = None,
    truth: Annotated[
        bool,
        typer.Option("--truth", help="Measure the real videos themselves.", rich_help_panel=SOURCE),
    ] = False,
    setting: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            help="A key of the sampling section, e.g. num_frames=8; such numbers are internal.",
            rich_help_panel=SOURCE,
        ),
    ] = None,
    device: Annotated[
        str, typer.Option(help="auto, cpu, cuda, cuda:1, ...", rich_help_panel=SOURCE)
    ] = "auto",
    precision: Annotated[
        Literal["fp32", "fp16", "bf16"] | None,
        typer.Option(
            help="Default: the protocol's for an autoencoder, else fp32.", rich_help_panel=SOURCE
        ),
    ] = None,
    video_network: Annotated[
        str,
        typer.Option(help="i3d, tiny, or the card of your own.", rich_help_panel=NETWORKS),
    ] = "i3d",
    frame_network: Annotated[
        str | None,
        typer.Option(
            help="Adds the distance of frames: inception (FID; weights for non-commercial use), "
            "tiny, or the card of your own.",
            rich_help_panel=NETWORKS,
        ),
    ] = None,
    distance: Annotated[
        Literal["alex", "vgg", "tiny"],
        typer.Option(help="Network of the picture distance (LPIPS).", rich_help_panel=NETWORKS),
    ] = "alex",
    embedder: Annotated[
        str,
        typer.Option(
            help="Picture network of cosines: tiny, or the card of your own.",
            rich_help_panel=NETWORKS,
        ),
    ] = "tiny",
    classifier: Annotated[
        str | None,
        typer.Option(
            help="Card of a network that names what a video shows (C3D), for the inception score.",
            rich_help_panel=NETWORKS,
        ),
    ] = None,
    small: Annotated[
        int | None,
        typer.Option(min=2, help="Only so many clips; numbers are internal.", rich_help_panel=RUN),
    ] = None,
    seed: Annotated[
        int, typer.Option(min=0, help="Of draws and samples.", rich_help_panel=RUN)
    ] = 0,
    out: Annotated[
        Path | None,
        typer.Option(help="Default: reports/protocols/NAME/CHECKPOINT.", rich_help_panel=RUN),
    ] = None,
    processes: Annotated[
        int, typer.Option(min=1, max=64, help="On this machine.", rich_help_panel=RUN)
    ] = 1,
    shard: Annotated[
        str | None,
        typer.Option(
            help="INDEX/COUNT: do this share only and stop; for many machines on one folder.",
            rich_help_panel=RUN,
        ),
    ] = None,
    keep_videos: Annotated[
        bool, typer.Option(help="Keep copies to look at.", rich_help_panel=RUN)
    ] = True,
) -> None:
    """Run a protocol; run again after a kill, and it goes on where it was."""
    from svd.config.evaluation import BootstrapConfig
    from svd.evaluation.protocols.base import PlanOptions, Shard
    from svd.evaluation.protocols.catalogue import find_protocol
    from svd.evaluation.protocols.engine import finish, measure_shard, prepare
    from svd.evaluation.protocols.networks import Networks
    from svd.evaluation.protocols.page import write_pages
    from svd.evaluation.protocols.run import ProtocolRun

    protocol = find_protocol(name)
    share = _parse_shard(shard)
    source, num_frames = _open_source(
        protocol.card, model, autoencoder, videos, truth, setting or [], device, precision
    )
    place = out or _default_out(name, source.checkpoint_sha256, truth=truth)
    new = ProtocolRun(
        data=data or _root(),
        source=source,
        networks=Networks(
            _cache(),
            video=video_network,
            frame=frame_network,
            distance=distance,
            embedder=embedder,
            classifier=classifier,
        ),
        out=place,
        cache=_cache() / "protocols",
        seed=seed,
        bootstrap=BootstrapConfig(),
        keep_videos=keep_videos,
        num_shards=share.count if share else processes,
    )
    options = PlanOptions(seed, small, num_frames)
    plan, identity, ready = prepare(protocol, new, options)
    if share is not None:
        measure_shard(protocol, ready, plan, share)
        return
    if processes > 1:
        _run_shards(processes)
    for index in range(processes):
        measure_shard(protocol, ready, plan, Shard(index, processes))
    report = finish(protocol, ready, plan, identity)
    pages = write_pages(place, report)
    _print_report(report, pages)


def _open_source(
    card: "ProtocolCard",
    model: Path | None,
    autoencoder: Path | None,
    videos: Path | None,
    truth: bool,
    settings: Sequence[str],
    device: str,
    precision: Literal["fp32", "fp16", "bf16"] | None,
) -> "tuple[VideoSource, int | None]":
    """Return what is measured, and how many frames of each clip if not the protocol's own."""
    from svd.commands.sample_parts import parse_settings
    from svd.config.sampling import PlacementConfig
    from svd.evaluation.protocols import sources
    from svd.sampling.request import resolve_settings
    from svd.sampling.samplers.record import read_model_record

    if sum((model is not None, videos is not None, truth)) != 1:
        raise ConfigError("give one of --model FOLDER, --videos FOLDER and --truth")
    changes = parse_settings(settings, "--set")
    num_frames = _whole(changes, "num_frames")
    if truth:
        height, width = _whole(changes, "height"), _whole(changes, "width")
        size = (height, width) if height and width else None
        return sources.TruthSource(size), num_frames
    if videos is not None:
        return sources.FileSource(videos), num_frames
    if model is None:  # ruled out above
        raise ConfigError("no --model")
    if "reconstruction" in card.sources:
        placement = PlacementConfig(
            device=device, autoencoder_precision=precision or card.precision
        )
        return sources.open_autoencoder(model, placement=placement), num_frames
    record = read_model_record(model, kind="denoiser")
    sampling = resolve_settings(record, None, {**card.sampling, **changes})
    placement = PlacementConfig(device=device, precision=precision or "fp32")
    beside = autoencoder or _root() / "models" / "autoencoder"
    opened = sources.open_model(model, beside, sampling=sampling, placement=placement)
    return opened, sampling.num_frames


def _whole(settings: Mapping[str, object], key: str) -> int | None:
    value = settings.get(key)
    if value is None or (isinstance(value, int) and value > 0):
        return value
    raise ConfigError(f"--set {key}={value}: a whole number above 0")


def _parse_shard(text: str | None) -> "Shard | None":
    from svd.evaluation.protocols.base import Shard

    if text is None:
        return None
    index, _, count = text.partition("/")
    if not (index.isdigit() and count.isdigit() and int(index) < int(count)):
        raise ConfigError(
            f"--shard {text}: write it as INDEX/COUNT, e.g. 0/4 for the first of four"
        )
    return Shard(int(index), int(count))


def _run_shards(count: int) -> None:
    """Start this very command once for each share and wait; GPUs are dealt out in turn.

    Raises:
        LaunchError: A share failed; what is measured stays.
    """
    import torch

    command = [sys.executable, "-m", "svd.cli", *sys.argv[1:]]
    gpus = torch.cuda.device_count()
    started = []
    for index in range(count):
        environment = dict(os.environ)
        if gpus:
            environment["CUDA_VISIBLE_DEVICES"] = str(index % gpus)
        started.append(subprocess.Popen([*command, "--shard", f"{index}/{count}"], env=environment))
    codes = [process.wait() for process in started]
    if any(codes):
        failed = [index for index, code in enumerate(codes) if code]
        raise LaunchError(f"shares {failed} of {count} failed; run again to go on where they were")


def _print_report(report: "ProtocolReport", pages: Sequence[Path]) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    console = Console()
    table = Table("metric", "value", "interval", "N", "comparability")
    for record in report.records:
        if record.control_of is None:
            has_interval = record.low is not None and record.high is not None
            interval = f"{record.low:.4g} to {record.high:.4g}" if has_interval else ""
            # A name in brackets is the network's: escaped, or rich would take it for a style.
            table.add_row(
                escape(record.name),
                f"{record.value:.4g}",
                interval,
                str(record.num),
                record.comparability,
            )
    console.print(table)
    if report.unusable:
        console.print(f"{len(report.unusable)} clips could not be measured; the report says why")
    for page in pages:
        console.print(f"  {page}", markup=False, highlight=False)


def _default_out(name: str, checkpoint: str, *, truth: bool) -> Path:
    return _root() / "reports" / "protocols" / name / ("truth" if truth else checkpoint[:12])


def _root() -> Path:
    from svd.runtime.workspace import Workspace

    return Workspace.find().root


def _cache() -> Path:
    return _root() / ".svd" / "cache"
