"""A few frames of every clip as one array on disk, decoded once and read by every step."""

import hashlib
import logging
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from svd.atomic import new_file, write_text
from svd.config.autoencoder import FramesConfig
from svd.data.frames import Frames, read_frames
from svd.data.kept import KeptClip, load_kept_clips
from svd.errors import ConfigError, MediaError
from svd.runtime.progress import track
from svd.runtime.workspace import Workspace
from svd.types.annotation import SplitName
from svd.types.base import Record
from svd.types.shard import DroppedClip

logger = logging.getLogger(__name__)


class CachedFrames(Record):
    """frames-<split>.json: what lies in the array beside it; written last."""

    num_frames: int
    num_clips: int
    lengths: tuple[int, ...]  # frames of each clip, in the array's order
    dropped: tuple[DroppedClip, ...]


def open_splits(
    folder: Path, config: FramesConfig, workspace: Workspace
) -> tuple[Frames, Frames, tuple[CachedFrames, CachedFrames]]:
    """Return training frames, held-out frames, and what is known of both.

    Args:
        folder: Live state of the stage; what an earlier attempt decoded there is read.
        config: Which frames of the kept clips.
        workspace: Where the clips are.

    Raises:
        MissingInputError: A stage before has not run.
        ConfigError: A split has no frame.
    """
    kept = load_kept_clips(workspace)
    if not {one.split for one in kept} >= {"train", "heldout"}:
        raise ConfigError("filter kept no training clip, or held out none: see data/filtered")
    train, known = open_frame_cache(
        folder, kept, config, split="train", clips_folder=workspace.clips
    )
    heldout, known_heldout = open_frame_cache(
        folder, kept, config, split="heldout", clips_folder=workspace.clips
    )
    return train, heldout, (known, known_heldout)


def open_frame_cache(
    folder: Path,
    kept: Sequence[KeptClip],
    config: FramesConfig,
    *,
    split: SplitName,
    clips_folder: Path,
) -> tuple[Frames, CachedFrames]:
    """Return the frames of a split, decoding them unless an earlier attempt has.

    Args:
        folder: Live state of the stage.
        kept: The clips; of this split those that come first by the hash of their id are taken.
        config: Which frames.
        split: Which clips.
        clips_folder: Where the clips' files lie.

    Returns:
        The array (n, 3, H, W), mapped from disk, in the order of clip ids and then of time; and
        what is known of it.

    Raises:
        ConfigError: No frame of the split can be read.
    """
    array, mark = folder / f"frames-{split}.npy", folder / f"frames-{split}.json"
    if not mark.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        _fill(array, mark, _choose(kept, split, config.max_clips), config, clips_folder)
    record = CachedFrames.parse(mark.read_text(encoding="utf-8"), origin=str(mark))
    if record.num_frames == 0:
        raise ConfigError(f"no {split} clip has a frame that can be read")
    frames: Frames = np.load(array, mmap_mode="r")
    return frames, record


def _choose(kept: Sequence[KeptClip], split: SplitName, max_clips: int) -> list[KeptClip]:
    def rank(one: KeptClip) -> bytes:
        return hashlib.sha256(one.clip.clip_id.encode()).digest()

    chosen = sorted((one for one in kept if one.split == split), key=rank)[:max_clips]
    return sorted(chosen, key=lambda one: one.clip.clip_id)


def _fill(
    array: Path, mark: Path, clips: Sequence[KeptClip], config: FramesConfig, clips_folder: Path
) -> None:
    def decode(one: KeptClip) -> Frames | DroppedClip:
        try:
            found = read_frames(
                clips_folder / one.clip.uri,
                one.clip,
                fps=config.fps,
                sizes=(config.size,),
                max_frames=config.max_per_clip,
            )
        except MediaError as err:
            logger.warning("clip dropped", extra={"clip": one.clip.clip_id, "why": str(err)})
            return DroppedClip(clip_id=one.clip.clip_id, reason=err.reason, detail=err.detail)
        return found.by_size[0]

    with ThreadPoolExecutor(config.decode_threads, thread_name_prefix="decode") as pool:
        decoding = pool.map(decode, clips)
        results = list(
            track(decoding, total=len(clips), description="decoding frames", unit="clips")
        )
    parts = [result for result in results if not isinstance(result, DroppedClip)]
    dropped = tuple(result for result in results if isinstance(result, DroppedClip))
    empty = np.zeros((0, 3, config.size.height, config.size.width), np.uint8)
    frames = np.concatenate([empty, *parts])
    with new_file(array) as partial, partial.open("wb") as file:
        np.save(file, frames, allow_pickle=False)
    record = CachedFrames(
        num_frames=len(frames),
        num_clips=len(parts),
        lengths=tuple(len(part) for part in parts),
        dropped=dropped,
    )
    write_text(mark, record.canonical_json())
