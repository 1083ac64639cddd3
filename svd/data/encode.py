"""The stage encode: kept clips to shards of latents, embeddings and ids, with a manifest."""

import hashlib
import logging
import os
import shutil
from collections import defaultdict
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from svd.atomic import new_folder, write_text
from svd.config.data import EncodeConfig
from svd.data.frames import read_frames
from svd.data.kept import load_kept_clips, read_stage_records
from svd.data.latents import (
    ClipEncoder,
    identify_autoencoder,
    identify_image_encoder,
    load_autoencoder,
)
from svd.data.motion import fit_motion_table, motion_bucket
from svd.data.stream.buckets import pick_sizes
from svd.data.stream.examples import pack
from svd.data.stream.shards import MANIFEST, PackedExample, save_shard
from svd.errors import MediaError, MissingInputError
from svd.models.networks.image_encoder import ImageEncoder
from svd.runtime.fingerprint import stage_fingerprint
from svd.runtime.progress import track
from svd.runtime.tracking import Tracker
from svd.runtime.workspace import Workspace
from svd.types.annotation import Annotation, SplitName, Tier
from svd.types.artifact import StageReport, Value
from svd.types.base import Record
from svd.types.shard import DroppedClip, ExampleMeta, MotionTable, ShardInfo, ShardManifest
from svd.types.video import Clip

if TYPE_CHECKING:
    from svd.config.params import Params

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class AnnotatedClip:
    """A kept clip, with all that is stored of it beside its pictures."""

    clip: Clip
    split: SplitName
    tier: Tier
    annotation: Annotation


@dataclass(frozen=True, slots=True)
class ShardTask:
    """Clips that go into one shard, or one per size."""

    name: str
    split: SplitName
    tier: Tier
    clips: tuple[AnnotatedClip, ...]


class ShardsDone(Record):
    """A finished task: .runs/<fingerprint>/done/<name>.json."""

    shards: tuple[ShardInfo, ...]  # one per size, unless every clip was dropped
    dropped: tuple[DroppedClip, ...]


def run(params: "Params", workspace: Workspace, *, tracker: Tracker) -> StageReport:
    """Encode every kept clip; a clip that cannot be encoded is dropped, counted and named.

    Raises:
        MissingInputError: A stage before has not run.
        ConfigError: No training clip has the motion score that the recipe names.
        IntegrityError: Weights are not those that model.json names.
    """
    config = params.encode
    kept = load_annotated_clips(workspace)
    autoencoder, record = load_autoencoder(workspace.model("autoencoder"))
    encoder = ClipEncoder(
        autoencoder,
        ImageEncoder(config.image_encoder),
        block_frames=config.block_frames,
        frames_at_once=config.frames_at_once,
        device=config.device,
    )
    table = _motion_table(kept, config.motion_score)
    live = workspace.runs / stage_fingerprint(workspace, "encode")
    writer = ShardWriter(encoder, config, table, clips_folder=workspace.clips, live=live)
    done = encode_all(writer, plan_shards(kept, config.examples_per_shard), config.num_workers)
    manifest = ShardManifest(
        shards=tuple(shard for task in done for shard in task.shards),
        fps=config.fps,
        block_frames=config.block_frames,
        latent_channels=autoencoder.config.latent_channels,
        latent_downscale=autoencoder.config.downsampling,
        latent_scale=autoencoder.config.latent_scale,
        embed_dim=encoder.embed_dim,
        encoders=(identify_autoencoder(record), identify_image_encoder(config.image_encoder)),
        motion_table=table,
        dropped=tuple(clip for task in done for clip in task.dropped),
    )
    publish(live, manifest, workspace.latents)
    return _report(manifest, tracker)


def load_annotated_clips(workspace: Workspace) -> tuple[AnnotatedClip, ...]:
    """Return the clips that filter kept with their annotations, by clip_id.

    Raises:
        MissingInputError: A stage has not run, or does not know a kept clip.
    """
    path = workspace.annotations / "annotations.jsonl"
    read = read_stage_records(path, Annotation, stage="annotate")
    annotations = {annotation.clip_id: annotation for annotation in read}
    kept = load_kept_clips(workspace)
    unknown = [one.clip.clip_id for one in kept if one.clip.clip_id not in annotations]
    if unknown:
        raise MissingInputError(
            f"clip {unknown[0]} is kept but not in data/annotations: run `svd annotate` and "
            "`svd filter` again"
        )
    return tuple(
        AnnotatedClip(one.clip, one.split, one.tier, annotations[one.clip.clip_id]) for one in kept
    )


def plan_shards(kept: Sequence[AnnotatedClip], examples_per_shard: int) -> tuple[ShardTask, ...]:
    """Assign clips to shards by the hash of their id; a shard holds clips of one split and tier.

    So a clip that comes or goes changes one shard only, as long as the number of shards stays;
    neighbouring clips of a film are spread over shards.
    """
    groups: dict[tuple[SplitName, Tier], list[AnnotatedClip]] = defaultdict(list)
    for one in kept:
        groups[one.split, one.tier].append(one)
    tasks = []
    for (split, tier), clips in sorted(groups.items()):
        num_shards = -(-len(clips) // examples_per_shard)
        places: dict[int, list[AnnotatedClip]] = defaultdict(list)
        for one in clips:
            digest = hashlib.sha256(one.clip.clip_id.encode()).digest()
            places[int.from_bytes(digest[:8], "big") % num_shards].append(one)
        tasks += [
            ShardTask(f"{split}-{tier}-{place:05d}", split, tier, tuple(places[place]))
            for place in sorted(places)
        ]
    return tuple(tasks)


class ShardWriter:
    """Makes the shards of a task below a folder of live state; finished ones are not made again."""

    def __init__(
        self,
        encoder: ClipEncoder,
        config: EncodeConfig,
        table: MotionTable,
        *,
        clips_folder: Path,
        live: Path,
    ) -> None:
        self._encoder = encoder
        self._config = config
        self._table = table
        self._clips_folder = clips_folder
        self._live = live
        (live / "done").mkdir(parents=True, exist_ok=True)

    def __call__(self, task: ShardTask) -> ShardsDone:
        """Return the task's shards, from an earlier attempt if it finished them."""
        mark = self._live / "done" / f"{task.name}.json"
        if mark.is_file():
            return ShardsDone.parse(mark.read_text(encoding="utf-8"), origin=str(mark))
        packed: list[list[PackedExample]] = [[] for _ in self._config.sizes]
        dropped = []
        for one in task.clips:
            try:
                for place, example in self._encode(one):
                    packed[place].append(example)
            except MediaError as err:
                logger.warning("clip dropped", extra={"clip": one.clip.clip_id, "why": str(err)})
                dropped.append(
                    DroppedClip(clip_id=one.clip.clip_id, reason=err.reason, detail=err.detail)
                )
        shards = tuple(
            save_shard(
                self._live,
                examples,
                split=task.split,
                height=size.height,
                width=size.width,
                tier=task.tier,
            )
            for size, examples in zip(self._config.sizes, packed, strict=True)
            if examples
        )
        done = ShardsDone(shards=shards, dropped=tuple(dropped))
        write_text(mark, done.canonical_json())
        return done

    def _encode(self, one: AnnotatedClip) -> list[tuple[int, PackedExample]]:
        """Return the clip at each of its sizes, with the size's place among all."""
        config, clip = self._config, one.clip
        places = pick_sizes(config.sizes, width=clip.width, height=clip.height)
        score = one.annotation.scores.get(config.motion_score)
        if score is None:
            reason = one.annotation.missing.get(config.motion_score, "not measured")
            raise MediaError(clip.uri, "no-motion-score", f"{config.motion_score}: {reason}")
        frames = read_frames(
            self._clips_folder / clip.uri,
            clip,
            fps=config.fps,
            sizes=[config.sizes[place] for place in places],
            max_frames=config.max_frames,
        )
        meta = ExampleMeta(
            clip_id=clip.clip_id,
            video_id=clip.span.video_id,
            clip_sha256=clip.sha256,
            num_frames=len(frames.by_size[0]),
            fps=frames.fps,
            captions=one.annotation.captions,
            motion_score=score,
            motion_bucket_id=motion_bucket(self._table, score),
        )
        return [
            (
                place,
                pack(
                    self._encoder.encode(meta, torch.from_numpy(pictures)),
                    block_frames=config.block_frames,
                ),
            )
            for place, pictures in zip(places, frames.by_size, strict=True)
        ]


def encode_all(
    writer: ShardWriter, tasks: Sequence[ShardTask], num_workers: int
) -> tuple[ShardsDone, ...]:
    """Run all tasks on threads; decoder and networks leave the interpreter's lock alone.

    Every thread computes with one intra-operation thread, so bytes do not hang on their number.
    """
    with ThreadPoolExecutor(
        num_workers, thread_name_prefix="encode", initializer=torch.set_num_threads, initargs=(1,)
    ) as pool:
        try:
            done = pool.map(writer, tasks)
            shown = track(done, total=len(tasks), description="encoding clips", unit="shards")
            return tuple(shown)
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def publish(live: Path, manifest: ShardManifest, out: Path) -> None:
    """Put the shards and their manifest where the stage's output lies, all or nothing."""
    with new_folder(out) as partial:
        (partial / "shards").mkdir()
        for shard in manifest.shards:
            for uri in (shard.uri, shard.index_uri):
                _link_or_copy(live / uri, partial / uri)
        (partial / MANIFEST).write_text(manifest.canonical_json(), encoding="utf-8")
    shutil.rmtree(live)


def _link_or_copy(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:  # another file system, or one without hard links
        shutil.copyfile(source, target)


def _motion_table(kept: Sequence[AnnotatedClip], name: str) -> MotionTable:
    train = [one.annotation for one in kept if one.split == "train"]
    scorers = {
        f"{name} of {scorer.name} {scorer.version}"
        for annotation in train
        if (scorer := annotation.scorers.get(name.partition(".")[0])) is not None
    }
    return fit_motion_table(
        [annotation.scores[name] for annotation in train if name in annotation.scores],
        scorer=", ".join(sorted(scorers)) or name,
    )


def _report(manifest: ShardManifest, tracker: Tracker) -> StageReport:
    by_split: Mapping[SplitName, int] = {
        split: sum(shard.num_examples for shard in manifest.shards if shard.split == split)
        for split in ("train", "heldout")
    }
    size_bytes = sum(shard.size_bytes for shard in manifest.shards)
    summary: dict[str, Value] = {
        "train examples": by_split["train"],
        "held-out examples": by_split["heldout"],
        "frames": sum(shard.num_frames for shard in manifest.shards),
        "clips dropped": len(manifest.dropped),
        "shards": len(manifest.shards),
        "MB": round(size_bytes / 1e6, 1),
        "dataset": manifest.content_hash(),
    }
    if manifest.dropped:
        tracker.log_table(
            "encode/dropped",
            ("clip", "reason", "detail"),
            [(clip.clip_id, clip.reason, clip.detail) for clip in manifest.dropped],
        )
    return StageReport(
        stage="encode",
        summary=summary,
        warnings=tuple(
            f"clip {clip.clip_id} could not be encoded: {clip.reason}: {clip.detail}"
            for clip in manifest.dropped
        ),
        outputs=("data/latents/manifest.json",),
    )
