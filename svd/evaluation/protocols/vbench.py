"""VBench and VBench-I2V: the dimensions that need no network, or one a user brings.

A dimension is printed under VBench's name only if it is VBench's: its network's weights must be
the official ones. Everything else carries its network's or its method's name, and no total is
made of it. `svd evaluate vbench-table` totals what the official program wrote.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

import torch
from jaxtyping import UInt8
from torch import Tensor

from svd.evaluation.datasets.vbench import VBENCH_PICTURES, VBENCH_PROMPTS
from svd.evaluation.extractors.base import ExtractorCard, metric_name
from svd.evaluation.heldout import sample_seed
from svd.evaluation.measures.base import RunFacts
from svd.evaluation.metrics.optical_flow import is_dynamic
from svd.evaluation.metrics.temporal import sharpness
from svd.evaluation.metrics.vbench import (
    SUITES,
    Suite,
    consistency,
    image_fidelity,
    interpolation_smoothness,
    normalise,
    temporal_flickering,
)
from svd.evaluation.protocols.base import (
    MeasuredClip,
    Measurement,
    Planned,
    PlanOptions,
    ProtocolCard,
    Reduced,
    Shard,
)
from svd.evaluation.protocols.framing import AsSampled
from svd.evaluation.protocols.networks import Networks
from svd.evaluation.protocols.run import ProtocolRun
from svd.evaluation.reading import read_pictures
from svd.types.artifact import MetricRecord
from svd.types.protocol import PlannedClip

Frames = UInt8[Tensor, "t c H W"]
_SHARP_GRADIENT = 12.0  # grey levels a pixel that count as fully sharp, in the stand-in for imaging
_CHUNK = 8  # frames that a picture network sees at once


class Scored(NamedTuple):
    """A dimension as we can compute it.

    Attributes:
        dimension: VBench's name.
        printed: What may be printed.
        value: 0..1.
    """

    dimension: str
    printed: str
    value: float


@dataclass(frozen=True, slots=True, kw_only=True)
class VBenchProtocol:
    """A suite: prompts or pictures, five videos each."""

    card: ProtocolCard
    suite: str
    num_frames: int

    def plan(self, run: ProtocolRun, options: PlanOptions) -> Planned:
        """Take all videos the suite asks for, or the first few."""
        listing = self.card.dataset.listed(run.data)
        clips = tuple(
            PlannedClip(
                clip_id=item.clip_id,
                path=item.path,
                num_frames=options.num_frames or self.num_frames,
                seed=sample_seed(item.clip_id, options.seed),
                prompt=item.prompt,
                facts=dict(item.facts),
            )
            for item in listing.items[: options.small]
        )
        return Planned(clips, listing.split, listing.sha256, len(listing.items))

    def variants(self, run: ProtocolRun, plan: Planned) -> tuple[str, ...]:  # noqa: ARG002
        """Return the variant of the picture network."""
        return (run.networks.embedder().variant,)

    def measure(self, clip: PlannedClip, run: ProtocolRun) -> Measurement:
        """Make a video and score it in the dimensions its prompt is for."""
        picture = None
        if clip.path:
            picture = AsSampled(576, 1024)(read_pictures([run.data / clip.path]), run.source.size)
        frames = run.source.video(clip, picture)
        run.keep(clip, frames, None)
        wanted = set(clip.facts["dimensions"].split(","))
        scored = [one for one in _score(frames, picture, run.networks) if one.dimension in wanted]
        return Measurement({one.printed: one.value for one in scored}, {})

    def summarise(self, clips: Sequence[MeasuredClip], run: ProtocolRun, shard: Shard) -> None:
        """Nothing: means need no moments."""

    def reduce(self, clips: Sequence[MeasuredClip], run: ProtocolRun, facts: RunFacts) -> Reduced:
        """Return the mean of each dimension over the videos made for it."""
        records: list[MetricRecord] = []
        dimensions: dict[str, float] = {}
        suite = SUITES[self.suite]
        for dimension, (printed, card) in _names(run.networks).items():
            values = [one.scores[printed] for one in clips if printed in one.scores]
            if not values:
                continue
            record = facts.mean_record(
                printed,
                torch.tensor(values, dtype=torch.float64),
                variant=f"{self.suite}/{dimension}/{_method(dimension, run.networks)}",
                higher_is_better=True,
                card=card,
                note=_NOTES.get(dimension, ""),
            )
            records.append(record)
            dimensions[printed] = _placed(suite, dimension, record.value)
        directions = dict.fromkeys((record.name for record in records), True)
        missing = [name for name in (*suite.quality, *suite.following) if name not in _SCORED]
        return Reduced(
            tuple(records),
            directions,
            dimensions=dimensions,
            facts={"dimensions that need official networks": ", ".join(missing)},
        )


_EMBEDDED = ("subject_consistency", "background_consistency", "i2v_subject", "i2v_background")
_METHODS: Final[Mapping[str, str]] = {
    "temporal_flickering": "pixel-mae",
    "motion_smoothness": "linear-interpolation",
    "dynamic_degree": "dis-flow",
    "imaging_quality": "luma-gradient",
}
_SCORED = (*_EMBEDDED, *_METHODS)
_NOTES: Final[Mapping[str, str]] = {
    "temporal_flickering": "VBench leaves moving clips out by RAFT first; none are left out here",
    "motion_smoothness": "a stand-in: VBench guesses the dropped frames with AMT",
    "dynamic_degree": "a stand-in: VBench's optical flow is RAFT's",
    "imaging_quality": "a stand-in: VBench asks MUSIQ",
}


def _method(dimension: str, networks: Networks) -> str:
    return _METHODS.get(dimension) or networks.embedder().variant


def _names(networks: Networks) -> dict[str, tuple[str, ExtractorCard | None]]:
    """Return, for each dimension, the name that may be printed and the card behind it."""
    card = networks.embedder().card
    embedded: dict[str, tuple[str, ExtractorCard | None]] = {
        name: (metric_name(name, _spoken(name), card), card) for name in _EMBEDDED
    }
    plain = {
        name: (f"{name.replace('_', ' ')}[{method}]", None) for name, method in _METHODS.items()
    }
    return embedded | plain


def _spoken(dimension: str) -> str:
    return dimension.replace("_", " ")


def _score(frames: Frames, picture: Frames | None, networks: Networks) -> list[Scored]:
    embedder = networks.embedder()
    features = torch.cat([embedder.embed(part) for part in torch.split(frames, _CHUNK)])
    steady = consistency(features)
    values = {
        "subject_consistency": steady,
        "background_consistency": steady,
        "temporal_flickering": temporal_flickering(frames),
        "motion_smoothness": interpolation_smoothness(frames),
        "dynamic_degree": float(is_dynamic(frames)),
        "imaging_quality": min(1.0, sharpness(frames) / _SHARP_GRADIENT),
    }
    if picture is not None:
        kept = image_fidelity(features, embedder.embed(picture)[0])
        values |= {"i2v_subject": kept, "i2v_background": kept}
    names = _names(networks)
    return [Scored(name, names[name][0], value) for name, value in values.items()]


def _placed(suite: Suite, dimension: str, value: float) -> float:
    """Return a raw score on the suite's scale of that dimension, for the radar."""
    known = {**suite.quality, **suite.following}
    placed = normalise(known[dimension], value) if dimension in known else value
    return min(1.0, max(0.0, placed))


_ASSUMED = (
    "dimensions are printed under VBench's names only with its own networks, which are not here",
)
PROMPTS: Final = VBenchProtocol(
    card=ProtocolCard(
        name="vbench",
        title="VBench, 946 prompts, five videos each",
        question="Are videos of a standard list of prompts steady, smooth and sharp?",
        dataset=VBENCH_PROMPTS,
        sources=("text-to-video", "files"),
        assumed=_ASSUMED,
    ),
    suite="vbench",
    num_frames=14,
)
PICTURES: Final = VBenchProtocol(
    card=ProtocolCard(
        name="vbench-i2v",
        title="VBench-I2V, 355 pictures, five videos each",
        question="Does a video keep its picture, and is it steady, smooth and sharp?",
        dataset=VBENCH_PICTURES,
        sources=("image-to-video", "files"),
        assumed=_ASSUMED,
    ),
    suite="vbench-i2v",
    num_frames=25,
)
