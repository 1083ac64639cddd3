"""Frechet and kernel distance of sampled to real videos, with the controls to read them by."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from svd.config.evaluation import ControlsConfig, VideoDistanceConfig
from svd.evaluation.extractors.base import VideoExtractor, metric_name
from svd.evaluation.features import FeatureCache
from svd.evaluation.measures.base import RunFacts
from svd.evaluation.metrics.frechet import SizePoint, frechet_against_size, frechet_distance
from svd.evaluation.metrics.kid import kernel_distance
from svd.evaluation.stats import Interval, bootstrap_spread_interval
from svd.runtime.seed import torch_generator
from svd.types.artifact import MetricRecord

Video = UInt8[Tensor, "t c H W"]
Features = Float[Tensor, "n d"]


class VideoFeatures(NamedTuple):
    """Feature vectors of everything that is compared, clips in one order.

    Attributes:
        real: Of the held-out clips.
        sampled: Of the samples.
        damaged: Control name -> of the first clips after damage.
    """

    real: Features
    sampled: Features
    damaged: Mapping[str, Features]


class VideoDistances(NamedTuple):
    """The records, and the distance of random subsets by their size."""

    name: str
    records: tuple[MetricRecord, ...]
    size_curve: tuple[SizePoint, ...]


def extract_features(
    cache: FeatureCache,
    real: Sequence[Video],
    samples: Sequence[Video],
    *,
    controls: ControlsConfig,
    seed: int,
) -> VideoFeatures:
    """Run the network over real, sampled and damaged videos; what was seen before is read."""
    some = list(real[: controls.num_clips])
    damaged = {
        name: cache.features(videos, description=f"features of the {name} control")
        for name, videos in damage(some, noise_std=controls.noise_std, seed=seed).items()
    }
    return VideoFeatures(
        real=cache.features(real, description="features of real clips"),
        sampled=cache.features(samples, description="features of samples"),
        damaged=damaged,
    )


def damage(videos: Sequence[Video], *, noise_std: float, seed: int) -> dict[str, list[Video]]:
    """Return each control's videos: noise on every pixel, frame 0 frozen, frames shuffled."""
    noisy, shuffled = [], []
    for index, video in enumerate(videos):
        generator = torch_generator(seed, index)
        noise = torch.randn(video.shape, generator=generator) * noise_std
        noisy.append((video.float() + noise).round().clamp(0, 255).to(torch.uint8))
        shuffled.append(video[torch.randperm(len(video), generator=generator)])
    frozen = [video[:1].expand_as(video).contiguous() for video in videos]
    return {"noise": noisy, "frozen frame 0": frozen, "shuffled frames": shuffled}


def measure_video_distances(
    facts: RunFacts,
    features: VideoFeatures,
    extractor: VideoExtractor,
    *,
    config: VideoDistanceConfig,
    source_size: str,
) -> VideoDistances:
    """Return Frechet and kernel distances with their controls.

    Samples and real clips share their first frames, so the Frechet distance is a paired one. The
    kernel distance needs independent sets: samples of every other clip against the real clips
    between them.
    """
    card = extractor.card
    base = f"{extractor.variant}/from-{source_size}"
    frechet = metric_name("FVD", "FD", card)
    kernel = metric_name("KVD", "KD", card)
    measurer = _Measurer(facts, extractor, config, f"frechet/{base}/{config.divisor}", frechet)
    real, sampled = features.real, features.sampled
    records = [measurer.frechet(frechet, real, sampled, note="paired by first frame")]
    num_controls = min(len(vectors) for vectors in features.damaged.values())
    some, some_sampled = real[:num_controls], sampled[:num_controls]
    same_n = f"the scale of this row is N = {num_controls}"
    controls = {
        "samples, same clips": (some, some_sampled, same_n),
        "the clips themselves": (some, some, "0 by definition"),
        **{name: (some, vectors, same_n) for name, vectors in features.damaged.items()},
    }
    for label, (a, b, note) in controls.items():
        records.append(measurer.frechet(f"{frechet} (control: {label})", a, b, note=note))
    even, odd = real[0::2], real[1::2]
    records.append(
        facts.record(
            f"{frechet} (control: real against real)",
            frechet_distance(even, odd, divisor=config.divisor),
            num=len(odd),
            variant=f"frechet/{base}/{config.divisor}",
            higher_is_better=False,
            card=card,
            control_of=frechet,
            note="what so few clips cost by themselves: the truth against the truth, unpaired",
        )
    )
    records += _kernel_records(facts, extractor, f"kernel3/{base}", kernel, features)
    return VideoDistances(frechet, tuple(records), measurer.size_curve(real, sampled))


class _Measurer(NamedTuple):
    """Frechet distances of one extractor as records."""

    facts: RunFacts
    extractor: VideoExtractor
    config: VideoDistanceConfig
    variant: str
    main: str

    def frechet(self, name: str, real: Features, other: Features, *, note: str) -> MetricRecord:
        """Return the record of a paired distance, its interval over clips."""
        divisor = self.config.divisor

        def resampled(index: np.ndarray) -> float:
            rows = torch.from_numpy(index)
            return frechet_distance(real[rows], other[rows], divisor=divisor)

        value = frechet_distance(real, other, divisor=divisor)
        interval = bootstrap_spread_interval(
            resampled,
            value,
            len(real),
            self.facts.generator(name),
            num_resamples=self.config.num_resamples,
            level=self.facts.bootstrap.level,
        )
        return self.facts.record(
            name,
            value,
            num=len(real),
            variant=self.variant,
            higher_is_better=False,
            interval=Interval(max(0.0, interval.low), interval.high),
            paired=True,
            card=self.extractor.card,
            control_of=None if name == self.main else self.main,
            note=note,
        )

    def size_curve(self, real: Features, sampled: Features) -> tuple[SizePoint, ...]:
        """Return the distance of random subsets of a third of the clips up to all."""
        num = len(real)
        sizes = sorted({max(2, num * part // 6) for part in (2, 3, 4, 5, 6)})
        return frechet_against_size(
            real,
            sampled,
            tuple(sizes),
            self.facts.generator(f"{self.main} against N"),
            num_draws=self.config.size_draws,
            divisor=self.config.divisor,
        )


def _kernel_records(
    facts: RunFacts,
    extractor: VideoExtractor,
    variant: str,
    name: str,
    features: VideoFeatures,
) -> tuple[MetricRecord, ...]:
    """Return the kernel distance of independent halves, and of the truth to itself."""
    even, odd = features.real[0::2], features.real[1::2]
    pairs = {
        name: (features.sampled[0::2], "samples of every other clip against the clips between"),
        f"{name} (control: real against real)": (even, "0 in expectation"),
    }
    return tuple(
        facts.record(
            label,
            kernel_distance(vectors, odd),
            num=len(odd),
            variant=variant,
            higher_is_better=False,
            card=extractor.card,
            control_of=None if label == name else name,
            note=note,
        )
        for label, (vectors, note) in pairs.items()
    )
