"""Does a sample start at its condition: likeness of frame 0, and retrieval."""

from typing import NamedTuple

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from svd.config.evaluation import RetrievalConfig
from svd.evaluation.extractors.base import PictureDistance, metric_name
from svd.evaluation.measures.base import Measured, RunFacts
from svd.evaluation.metrics.image import psnr_per_frame, ssim_per_frame
from svd.evaluation.metrics.retrieval import Retrieval, pixel_distances, retrieve
from svd.evaluation.stats import wilson_interval
from svd.types.artifact import MetricRecord

RETRIEVAL = "first-frame retrieval"
PSNR, SSIM = "PSNR of frame 0", "SSIM of frame 0"

Pictures = UInt8[Tensor, "n c H W"]


class FoundConditions(NamedTuple):
    """Retrieval's answer, with the matrix behind it."""

    record: MetricRecord
    retrieval: Retrieval
    distances: Float[Tensor, "n n"]


def measure_likeness(
    facts: RunFacts,
    first_frames: Pictures,
    cond_frames: Pictures,
    *,
    reconstructed: Pictures,
    picture_distance: PictureDistance | None,
) -> Measured:
    """Compare frame 0 of each sample with its condition.

    Two controls frame the value: the condition after the autoencoder alone (as good as the
    model can be), and the condition of the next clip (as bad as ignoring it).

    Args:
        facts: Of the run.
        first_frames: Frame 0 of each sample.
        cond_frames: What it was conditioned on.
        reconstructed: The conditions after encoding and decoding.
        picture_distance: LPIPS or its stand-in; None measures none.
    """
    size = f"{cond_frames.shape[-1]}x{cond_frames.shape[-2]}"
    families: list[tuple[str, str, bool, PictureDistance | None]] = [
        (PSNR, f"psnr/frame0/uint8/{size}", True, None),
        (SSIM, f"ssim/frame0/gauss11-1.5-valid/{size}", True, None),
    ]
    if picture_distance is not None:
        name = metric_name("LPIPS", "perceptual distance", picture_distance.card)
        variant = f"{picture_distance.variant}/frame0/{size}"
        families.append((f"{name} of frame 0", variant, False, picture_distance))
    records, per_clip = [], {}
    others = cond_frames.roll(-1, dims=0)
    for name, variant, higher, network in families:
        card = None if network is None else network.card
        values = _compare(name, first_frames, cond_frames, network)
        per_clip[name] = values
        records.append(
            facts.mean_record(name, values, variant=variant, higher_is_better=higher, card=card)
        )
        controls = (
            ("autoencoder alone", _compare(name, reconstructed, cond_frames, network)),
            ("another clip's condition", _compare(name, first_frames, others, network)),
        )
        for label, control_values in controls:
            records.append(
                facts.mean_record(
                    f"{name} (control: {label})",
                    control_values,
                    variant=variant,
                    higher_is_better=higher,
                    card=card,
                    control_of=name,
                )
            )
    return Measured(tuple(records), per_clip)


def find_conditions(
    facts: RunFacts, first_frames: Pictures, cond_frames: Pictures, *, config: RetrievalConfig
) -> FoundConditions:
    """Ask, for each sample, which of all conditions its frame 0 is nearest to."""
    distances = pixel_distances(first_frames, cond_frames, short_side=config.short_side)
    found = retrieve(distances)
    num, hits = len(found.hits), int(found.hits.sum())
    height, width = cond_frames.shape[-2:]
    record = facts.record(
        RETRIEVAL,
        hits / num,
        num=num,
        variant=f"retrieval/frame0/mse-area{min(config.short_side, height, width)}",
        higher_is_better=True,
        interval=wilson_interval(hits, num, level=facts.bootstrap.level),
        paired=True,
        note=f"{hits} of {num} nearest to their own condition by pixel MSE; chance {1 / num:.3f}",
    )
    return FoundConditions(record, found, distances)


def _compare(
    name: str, pictures_a: Pictures, pictures_b: Pictures, network: PictureDistance | None
) -> Float[Tensor, " n"]:
    if network is not None:
        return network.distance(pictures_a, pictures_b)
    metric = psnr_per_frame if name == PSNR else ssim_per_frame
    return metric(pictures_a, pictures_b)


def stack_first(videos: tuple[UInt8[Tensor, "t c H W"], ...]) -> Pictures:
    """Return frame 0 of each video as one batch."""
    return torch.stack([video[0] for video in videos])
