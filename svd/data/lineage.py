"""From a model back to its sources: read from the records that the stages left behind.

The summary is a `LineageRecord`; clip by clip it is a table, one row per clip and shard. The
table is a parquet file sorted by video, so that one video is found without reading the rest.
"""

import hashlib
import json
import uuid
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import yaml

from svd.errors import IntegrityError
from svd.runtime.fingerprint import file_sha256
from svd.runtime.graph import expand_stages
from svd.runtime.workspace import Workspace
from svd.types.base import read_records
from svd.types.shard import ShardIndex, ShardManifest
from svd.types.stage import STAGES
from svd.types.version import LineageRecord, SourceVideo, StageLineage
from svd.types.video import Clip, RawVideo

OFFERED_STAGE: Final = "register"  # offers the model, so it is no part of how the model was made
_COLUMNS: Final = ("video_id", "clip_id", "split", "shard", "origin", "licence")
_ROWS_PER_GROUP: Final = 20_000  # a look-up reads one or two groups of these


class ClipRow(NamedTuple):
    """A clip in a shard, and the video it came from. The order of fields is the table's."""

    video_id: str
    clip_id: str
    split: str
    shard: str  # sha256 of the tar
    origin: str
    licence: str


def lineage_of(workspace: Workspace) -> LineageRecord:
    """Follow the checkout's models back to source videos.

    What is not there is named in `missing`, so that a report of an unfinished run can be drawn.
    """
    missing: list[str] = []
    stages = _locked_stages(workspace.root, missing)
    manifests = _manifests(workspace, missing)
    rows: list[ClipRow] = []
    if not missing:
        try:
            rows = clip_rows(workspace)
        except IntegrityError as err:
            missing.append(str(err))
    videos = {row.video_id: row.licence for row in rows}
    return LineageRecord(
        stages=stages,
        manifests=manifests,
        num_videos=len(videos),
        num_clips=len({row.clip_id for row in rows}),
        num_shards=len({row.shard for row in rows}),
        licences=dict(sorted(Counter(videos.values()).items())),
        missing=tuple(missing),
    )


def clip_rows(workspace: Workspace) -> list[ClipRow]:
    """Return every clip of every shard with its source, sorted by video, clip and shard.

    Raises:
        IntegrityError: A record is malformed, or a shard holds a clip that no index knows.
    """
    videos = {v.video_id: v for v in read_records(workspace.raw / "index.jsonl", RawVideo)}
    clips = {
        clip.clip_id: clip.span.video_id
        for clip in read_records(workspace.clips / "index.jsonl", Clip)
    }
    rows = []
    for clip_id, split, shard in _shard_members(workspace.latents):
        video = videos.get(clips.get(clip_id, ""))
        if video is None:
            raise IntegrityError(
                f"clip {clip_id} of shard {shard} leads to no source video in {workspace.raw}"
            )
        rows.append(ClipRow(video.video_id, clip_id, split, shard, video.origin, video.licence))
    return sorted(rows)


def source_videos(path: Path) -> tuple[SourceVideo, ...]:
    """Return the videos behind a table's clips, those with the most clips first."""
    import duckdb

    query = """
        SELECT video_id, any_value(origin), any_value(licence), split, count(DISTINCT clip_id)
        FROM read_parquet(?) GROUP BY video_id, split ORDER BY video_id, split
    """
    found: dict[str, SourceVideo] = {}
    with duckdb.connect() as connection:
        for video_id, origin, licence, split, num in connection.execute(
            query, [str(path)]
        ).fetchall():
            before = found[video_id].num_clips if video_id in found else {}
            found[video_id] = SourceVideo(
                video_id=video_id, origin=origin, licence=licence, num_clips={**before, split: num}
            )
    return tuple(sorted(found.values(), key=lambda v: (-sum(v.num_clips.values()), v.video_id)))


def keep_table(workspace: Workspace, rows: Sequence[ClipRow]) -> str:
    """Write rows as parquet below the workspace's state; return the sha256 that names the file.

    Equal rows give equal bytes, so versions made from one data set share a table.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns = zip(*sorted(rows), strict=True) if rows else ((),) * len(_COLUMNS)
    arrays = [pa.array(values, pa.string()) for values in columns]
    table = pa.table(dict(zip(_COLUMNS, arrays, strict=True)))
    folder = table_path(workspace, "").parent
    folder.mkdir(parents=True, exist_ok=True)
    partial = folder / f"{uuid.uuid4().hex}.partial"
    pq.write_table(table, partial, row_group_size=_ROWS_PER_GROUP, compression="zstd")
    sha256 = file_sha256(partial)
    partial.replace(table_path(workspace, sha256))
    return sha256


def table_path(workspace: Workspace, sha256: str) -> Path:
    """Return where the table of this content is kept."""
    return workspace.state / "lineage" / f"{sha256}.parquet"


def find_rows(path: Path, *, video_id: str | None = None) -> list[ClipRow]:
    """Return a table's rows, or those of one video; `video_id` may be its first digits."""
    import pyarrow.parquet as pq

    chosen = None
    if video_id is not None:
        # "g" sorts right after every hex digit, so this is the range of ids with this beginning.
        chosen = [("video_id", ">=", video_id), ("video_id", "<", video_id + "g")]
    table = pq.read_table(path, columns=list(_COLUMNS), filters=chosen, memory_map=True)
    columns = [table.column(name).to_pylist() for name in _COLUMNS]
    return [ClipRow(*values) for values in zip(*columns, strict=True)]


def making_stages(root: Path) -> tuple[str, ...]:
    """Return the stages that the offered model was made by, in the order of the graph.

    They are those of dvc.yaml that `register` hangs on, directly or not. Other branches of the
    graph, such as a finetune beside it, are no part of how the model came about.
    """
    path = root / "dvc.yaml"
    graph = yaml.safe_load(path.read_text(encoding="utf-8")) if path.is_file() else {}
    stages = expand_stages((graph or {}).get("stages") or {})
    found: set[str] = set()
    waiting = [OFFERED_STAGE] if OFFERED_STAGE in stages else []
    while waiting:
        read = _paths(stages[waiting.pop()], "deps")
        makers = {
            name
            for name, stage in stages.items()
            for made in _paths(stage, "outs", "metrics", "plots")
            if any(_overlap(made, dep) for dep in read)
        }
        waiting.extend(makers - found)
        found |= makers
    order: dict[str, int] = {name: index for index, name in enumerate(STAGES)}
    return tuple(sorted(found, key=lambda name: (order.get(name, len(order)), name)))


def _paths(stage: Mapping[str, Any], *kinds: str) -> list[str]:
    items = [item for kind in kinds for item in stage.get(kind) or []]
    return [item if isinstance(item, str) else next(iter(item)) for item in items]


def _overlap(one: str, other: str) -> bool:
    """Whether two paths are the same or one lies below the other."""
    return f"{one}/".startswith(f"{other}/") or f"{other}/".startswith(f"{one}/")


def lock_sha256(root: Path) -> str | None:
    """Return the sha256 of what dvc.lock says of the stages that made the offered model.

    None without a lock. The order of its keys does not matter, and neither does whether other
    stages have run.
    """
    lock = _read_lock(root)
    if lock is None:
        return None
    stages = {name: lock[name] for name in making_stages(root) if name in lock}
    return hashlib.sha256(json.dumps(stages, sort_keys=True).encode()).hexdigest()


def _read_lock(root: Path) -> dict[str, Any] | None:
    path = root / "dvc.lock"
    if not path.is_file():
        return None
    stages: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8")).get("stages") or {}
    return stages


def _locked_stages(root: Path, missing: list[str]) -> tuple[StageLineage, ...]:
    lock = _read_lock(root)
    if lock is None:
        missing.append("dvc.lock is not there: run `dvc repro`")
        return ()
    wanted = making_stages(root)
    missing.extend(f"dvc.lock has no stage {stage}" for stage in wanted if stage not in lock)
    return tuple(_stage(name, lock[name]) for name in wanted if name in lock)


def _stage(name: str, entry: Mapping[str, Any]) -> StageLineage:
    def hashes(kind: str) -> dict[str, str]:
        return {str(item["path"]): str(item.get("md5", "")) for item in entry.get(kind) or []}

    return StageLineage(
        stage=name,
        cmd=str(entry.get("cmd", "")),
        params=dict(entry.get("params") or {}),
        deps=hashes("deps"),
        outs=hashes("outs"),
    )


def _manifests(workspace: Workspace, missing: list[str]) -> dict[str, str]:
    found = {}
    for path in (
        workspace.raw / "index.jsonl",
        workspace.clips / "index.jsonl",
        workspace.annotations / "annotations.jsonl",
        workspace.filtered / "verdicts.jsonl",
        workspace.latents / "manifest.json",
    ):
        name = path.relative_to(workspace.root).as_posix()
        if path.is_file():
            found[name] = file_sha256(path)
        else:
            missing.append(f"{name} is not there")
    return found


def _shard_members(latents: Path) -> Iterator[tuple[str, str, str]]:
    """Yield (clip_id, split, sha256 of the shard) of every example."""
    path = latents / "manifest.json"
    manifest = ShardManifest.parse(path.read_text(encoding="utf-8"), origin=str(path))
    for shard in manifest.shards:
        place = latents / shard.index_uri
        index = ShardIndex.parse(place.read_text(encoding="utf-8"), origin=str(place))
        for example in index.examples:
            yield example.key, shard.split, shard.sha256
