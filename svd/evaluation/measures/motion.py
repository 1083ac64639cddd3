"""How samples move and how close they stay to the truth, per clip."""

import math
from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from svd.evaluation.measures.base import Measured, RunFacts
from svd.evaluation.metrics.image import psnr_per_clip, psnr_per_frame
from svd.evaluation.metrics.temporal import (
    energy_ratio,
    flicker,
    motion_histogram_distance,
    sharpness,
)
from svd.types.artifact import MetricRecord

Video = UInt8[Tensor, "t c H W"]


def measure_motion(facts: RunFacts, samples: Sequence[Video], real: Sequence[Video]) -> Measured:
    """Measure temporal statistics of samples against those of the real clips."""
    shape = real[0].shape
    where = f"uint8/{shape[0]}f/{shape[3]}x{shape[2]}"
    flickers, truths = _each(flicker, samples), _each(flicker, real)
    ratios = torch.tensor(
        [energy_ratio(a, b) for a, b in zip(samples, real, strict=True)], dtype=torch.float64
    )
    sharper = _each(sharpness, samples) / _each(sharpness, real).clamp(min=1e-6)
    records = [
        facts.mean_record(
            "flicker",
            flickers,
            variant=f"mean-abs-frame-difference/{where}",
            higher_is_better=False,
            note="grey levels of 255; compare with the real clips' row",
        ),
        facts.mean_record(
            "flicker (control: real clips)",
            truths,
            variant=f"mean-abs-frame-difference/{where}",
            higher_is_better=False,
            control_of="flicker",
        ),
        _geometric(facts, "motion energy ratio", ratios, f"frame-difference-energy/{where}"),
        facts.record(
            "motion distribution distance",
            motion_histogram_distance(flickers, truths),
            num=len(samples),
            variant=f"wasserstein1-of-flicker/{where}",
            higher_is_better=False,
            note="grey levels; 0 if samples as a set move as much as real clips",
        ),
        _geometric(facts, "sharpness ratio", sharper, f"mean-abs-luma-gradient/{where}"),
    ]
    per_clip = {"flicker": flickers, "motion energy ratio": ratios, "sharpness ratio": sharper}
    return Measured(tuple(records), per_clip)


def measure_fidelity(facts: RunFacts, samples: Sequence[Video], real: Sequence[Video]) -> Measured:
    """Measure PSNR of whole videos against the one true continuation, in both of its averages.

    A good model need not score high: the truth is one of many futures. The control repeats the
    condition, which no moving sample beats easily.
    """
    shape = real[0].shape
    where = f"uint8/{shape[0]}f/{shape[3]}x{shape[2]}"
    still = [video[:1].expand_as(video) for video in real]
    name, clip_name = "PSNR of the video", "PSNR of the video, per clip"

    def per_frame(videos: Sequence[Video]) -> Float[Tensor, " n"]:
        return torch.stack([psnr_per_frame(a, b).mean() for a, b in zip(videos, real, strict=True)])

    values = per_frame(samples)
    clip_values = torch.stack([psnr_per_clip(a, b) for a, b in zip(samples, real, strict=True)])
    frame_variant, clip_variant = f"psnr/mean-of-frames/{where}", f"psnr/of-clip-mse/{where}"
    records = (
        facts.mean_record(name, values, variant=frame_variant, higher_is_better=True),
        facts.mean_record(
            f"{name} (control: frozen condition)",
            per_frame(still),
            variant=frame_variant,
            higher_is_better=True,
            control_of=name,
        ),
        facts.mean_record(clip_name, clip_values, variant=clip_variant, higher_is_better=True),
    )
    return Measured(records, {name: values, clip_name: clip_values})


def _geometric(
    facts: RunFacts, name: str, ratios: Float[Tensor, " n"], variant: str
) -> MetricRecord:
    """Return the geometric mean of ratios: half and double average to one."""
    logs = facts.mean_record(
        name, ratios.log(), variant=f"{variant}/geomean", higher_is_better=True
    )
    ends = {"low": logs.low, "high": logs.high}
    update = {
        "value": math.exp(logs.value),
        "note": "sample over real; 1 is the truth's",
        "per_clip": None,
    }
    update |= {key: None if end is None else math.exp(end) for key, end in ends.items()}
    return logs.model_copy(update=update)


def _each(metric: Callable[[Tensor], float], videos: Sequence[Video]) -> Float[Tensor, " n"]:
    return torch.tensor([metric(video) for video in videos], dtype=torch.float64)
