"""The temporal decoder beside the image decoder: the same latents of held-out clips, decoded twice.

Flicker here is how much the error changes from frame to frame: a mistake that stays in place does
not flicker, and true motion is no flicker. The plain difference of neighbouring frames, which
holds motion too, is told beside it with that of the real clips.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import torch
from einops import rearrange
from jaxtyping import Float, UInt8
from torch import Tensor

from svd.config.finetunes import DecoderTrialConfig
from svd.evaluation.extractors.base import (
    ExtractorCard,
    PictureDistance,
    VideoExtractor,
    metric_name,
)
from svd.evaluation.features import FeatureCache
from svd.evaluation.measures.base import Measured, RunFacts
from svd.evaluation.metrics.frechet import Divisor, frechet_distance
from svd.evaluation.metrics.image import psnr_per_frame
from svd.evaluation.metrics.temporal import error_flicker, flicker
from svd.models.networks.autoencoder import Autoencoder
from svd.models.networks.temporal_decoder import TemporalDecoder
from svd.runtime.seed import torch_generator
from svd.sampling.samplers.decode import Decode, decode_in_chunks, to_frames
from svd.types.artifact import MetricRecord

IMAGE = "image decoder"
_NOISE = 51  # what a draw decides; the second part of its key, after the seed
Clip = UInt8[Tensor, "t c H W"]


class Networks(NamedTuple):
    """What measures: LPIPS if the recipe has it, and the network behind the video distance."""

    picture: PictureDistance | None
    video: VideoExtractor
    cache: FeatureCache
    divisor: Divisor


class Scores(NamedTuple):
    """One quantity, per clip, of both decoders."""

    name: str
    variant: str
    higher_is_better: bool
    temporal: Float[Tensor, " n"]
    image: Float[Tensor, " n"]
    card: ExtractorCard | None = None


@torch.no_grad()
def decode_both(
    clips: Sequence[Clip],
    autoencoder: Autoencoder,
    decoder: TemporalDecoder,
    *,
    trial: DecoderTrialConfig,
    noise_std: float,
    seed: int,
) -> tuple[list[Clip], list[Clip]]:
    """Return each clip after encoding and the temporal decoder, and after the image decoder.

    Args:
        clips: True frames.
        autoencoder: Encoder and image decoder.
        decoder: The temporal decoder.
        trial: How clips are cut into chunks.
        noise_std: Of noise on the latents, in their own units.
        seed: Of that noise.
    """
    device = autoencoder.quant_conv.weight.device

    def of_clip(latents: Tensor) -> Tensor:
        return decoder.decode(latents[0], num_frames=latents.shape[1])[None]

    def of_frames(latents: Tensor) -> Tensor:
        return autoencoder.decode(latents[0])[None]

    def decoded(latents: Tensor, decode: Decode) -> Clip:
        pixels = decode_in_chunks(
            decode, latents, chunk_size=trial.chunk_size, overlap=trial.overlap
        )
        return rearrange(to_frames(pixels), "1 t H W c -> t c H W").contiguous()

    temporal, image = [], []
    for number, clip in enumerate(clips):
        pixels = clip.to(device).float() / 127.5 - 1
        latents = torch.cat([autoencoder.encode(frame[None]).mean for frame in pixels])[None]
        generator = torch_generator(seed, _NOISE, number)
        noise = torch.randn(latents.shape, generator=generator).to(device)
        latents = latents + noise_std * noise
        temporal.append(decoded(latents, of_clip))
        image.append(decoded(latents, of_frames))
    return temporal, image


def measure_decoders(
    facts: RunFacts,
    clips: Sequence[Clip],
    temporal: Sequence[Clip],
    image: Sequence[Clip],
    networks: Networks,
    *,
    of: str,
) -> Measured:
    """Compare both decoders' clips with the true ones.

    Args:
        facts: Of the run.
        clips: True frames.
        temporal: What the temporal decoder made of their latents.
        image: What the image decoder made of the same.
        networks: What measures beside formulas.
        of: What latents were decoded, for the names.
    """
    shape = clips[0].shape
    where = f"uint8/{shape[0]}f/{shape[3]}x{shape[2]}"

    def both(
        name: str, variant: str, higher: bool, metric: Callable[[Clip, Clip], float]
    ) -> Scores:
        made, plain = (
            torch.tensor([metric(a, b) for a, b in zip(videos, clips, strict=True)])
            for videos in (temporal, image)
        )
        return Scores(f"{name} of {of}", f"{variant}/{where}", higher, made, plain)

    scores = [
        both("PSNR", "psnr/mean-of-frames", True, lambda a, b: float(psnr_per_frame(a, b).mean())),
        both("flicker of the error", "mean-abs-change-of-error", False, error_flicker),
        both("flicker", "mean-abs-frame-difference", False, lambda a, _: flicker(a)),
    ]
    if networks.picture is not None:
        distance = networks.picture
        name = metric_name("LPIPS", "perceptual distance", distance.card)
        likeness = both(
            name, distance.variant, False, lambda a, b: float(distance.distance(a, b).mean())
        )
        scores.append(likeness._replace(card=distance.card))
    records = [record for one in scores for record in _records(facts, one)]
    records += _real_flicker(facts, clips, of, variant=f"mean-abs-frame-difference/{where}")
    records += _video_distances(facts, {"": temporal, IMAGE: image}, clips, networks, of)
    return Measured(tuple(records), {one.name: one.temporal - one.image for one in scores})


def _records(facts: RunFacts, scores: Scores) -> list[MetricRecord]:
    """Return the temporal decoder's mean, the image decoder's, and the paired difference."""
    name, variant, higher, card = (
        scores.name,
        scores.variant,
        scores.higher_is_better,
        scores.card,
    )
    gain = scores.temporal - scores.image if higher else scores.image - scores.temporal
    return [
        facts.mean_record(
            name, scores.temporal, variant=variant, higher_is_better=higher, card=card
        ),
        facts.mean_record(
            f"{name} (control: {IMAGE})",
            scores.image,
            variant=variant,
            higher_is_better=higher,
            card=card,
            control_of=name,
        ),
        facts.mean_record(
            f"{name}, gain over the {IMAGE}",
            gain,
            variant=f"{variant}/against-{IMAGE.replace(' ', '-')}",
            higher_is_better=True,
            card=card,
            note="paired, above 0 is better: the same latents through both decoders",
        ),
    ]


def _real_flicker(
    facts: RunFacts, clips: Sequence[Clip], of: str, *, variant: str
) -> list[MetricRecord]:
    name = f"flicker of {of}"
    return [
        facts.mean_record(
            f"{name} (control: real clips)",
            torch.tensor([flicker(clip) for clip in clips]),
            variant=variant,
            higher_is_better=False,
            control_of=name,
        )
    ]


def _video_distances(
    facts: RunFacts,
    made: Mapping[str, Sequence[Clip]],
    clips: Sequence[Clip],
    networks: Networks,
    of: str,
) -> list[MetricRecord]:
    card = networks.video.card
    main = f"{metric_name('FVD', 'FD', card)} of {of}"
    real = networks.cache.features(clips, description="features of real clips")
    records = []
    for label, videos in made.items():
        name = f"{main} (control: {label})" if label else main
        features = networks.cache.features(videos, description=f"features: {label or 'temporal'}")
        records.append(
            facts.record(
                name,
                frechet_distance(real, features, divisor=networks.divisor),
                num=len(clips),
                variant=f"frechet/{networks.video.variant}/{networks.divisor}",
                higher_is_better=False,
                card=card,
                control_of=main if label else None,
                note="paired: reconstructions of the very clips",
            )
        )
    return records
