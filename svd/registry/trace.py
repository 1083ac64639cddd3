"""Which versions saw a video: the way back from a source to every model."""

import logging
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from svd.data.lineage import ClipRow, find_rows, table_path
from svd.errors import GateError
from svd.registry.catalog import Catalog, known_names
from svd.runtime.store import Store, object_key
from svd.runtime.workspace import Workspace
from svd.types.version import ModelVersion

logger = logging.getLogger(__name__)

SHORTEST_PREFIX = 6  # hex digits of a video id that are enough to ask for it


class VideoUse(NamedTuple):
    """How one version used one video."""

    name: str
    version: str
    stages: tuple[str, ...]  # where the version is in use now
    weights_sha256: str  # of its checkpoint
    video_id: str
    origin: str
    licence: str
    clips: dict[str, tuple[str, ...]]  # split -> clip ids
    shards: tuple[str, ...]  # sha256


def version_table(version: ModelVersion, workspace: Workspace, store: Store) -> Path:
    """Return the file with every clip a version was made from.

    It is fetched from the store once and kept below `.svd/`.

    Raises:
        GateError: The version has no table.
        IntegrityError: The store's table is not the one the version names.
        MissingInputError: The store does not have it.
    """
    sha256 = version.lineage_table_sha256
    if sha256 is None:
        raise GateError(f"{version.name} {version.version}: no lineage was recorded")
    path = table_path(workspace, sha256)
    if not path.is_file():
        store.get_file(object_key(sha256), path, sha256=sha256)
    return path


def uses_of_video(workspace: Workspace, store: Store, video_id: str) -> list[VideoUse]:
    """Return every use of a video by any registered version of any model, oldest version first.

    Versions of one data set share a table, which is searched once. A version that another tool
    registered has no record to follow; it is named in a warning.

    Args:
        workspace: The checkout; its repository's tags are read.
        store: Where tables lie.
        video_id: The sha256 of the video's bytes, or at least its first six digits.

    Raises:
        GateError: The id is too short or not hexadecimal.
    """
    wanted = check_video_id(video_id)
    found: dict[str, list[ClipRow]] = {}
    uses = []
    for name in known_names(workspace.root):
        catalog = Catalog.read(workspace.root, name)
        for number in catalog.versions:
            record = _record(catalog, number)
            if record is None:
                continue
            table = record.lineage_table_sha256 or ""
            if table not in found:
                path = version_table(record, workspace, store)
                found[table] = find_rows(path, video_id=wanted)
            uses.extend(_uses(catalog, record, found[table]))
    return uses


def check_video_id(text: str) -> str:
    """Return a video's sha256 or its first digits, in lower case.

    Raises:
        GateError: The text is too short or not hexadecimal.
    """
    digits = text.lower()
    if len(digits) < SHORTEST_PREFIX or set(digits) - set("0123456789abcdef"):
        raise GateError(f"{text!r}: give a video's sha256, or six or more of its first digits")
    return digits


def _record(catalog: Catalog, version: str) -> ModelVersion | None:
    try:
        return catalog.record(version)
    except GateError as err:
        logger.warning("version without a record is not followed", extra={"reason": str(err)})
        return None


def _uses(catalog: Catalog, record: ModelVersion, rows: Sequence[ClipRow]) -> list[VideoUse]:
    by_video: dict[str, list[ClipRow]] = defaultdict(list)
    for row in rows:
        by_video[row.video_id].append(row)
    stages = catalog.stages_of(str(record.version))
    return [_use(record, stages, found) for _, found in sorted(by_video.items())]


def _use(record: ModelVersion, stages: tuple[str, ...], rows: Sequence[ClipRow]) -> VideoUse:
    clips: dict[str, set[str]] = defaultdict(set)
    for row in rows:
        clips[row.split].add(row.clip_id)
    return VideoUse(
        name=record.name,
        version=str(record.version),
        stages=stages,
        weights_sha256=record.weights_sha256,
        video_id=rows[0].video_id,
        origin=rows[0].origin,
        licence=rows[0].licence,
        clips={split: tuple(sorted(ids)) for split, ids in sorted(clips.items())},
        shards=tuple(sorted({row.shard for row in rows})),
    )
