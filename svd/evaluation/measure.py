"""All measures of one set of samples: records for gates, and what the page needs beside them."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import UInt8
from torch import Tensor

from svd.config.evaluation import EvaluateConfig, VideoDistanceConfig
from svd.evaluation.extractors.base import PictureDistance, VideoExtractor
from svd.evaluation.extractors.i3d import load_i3d
from svd.evaluation.extractors.lpips import load_lpips
from svd.evaluation.extractors.prepare import VideoInput
from svd.evaluation.extractors.tiny import TinyVideoExtractor
from svd.evaluation.features import FeatureCache
from svd.evaluation.heldout import HeldOutSet
from svd.evaluation.measures.base import RunFacts
from svd.evaluation.measures.first_frame import (
    FoundConditions,
    find_conditions,
    measure_likeness,
    stack_first,
)
from svd.evaluation.measures.motion import measure_fidelity, measure_motion
from svd.evaluation.measures.video_distance import (
    VideoDistances,
    extract_features,
    measure_video_distances,
)
from svd.evaluation.samples import frames_sha256
from svd.types.artifact import MetricRecord
from svd.types.evaluation import ClipScores, EvaluationReport, SetSizePoint


@dataclass(frozen=True, slots=True)
class SampledSet:
    """The held-out clips with what a model made of them, in one order.

    Attributes:
        held_out: The real clips.
        samples: A video for each.
        seeds: Of each sample.
        reconstructed: Each condition after the autoencoder alone.
    """

    held_out: HeldOutSet
    samples: tuple[UInt8[Tensor, "t c H W"], ...]
    seeds: tuple[int, ...]
    reconstructed: UInt8[Tensor, "n c H W"]

    @property
    def conditions(self) -> UInt8[Tensor, "n c H W"]:
        """The frames that samples were conditioned on."""
        return torch.stack([item.cond_frame for item in self.held_out.clips])


def measure(
    config: EvaluateConfig, facts: RunFacts, sampled: SampledSet, *, cache: Path
) -> tuple[tuple[MetricRecord, ...], EvaluationReport]:
    """Measure everything that the section asks for.

    Args:
        config: The stage's section.
        facts: What is the same for every number.
        sampled: What is measured.
        cache: Holds weights and feature vectors.

    Raises:
        MissingInputError: Weights are neither cached nor to be had.
    """
    real = [item.frames for item in sampled.held_out.clips]
    conditions, firsts = sampled.conditions, stack_first(sampled.samples)
    found = find_conditions(facts, firsts, conditions, config=config.retrieval)
    distance: PictureDistance | None = None
    if config.lpips != "none":
        distance = load_lpips(cache, config.lpips)
    likeness = measure_likeness(
        facts, firsts, conditions, reconstructed=sampled.reconstructed, picture_distance=distance
    )
    fidelity = measure_fidelity(facts, sampled.samples, real)
    motion = measure_motion(facts, sampled.samples, real)
    distances = _video_distances(config, facts, sampled, cache)
    families = (distances.records, likeness.records, fidelity.records, motion.records)
    records = (found.record, *(record for family in families for record in family))
    per_clip = {**likeness.per_clip, **fidelity.per_clip, **motion.per_clip}
    scores = [
        {name: float(values[row]) for name, values in per_clip.items()} for row in range(len(real))
    ]
    return records, _report(config, sampled, found, distances, scores)


def build_video_extractor(
    config: VideoDistanceConfig, cache: Path, *, source_frames: int
) -> VideoExtractor:
    """Return the network behind the video distance.

    Raises:
        MissingInputError: Its weights are neither cached nor to be had.
    """
    if config.extractor == "tiny":
        return TinyVideoExtractor(num_frames=config.num_frames, source_frames=source_frames)
    video_input = VideoInput(
        num_frames=config.num_frames,
        source_frames=min(source_frames, config.num_frames),
        resize=config.resize,
        antialias=config.antialias,
    )
    return load_i3d(cache, video_input)


def _video_distances(
    config: EvaluateConfig, facts: RunFacts, sampled: SampledSet, cache: Path
) -> VideoDistances:
    extractor = build_video_extractor(
        config.video_distance, cache, source_frames=config.sampling.num_frames
    )
    features = extract_features(
        FeatureCache(cache / "features", extractor),
        [item.frames for item in sampled.held_out.clips],
        sampled.samples,
        controls=config.controls,
        seed=facts.seed,
    )
    return measure_video_distances(
        facts,
        features,
        extractor,
        config=config.video_distance,
        source_size=f"{config.sampling.width}x{config.sampling.height}",
    )


def _report(
    config: EvaluateConfig,
    sampled: SampledSet,
    found: FoundConditions,
    distances: VideoDistances,
    scores: Sequence[dict[str, float]],
) -> EvaluationReport:
    clips = sampled.held_out.clips
    return EvaluationReport(
        clips=tuple(
            ClipScores(
                clip_id=item.clip.clip_id,
                video_id=item.clip.span.video_id,
                seed=sampled.seeds[row],
                sample_sha256=frames_sha256(sampled.samples[row]),
                scores=scores[row],
                nearest_clip_id=clips[int(found.distances[row].argmin())].clip.clip_id,
                rank=int(found.retrieval.ranks[row]),
            )
            for row, item in enumerate(clips)
        ),
        size_curve_name=distances.name,
        size_curve=tuple(SetSizePoint(**point._asdict()) for point in distances.size_curve),
        retrieval_distances=tuple(tuple(row) for row in found.distances.tolist()),
        sampling=config.sampling.model_dump(mode="json"),
        num_frames=config.sampling.num_frames,
        fps=float(clips[0].fps),
        height=config.sampling.height,
        width=config.sampling.width,
    )
