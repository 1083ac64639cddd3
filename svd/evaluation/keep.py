"""The videos and pictures an evaluation leaves for people to look at."""

from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
from einops import rearrange
from jaxtyping import UInt8
from torch import Tensor

from svd.errors import StoreError
from svd.evaluation.measure import SampledSet
from svd.media.encode import write_video


def keep_videos(sampled: SampledSet, folder: Path, *, crf: int) -> None:
    """Write four files for each clip.

    `<clip_id>.mp4` is the sample, `.truth.mp4` the real clip, `.cond.png` the condition and
    `.recon.png` the condition after the autoencoder alone. Metrics are taken before this: videos
    here have gone through a codec.
    """
    rows = zip(sampled.held_out.clips, sampled.samples, sampled.reconstructed, strict=True)
    for item, sample, reconstructed in rows:
        stem = item.clip.clip_id
        _write(folder / f"{stem}.mp4", sample, item.fps, crf=crf)
        _write(folder / f"{stem}.truth.mp4", item.frames, item.fps, crf=crf)
        _write_picture(folder / f"{stem}.cond.png", item.cond_frame)
        _write_picture(folder / f"{stem}.recon.png", reconstructed)


def _write_picture(path: Path, picture: UInt8[Tensor, "c H W"]) -> None:
    bgr = rearrange(picture.flip(0), "c H W -> H W c").numpy()
    if not cv2.imwrite(str(path), np.ascontiguousarray(bgr)):
        raise StoreError(f"{path}: the picture could not be written")


def _write(path: Path, video: UInt8[Tensor, "t c H W"], fps: Fraction, *, crf: int) -> None:
    write_video(path, rearrange(video, "t c H W -> t H W c").numpy(), fps, crf=crf)
