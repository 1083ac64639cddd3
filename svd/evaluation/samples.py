"""Samples of the held-out set, one file a clip, so that a killed run goes on where it was."""

import hashlib
import logging
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from einops import rearrange
from jaxtyping import UInt8
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from svd.evaluation.heldout import HeldOutClip
from svd.runtime.progress import track

logger = logging.getLogger(__name__)

# Conditioning frames "b H W 3" and one seed a frame -> videos "b t H W 3", both 0..255.
SampleVideos = Callable[[UInt8[Tensor, "b H W 3"], Sequence[int]], UInt8[Tensor, "b t H W 3"]]


def sample_held_out(
    clips: Sequence[HeldOutClip],
    seeds: Sequence[int],
    sample_videos: SampleVideos,
    folder: Path,
    *,
    batch_size: int,
) -> tuple[UInt8[Tensor, "t c H W"], ...]:
    """Return a sampled video for each clip, reading those that an earlier run left.

    Batches are the same in every run (a batch is sampled again if any of its files is missing),
    so a resumed run ends in the same bytes as an unbroken one, whatever the batch does to the
    last digit.

    Args:
        clips: What to condition on.
        seeds: One per clip.
        sample_videos: The sampler.
        folder: Holds `<clip_id>.safetensors`; belongs to one model and one recipe.
        batch_size: Clips sampled and saved at once; at most so many are lost to a kill.
    """
    folder.mkdir(parents=True, exist_ok=True)
    videos: list[Tensor] = []
    starts = range(0, len(clips), batch_size)
    for start in track(starts, total=len(starts), description="sampling videos", unit="batches"):
        batch = clips[start : start + batch_size]
        paths = [folder / f"{item.clip.clip_id}.safetensors" for item in batch]
        batch_seeds = seeds[start : start + batch_size]
        found = [
            _read(path, item, seed)
            for path, item, seed in zip(paths, batch, batch_seeds, strict=True)
        ]
        done = [video for video in found if video is not None]
        if len(done) < len(batch):
            pictures = torch.stack([rearrange(item.cond_frame, "c H W -> H W c") for item in batch])
            sampled = sample_videos(pictures, batch_seeds)
            done = list(rearrange(sampled, "b t H W c -> b t c H W").contiguous().cpu())
            for path, item, seed, video in zip(paths, batch, batch_seeds, done, strict=True):
                _write(path, video, _key(item, seed))
        videos += done
    return tuple(videos)


def frames_sha256(frames: UInt8[Tensor, "..."]) -> str:
    """Return the sha256 (hex) of shape and bytes of uint8 frames."""
    digest = hashlib.sha256(f"{tuple(frames.shape)}".encode())
    digest.update(frames.contiguous().numpy().tobytes())
    return digest.hexdigest()


def _key(item: HeldOutClip, seed: int) -> str:
    return f"{seed}:{frames_sha256(item.cond_frame)}"


def _write(path: Path, video: Tensor, key: str) -> None:
    partial = path.with_name(path.name + ".partial")
    save_file({"frames": video}, partial, metadata={"key": key})
    partial.replace(path)


def _read(path: Path, item: HeldOutClip, seed: int) -> Tensor | None:
    """Return a saved sample; None if it is not there, damaged, or of another condition."""
    if not path.is_file():
        return None
    try:
        with safe_open(path, framework="pt") as file:
            if (file.metadata() or {}).get("key") != _key(item, seed):
                return None
            video: Tensor = file.get_tensor("frames")
            return video
    except SafetensorError:
        logger.warning("saved sample is damaged; sampling again", extra={"path": str(path)})
        return None
