"""The videos and pictures an evaluation leaves for people to look at."""

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
from einops import rearrange
from jaxtyping import UInt8
from torch import Tensor

from svd.errors import StoreError
from svd.evaluation.heldout import HeldOutClip
from svd.media.encode import write_video


def keep_videos(
    clips: Sequence[HeldOutClip],
    samples: Sequence[UInt8[Tensor, "t c H W"]],
    folder: Path,
    *,
    crf: int,
) -> None:
    """Write `<clip_id>.mp4`, `<clip_id>.truth.mp4` and `<clip_id>.cond.png` for each clip.

    Metrics are taken before this: what is written here has gone through a video codec.
    """
    for item, sample in zip(clips, samples, strict=True):
        stem = item.clip.clip_id
        _write(folder / f"{stem}.mp4", sample, item.fps, crf=crf)
        _write(folder / f"{stem}.truth.mp4", item.frames, item.fps, crf=crf)
        bgr = rearrange(item.cond_frame.flip(0), "c H W -> H W c").numpy()
        path = folder / f"{stem}.cond.png"
        if not cv2.imwrite(str(path), np.ascontiguousarray(bgr)):
            raise StoreError(f"{path}: the picture could not be written")


def _write(path: Path, video: UInt8[Tensor, "t c H W"], fps: Fraction, *, crf: int) -> None:
    write_video(path, rearrange(video, "t c H W -> t H W c").numpy(), fps, crf=crf)
