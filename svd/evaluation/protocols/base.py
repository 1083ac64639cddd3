"""What a protocol is: a card that states it, a plan of clips, a measurement of one, a reduction."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, Protocol, runtime_checkable

from torch import Tensor

from svd.evaluation.datasets.base import Dataset
from svd.evaluation.measures.base import RunFacts
from svd.evaluation.protocols.run import ProtocolRun
from svd.types.artifact import MetricRecord, Value
from svd.types.evaluation import SetSizePoint
from svd.types.protocol import GroupValue, PlannedClip

SourceKind = Literal["image-to-video", "text-to-video", "reconstruction", "files", "truth"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ProtocolCard:
    """What a person must know of a protocol before running it.

    Attributes:
        name: What people type.
        title: What is measured on what.
        question: What the number answers, as one sentence.
        dataset: What is read.
        sources: Kinds of source it can measure.
        published_num: Clips behind the published number; None if its paper does not say.
        assumed: What no paper states and we chose; while there are any, no number of this
            protocol may stand beside a published one.
        sampling: Keys of the sampling section that the protocol fixes.
        precision: Of the autoencoder, where it is what is measured.
    """

    name: str
    title: str
    question: str
    dataset: Dataset
    sources: tuple[SourceKind, ...]
    published_num: int | None = None
    assumed: tuple[str, ...] = ()
    sampling: Mapping[str, object] = field(default_factory=dict)
    precision: Literal["fp32", "bf16"] = "fp32"


class PlanOptions(NamedTuple):
    """What a user chose of a plan.

    Attributes:
        seed: Of draws and samples.
        small: At most so many clips; None is all that the protocol asks for.
        num_frames: Of the sampler, for protocols that compare what it makes; None if nothing is
            sampled.
    """

    seed: int
    small: int | None = None
    num_frames: int | None = None


class Planned(NamedTuple):
    """Clips in order, and what the data folder offered."""

    clips: tuple[PlannedClip, ...]
    split: str | None
    dataset_sha256: str
    num_available: int


class Measurement(NamedTuple):
    """What was measured of one clip: scores to average, and vectors for distances of sets."""

    scores: Mapping[str, float]
    features: Mapping[str, Tensor]


@dataclass(frozen=True, slots=True)
class Shard:
    """One process's share of a plan: every clip whose position is `index` modulo `count`."""

    index: int
    count: int


class MeasuredClip(NamedTuple):
    """A clip with its measurement and its position in the plan."""

    position: int
    clip: PlannedClip
    scores: Mapping[str, float]
    features: Mapping[str, Tensor]


class Reduced(NamedTuple):
    """Numbers over all clips, and what a page shows beside them.

    Attributes:
        records: Metrics, controls after the metric they calibrate.
        higher_is_better: Direction of each per-clip score, for best and worst clips.
        size_curves: Set distance -> its value by N.
        groups: Metrics by group.
        dimensions: Normalised VBench dimensions.
        facts: What else a reader should know.
    """

    records: tuple[MetricRecord, ...]
    higher_is_better: Mapping[str, bool]
    size_curves: Mapping[str, tuple[SetSizePoint, ...]] = {}
    groups: tuple[GroupValue, ...] = ()
    dimensions: Mapping[str, float] = {}
    facts: Mapping[str, Value] = {}


@runtime_checkable
class EvaluationProtocol(Protocol):
    """A published way of measuring a model."""

    @property
    def card(self) -> ProtocolCard:
        """What it is."""

    def plan(self, run: ProtocolRun, options: PlanOptions) -> Planned:
        """Choose clips, windows and seeds; raises MissingInputError if the data are not there."""

    def variants(self, run: ProtocolRun, plan: Planned) -> tuple[str, ...]:
        """Return the variants of all networks, which are part of a run's identity."""

    def measure(self, clip: PlannedClip, run: ProtocolRun) -> Measurement:
        """Make and measure one clip; raises MediaError if it cannot be used."""

    def summarise(self, clips: Sequence[MeasuredClip], run: ProtocolRun, shard: Shard) -> None:
        """Keep what a shard's process can sum up alone."""

    def reduce(self, clips: Sequence[MeasuredClip], run: ProtocolRun, facts: RunFacts) -> Reduced:
        """Return the numbers over all measured clips."""
