"""Interpolation: likeness of the frames between to the true ones, beside linear blending.

The model sees and makes pictures through the autoencoder, so the fair baseline blends what the
autoencoder makes of the known frames; blending the pixels themselves is shown too.
"""

from collections.abc import Sequence

import torch
from einops import rearrange
from jaxtyping import Float, UInt8
from torch import Tensor

from svd.evaluation.evaluate import reconstruct
from svd.evaluation.measures.base import Measured, RunFacts
from svd.evaluation.metrics.image import psnr_per_frame
from svd.sampling.interpolate import Interpolator

NAME = "PSNR of frames between"
GAIN = "PSNR of frames between, gain over linear blending"
Clip = UInt8[Tensor, "t c H W"]


def measure_between(
    facts: RunFacts, clips: Sequence[Clip], interpolator: Interpolator, seeds: Sequence[int]
) -> tuple[Measured, tuple[Clip, ...]]:
    """Fill each clip from its two ends; return the numbers, and the videos of the first seed.

    Args:
        facts: Of the run.
        clips: True frames, as many as the model makes, ends included.
        interpolator: The model.
        seeds: One sample per clip and seed; a clip's value is their mean.
    """
    made = [[_fill(clip, interpolator, seed) for clip in clips] for seed in seeds]
    decoded = [reconstruct(interpolator.components, clip) for clip in clips]
    values = torch.stack([_psnr(videos, clips) for videos in made]).mean(dim=0)
    blended = _psnr([linear_blend(part[0], part[-1], len(part)) for part in decoded], clips)
    of_pixels = _psnr([linear_blend(clip[0], clip[-1], len(clip)) for clip in clips], clips)
    height, width = clips[0].shape[-2:]
    variant = f"psnr/mean-of-frames/uint8/{len(clips[0]) - 2}new/{width}x{height}"
    controls = {
        "linear blending, through the autoencoder": blended,
        "linear blending of pixels": of_pixels,
        "autoencoder alone": _psnr(decoded, clips),
    }
    records = [facts.mean_record(NAME, values, variant=variant, higher_is_better=True)]
    records += [
        facts.mean_record(
            f"{NAME} (control: {label})",
            control,
            variant=variant,
            higher_is_better=True,
            control_of=NAME,
        )
        for label, control in controls.items()
    ]
    gain = facts.mean_record(
        GAIN,
        values - blended,
        variant=f"{variant}/minus-blend-of-decoded",
        higher_is_better=True,
        note="dB, paired; linear blending of what the autoencoder makes of the known frames",
    )
    return Measured((*records, gain), {NAME: values, GAIN: values - blended}), tuple(made[0])


def linear_blend(first: UInt8[Tensor, "c H W"], last: UInt8[Tensor, "c H W"], num: int) -> Clip:
    """Return num frames that go from one to the other in equal steps."""
    share = torch.linspace(0, 1, num)[:, None, None, None]
    return ((1 - share) * first.float() + share * last.float()).round().to(torch.uint8)


def _fill(clip: Clip, interpolator: Interpolator, seed: int) -> Clip:
    ends = rearrange(clip[[0, -1]], "t c H W -> t H W c").contiguous()
    video = interpolator(ends, seed=seed, on_step=lambda: None)
    return rearrange(video, "t H W c -> t c H W").contiguous()


def _psnr(videos: Sequence[Clip], truths: Sequence[Clip]) -> Float[Tensor, " n"]:
    """Return each clip's mean over the frames between its ends."""
    return torch.stack(
        [psnr_per_frame(a[1:-1], b[1:-1]).mean() for a, b in zip(videos, truths, strict=True)]
    )
