"""The held-out clips a model is measured on, as the encode stage saw them."""

import hashlib
import logging
from dataclasses import dataclass
from fractions import Fraction

import torch
from jaxtyping import UInt8
from torch import Tensor

from svd.config.data import PictureSize
from svd.config.evaluation import EvaluateConfig
from svd.data.frames import read_frames
from svd.data.stream.shards import load_manifest, read_index
from svd.errors import MediaError, MissingInputError
from svd.runtime.storage import open_store
from svd.runtime.workspace import Workspace
from svd.types.base import read_records
from svd.types.shard import ShardManifest
from svd.types.video import Clip

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class HeldOutClip:
    """A real clip no model was trained on.

    Attributes:
        clip: What is known of it.
        frames: Its first frames at the rate and size the model was trained at.
        fps: Their true rate.
    """

    clip: Clip
    frames: UInt8[Tensor, "t c H W"]
    fps: Fraction

    @property
    def cond_frame(self) -> UInt8[Tensor, "c H W"]:
        """The frame a sample is conditioned on."""
        return self.frames[0]


@dataclass(frozen=True, slots=True)
class HeldOutSet:
    """Clips in the order of their ids.

    Attributes:
        clips: Usable clips.
        unusable: clip_id -> why a chosen clip could not be read.
        num_available: Clips the manifest holds out, before choosing.
    """

    clips: tuple[HeldOutClip, ...]
    unusable: dict[str, str]
    num_available: int

    @property
    def fingerprint(self) -> str:
        """Return the sha256 (hex) of the clips' ids and bytes: names the data set of a metric."""
        lines = [f"{item.clip.clip_id} {item.clip.sha256}" for item in self.clips]
        return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def load_held_out(config: EvaluateConfig, workspace: Workspace, *, seed: int) -> HeldOutSet:
    """Choose and read held-out clips.

    A clip's place in the draw depends on the seed and its own id only, so that more data change
    the set as little as possible.

    Raises:
        MissingInputError: The manifest or the clips are not there, or none is long enough.
        IntegrityError: An index is not what the manifest says.
    """
    store = open_store(str(workspace.latents))
    manifest = load_manifest(store)
    size = PictureSize(height=config.sampling.height, width=config.sampling.width)
    num_frames = config.sampling.num_frames
    ids = [
        example.key
        for shard in manifest.select("heldout", height=size.height, width=size.width)
        for example in read_index(store, shard).examples
        if example.num_frames >= num_frames
    ]
    if not ids:
        raise MissingInputError(
            f"data/latents holds no held-out clip of {num_frames} frames at "
            f"{size.width}x{size.height}: {_what_there_is(manifest)}; lower "
            "evaluate.sampling.num_frames, or hold out more in filter.split"
        )
    known = {clip.clip_id: clip for clip in read_records(workspace.clips / "index.jsonl", Clip)}
    chosen = sorted(sorted(ids, key=lambda clip_id: _draw(clip_id, seed))[: config.num_clips])
    clips, unusable = [], {}
    for clip_id in chosen:
        clip = known.get(clip_id)
        if clip is None:
            unusable[clip_id] = "data/clips/index.jsonl does not list it"
            continue
        try:
            read = read_frames(
                workspace.clips / clip.uri,
                clip,
                fps=manifest.fps,
                sizes=[size],
                max_frames=num_frames,
            )
        except MediaError as err:
            unusable[clip_id] = str(err)
            continue
        frames = torch.from_numpy(read.by_size[0])
        if len(frames) < num_frames:
            unusable[clip_id] = f"{len(frames)} of {num_frames} frames"
            continue
        clips.append(HeldOutClip(clip, frames, read.fps))
    for clip_id, reason in unusable.items():
        logger.warning("held-out clip skipped", extra={"clip_id": clip_id, "reason": reason})
    return HeldOutSet(tuple(clips), unusable, num_available=len(ids))


def sample_seed(clip_id: str, seed: int) -> int:
    """Return the seed of a clip's sample: of the run's seed and the clip's id, nothing else."""
    return int.from_bytes(_draw(clip_id, seed)[:4], "big")


def _draw(clip_id: str, seed: int) -> bytes:
    return hashlib.sha256(f"{seed}:{clip_id}".encode()).digest()


def _what_there_is(manifest: ShardManifest) -> str:
    held_out = [shard for shard in manifest.shards if shard.split == "heldout"]
    if not held_out:
        return "it has no held-out shard"
    sizes = sorted({f"{shard.width}x{shard.height}" for shard in held_out})
    longest = max(entry.num_frames for shard in held_out for entry in shard.lengths)
    return f"it has {', '.join(sizes)} of up to {longest} frames"
