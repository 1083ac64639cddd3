"""Samples of the held-out set, one file a clip, so that a killed run goes on where it was."""

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from einops import rearrange
from jaxtyping import UInt8
from torch import Tensor

from svd.evaluation.heldout import HeldOutClip
from svd.evaluation.tensor_store import TensorStore
from svd.runtime.progress import track

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
    store = TensorStore(folder)
    videos: list[Tensor] = []
    starts = range(0, len(clips), batch_size)
    for start in track(starts, total=len(starts), description="sampling videos", unit="batches"):
        batch = clips[start : start + batch_size]
        batch_seeds = seeds[start : start + batch_size]
        found = [
            store.get(item.clip.clip_id, _key(item, seed))
            for item, seed in zip(batch, batch_seeds, strict=True)
        ]
        done = [stored.tensors["frames"] for stored in found if stored is not None]
        if len(done) < len(batch):
            pictures = torch.stack([rearrange(item.cond_frame, "c H W -> H W c") for item in batch])
            sampled = sample_videos(pictures, batch_seeds)
            done = list(rearrange(sampled, "b t H W c -> b t c H W").contiguous().cpu())
            for item, seed, video in zip(batch, batch_seeds, done, strict=True):
                store.put(item.clip.clip_id, _key(item, seed), {"frames": video})
        videos += done
    return tuple(videos)


def frames_sha256(frames: UInt8[Tensor, "..."]) -> str:
    """Return the sha256 (hex) of shape and bytes of uint8 frames."""
    digest = hashlib.sha256(f"{tuple(frames.shape)}".encode())
    digest.update(frames.contiguous().numpy().tobytes())
    return digest.hexdigest()


def _key(item: HeldOutClip, seed: int) -> str:
    return f"{seed}:{frames_sha256(item.cond_frame)}"
