"""An automatic judge: fixed weights over plain measurements of a video; no stand-in for people.

Its weights are declared, not fitted: each measurement is standardised over the study's videos and
counts once. It knows detail that lasts, steadiness (motion without jitter), movement, and how well
the first frame keeps the picture that was asked for; it knows nothing of what a prompt says.
"""

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import numpy as np
import torch
from einops import rearrange
from jaxtyping import Float, UInt8
from torch import Tensor

from svd.atomic import write_text
from svd.evaluation.metrics.temporal import flicker
from svd.evaluation.reading import read_window
from svd.evaluation.votes.folder import JUDGEMENT
from svd.media.picture import fit_picture, read_picture
from svd.runtime.progress import track
from svd.types.vote import JudgedVideo, Judgement, Study

WEIGHTS: Final = {"detail": 1.0, "steadiness": 1.0, "movement": 1.0}
_SCHEME: Final = "1"  # raise it when a measurement changes
_STILL_LEVELS: Final = 1.0  # grey levels a frame; more movement than this earns nothing
_SMALL: Final = 1e-3  # grey levels; keeps logarithms finite


def judge_study(study: Study, folder: Path) -> Judgement:
    """Score every video of a study that a pair shows, write judge.json, return it.

    Raises:
        MediaError: A video cannot be read.
    """
    pictures = {item.item_id: item.picture_sha256 for item in study.items}
    shown = {
        sha256: pictures[pair.item_id]
        for pair in study.pairs
        if not pair.is_check
        for sha256 in (pair.first_sha256, pair.second_sha256)
    }
    measured, following = [], []
    for sha256, picture in track(
        shown.items(), total=len(shown), description="judging videos", unit="videos"
    ):
        frames = read_window(folder / "videos" / f"{sha256}.mp4")
        measured.append(measure_video(frames))
        kept = None if picture is None else _keeps(frames, folder / "pictures" / f"{picture}.png")
        following.append(kept)
    judgement = Judgement(
        judge=f"auto:{_identity()}",
        weights=dict(WEIGHTS),
        videos=tuple(
            JudgedVideo(sha256=sha256, quality=quality, following=kept)
            for sha256, quality, kept in zip(
                shown, weigh(measured, WEIGHTS), following, strict=True
            )
        ),
    )
    write_text(folder / JUDGEMENT, judgement.canonical_json() + "\n")
    return judgement


def measure_video(frames: UInt8[Tensor, "t c H W"]) -> dict[str, float]:
    """Return the measurements by name; higher is better.

    Detail is the root of the covariance of neighbouring frames' gradients: noise is sharp in each
    frame but does not last to the next, so it earns nothing. Steadiness is the log of the first
    differences over the second: a pattern that moves at constant speed has small second
    differences, noise of independent frames has large ones.
    """
    pictures = frames.double()
    change = flicker(frames)
    jerk = change  # of two frames nothing is known
    if len(frames) > 2:
        jerk = float((pictures[2:] - 2 * pictures[1:-1] + pictures[:-2]).abs().mean())
    return {
        "detail": math.log(_lasting_detail(pictures) + _SMALL),
        "steadiness": math.log(change + _SMALL) - math.log(jerk + _SMALL),
        "movement": math.log(min(change, _STILL_LEVELS) + _SMALL),
    }


def _lasting_detail(pictures: Float[Tensor, "t c H W"]) -> float:
    """Return the gradient that neighbouring frames share, in grey levels per pixel."""
    grey = pictures.mean(dim=1)
    across, down = grey.diff(dim=2), grey.diff(dim=1)
    shared = (across[1:] * across[:-1]).mean() + (down[1:] * down[:-1]).mean()
    return math.sqrt(max(0.0, float(shared)) / 2)


def weigh(measured: Sequence[Mapping[str, float]], weights: Mapping[str, float]) -> list[float]:
    """Return the weighted sum of measurements, each standardised over all videos."""
    total = np.zeros(len(measured))
    for name, weight in weights.items():
        values = np.array([one[name] for one in measured])
        spread = values.std()
        if spread > 0:
            total += weight * (values - values.mean()) / spread
    return [float(value) for value in total]


def _keeps(frames: UInt8[Tensor, "t c H W"], picture: Path) -> float:
    """Return minus the mean squared difference of the first frame and what it was to start from."""
    height, width = frames.shape[2:]
    wanted = torch.from_numpy(fit_picture(read_picture(picture), height=height, width=width))
    difference = frames[0].double() - rearrange(wanted, "H W c -> c H W").double()
    return -float(difference.square().mean())


def _identity() -> str:
    text = json.dumps([_SCHEME, WEIGHTS, _STILL_LEVELS, _SMALL], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]
