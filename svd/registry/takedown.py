"""What saw a video that must not be used any more: in this checkout, and in registered versions."""

from collections.abc import Iterator
from typing import NamedTuple

from svd.data.lineage import ClipRow, clip_rows
from svd.errors import GateError, IntegrityError
from svd.registry.trace import VideoUse, check_video_id, uses_of_video
from svd.runtime.store import Store
from svd.runtime.workspace import Workspace
from svd.types.artifact import ModelRecord
from svd.types.base import read_records
from svd.types.shard import ShardManifest
from svd.types.video import RawVideo

_SHA256_DIGITS = 64


class CheckoutUse(NamedTuple):
    """How the data and models of a checkout used a video."""

    clips: dict[str, tuple[str, ...]]  # split -> clip ids
    shards: tuple[str, ...]  # sha256
    models: dict[str, str]  # stage -> sha256 of the weights that trained on it


class Exposure(NamedTuple):
    """All that saw one video."""

    video_id: str
    origin: str  # "" if nothing here knows the video
    checkout: CheckoutUse
    versions: tuple[VideoUse, ...]


def find_exposure(workspace: Workspace, store: Store, video: str) -> Exposure:
    """Return what saw a video.

    Args:
        workspace: The checkout.
        store: Where lineage tables lie.
        video: The sha256 of its bytes, or its first six digits or more if something here knows it.

    Raises:
        GateError: Fewer digits than a sha256 has, and no video or several begin with them.
    """
    digits = check_video_id(video)
    rows = _rows_here(workspace)
    versions = uses_of_video(workspace, store, digits)
    known = dict(_origins(workspace, rows, versions))
    matching = sorted(video_id for video_id in known if video_id.startswith(digits))
    if len(matching) > 1:
        raise GateError(f"{len(matching)} videos begin with {digits}: give more digits")
    if not matching and len(digits) != _SHA256_DIGITS:
        raise GateError(
            f"no video here begins with {digits}: give all {_SHA256_DIGITS} digits of its sha256"
        )
    video_id = matching[0] if matching else digits
    own = [row for row in rows if row.video_id == video_id]
    return Exposure(
        video_id=video_id,
        origin=known.get(video_id, ""),
        checkout=_use_here(workspace, own),
        versions=tuple(use for use in versions if use.video_id == video_id),
    )


def _rows_here(workspace: Workspace) -> list[ClipRow]:
    try:
        return clip_rows(workspace)
    except (FileNotFoundError, IntegrityError):
        return []  # nothing is encoded here, or not from what is indexed now


def _origins(
    workspace: Workspace, rows: list[ClipRow], versions: list[VideoUse]
) -> Iterator[tuple[str, str]]:
    yield from ((use.video_id, use.origin) for use in versions)
    yield from ((row.video_id, row.origin) for row in rows)
    index = workspace.raw / "index.jsonl"
    if index.is_file():
        yield from ((video.video_id, video.origin) for video in read_records(index, RawVideo))


def _use_here(workspace: Workspace, rows: list[ClipRow]) -> CheckoutUse:
    clips: dict[str, set[str]] = {}
    for row in rows:
        clips.setdefault(row.split, set()).add(row.clip_id)
    return CheckoutUse(
        clips={split: tuple(sorted(ids)) for split, ids in sorted(clips.items())},
        shards=tuple(sorted({row.shard for row in rows})),
        models=_models_here(workspace) if "train" in clips else {},
    )


def _models_here(workspace: Workspace) -> dict[str, str]:
    """Return the checkout's models that were trained on its data as it lies there.

    The autoencoder counts too: it draws frames from the same clips.
    """
    path = workspace.latents / "manifest.json"
    dataset = ShardManifest.parse(path.read_text(encoding="utf-8"), origin=str(path)).content_hash()
    found = {}
    for file in sorted(workspace.model("x").parent.glob("*/model.json")):
        record = ModelRecord.parse(file.read_text(encoding="utf-8"), origin=str(file))
        if record.kind == "autoencoder" or record.dataset_fingerprint == dataset:
            found[record.stage] = record.weights_sha256
    return found
