"""What the stages that train on pixels have in common: batches, PSNR, previews, dropped clips."""

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from svd.data.frame_cache import CachedFrames
from svd.data.frames import Frames


def to_pixels(frames: Frames) -> Float[Tensor, "n 3 H W"]:
    """Return frames as pixels in -1..1."""
    return torch.from_numpy(np.array(frames)).float() / 127.5 - 1


def psnr_db(
    decoded: Float[Tensor, "n 3 H W"], pixels: Float[Tensor, "n 3 H W"]
) -> Float[Tensor, " n"]:
    """Return each frame's PSNR in dB, of pixels in -1..1; equal frames have 100 dB and more."""
    errors = ((decoded.clamp(-1, 1) - pixels) ** 2).flatten(1).mean(1)
    return 10 * torch.log10(4 / errors.clamp_min(1e-10))  # pixels span 2


def draw_rows(rows: Sequence[Float[Tensor, "n 3 H W"]], path: Path) -> None:
    """Save rows of frames below each other as one JPEG."""
    strips = [torch.cat(list(row.clamp(-1, 1)), dim=2) for row in rows]
    picture = ((torch.cat(strips, dim=1) + 1) * 127.5).round().to(torch.uint8)
    bgr = picture.cpu().numpy()[::-1].transpose(1, 2, 0)
    cv2.imwrite(str(path), np.ascontiguousarray(bgr), [cv2.IMWRITE_JPEG_QUALITY, 95])


def dropped_clips(caches: Sequence[CachedFrames]) -> tuple[str, ...]:
    """Say of each clip that gave no frames why."""
    return tuple(
        f"clip {clip.clip_id} gave no frames: {clip.reason}: {clip.detail}"
        for cache in caches
        for clip in cache.dropped
    )
