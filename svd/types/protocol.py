"""What a protocol run leaves on disk: the plan it made first, and the report it ends in."""

from pydantic import Field

from svd.types.artifact import MetricRecord, Value
from svd.types.base import Record
from svd.types.evaluation import SetSizePoint


class PlannedClip(Record):
    """One clip of a protocol: what is read, what is asked for, with which seed."""

    clip_id: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    path: str = ""  # of the real video, picture or folder below the data folder; "" if none
    start_frame: int = Field(default=0, ge=0)  # of the window in the real video
    num_frames: int = Field(gt=0)  # in the window, and wanted of the generator
    seed: int = Field(ge=0)  # of the sample
    prompt: str = ""
    elevation_deg: float | None = None  # of the camera around an object, where it is known
    group: str = ""  # class, category or motion bin, for tables by group
    facts: dict[str, str] = Field(default_factory=dict)  # what only its own protocol reads


class Plan(Record):
    """All clips of a run in their order; written before anything is measured."""

    protocol: str
    seed: int = Field(ge=0)
    split: str | None  # the published split that the data were found to be, or None
    dataset_sha256: str  # of names and sizes of everything the data folder offers
    num_available: int = Field(gt=0)  # items the data folder offers
    small: bool  # fewer clips than the protocol asks for, on purpose
    clips: tuple[PlannedClip, ...] = Field(min_length=1)


class GroupValue(Record):
    """A metric over the clips of one group."""

    metric: str
    group: str
    value: float
    num: int = Field(gt=0)


class ExtremeClips(Record):
    """The clips at both ends of a per-clip metric."""

    metric: str
    higher_is_better: bool
    best: tuple[tuple[str, float], ...]  # clip id, value
    worst: tuple[tuple[str, float], ...]


class RunIdentity(Record):
    """Everything that decides the numbers of a run; two runs of one identity are one run."""

    protocol: str
    plan_sha256: str
    source_kind: str  # "image-to-video", "text-to-video", "reconstruction", "files", "truth"
    checkpoint_sha256: str  # of the weights, or of all files where videos were brought
    settings: dict[str, object]  # of the sampler, with its precision; empty if nothing is sampled
    networks: tuple[str, ...]  # variants of the extractors
    followed: bool  # whether all settings are those the protocol asks for


class ProtocolReport(Record):
    """report.json of a protocol run."""

    protocol: str
    title: str
    question: str
    identity: RunIdentity
    seed: int
    split: str | None
    dataset_sha256: str
    small: bool
    step: int | None  # of the checkpoint, if it says
    num_planned: int
    num_measured: int
    unusable: dict[str, str]  # clip id -> why it was not measured
    records: tuple[MetricRecord, ...]
    size_curves: dict[str, tuple[SetSizePoint, ...]]  # set distance -> its value by N
    groups: tuple[GroupValue, ...]
    dimensions: dict[str, float]  # normalised VBench dimensions, 0..1, by name
    extremes: tuple[ExtremeClips, ...]
    videos: dict[str, str]  # clip id -> name of its files below videos/, without suffix
    facts: dict[str, Value]  # what else a reader should know
