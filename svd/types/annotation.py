"""What is measured of a clip, and what is decided about it."""

from typing import Literal

from pydantic import Field

from svd.types.artifact import Value
from svd.types.base import Record

SplitName = Literal["train", "heldout"]
Tier = Literal["base", "high-quality"]  # the latter is stage III's data
CaptionSource = Literal["measured", "image-model", "video-model", "merged"]


class Scorer(Record):
    """Who measured a score: enough to know when two scores may be compared."""

    name: str
    version: str
    settings: dict[str, Value]


class Caption(Record):
    """A sentence about a clip and where it comes from."""

    text: str
    source: CaptionSource
    scorer: Scorer


class Annotation(Record):
    """Everything measured of one clip.

    A score is named "<scorer>.<quantity>", e.g. "motion.dis_px"; `scorers` has the scorer's
    version and settings under the part before the dot.
    """

    clip_id: str
    video_id: str
    num_frames: int = Field(gt=0)
    duration_s: float = Field(gt=0)
    scores: dict[str, float]
    missing: dict[str, str]  # score -> why it could not be measured
    captions: tuple[Caption, ...]
    hashes: tuple[str, ...]  # perceptual hashes (hex) of the clip's frames, in time order
    group_id: str  # clips of one group are near-duplicates; the smallest clip_id of the group
    scorers: dict[str, Scorer]
    bank_frames: tuple[int, ...]  # frame numbers of the source that lie in the bank, ascending


class Reason(Record):
    """Why a clip is dropped."""

    score: str  # the score's name, or the rule's, e.g. "near-duplicate"
    rule: Literal["below", "above", "not-measured", "near-duplicate"]
    value: float | None
    bound: float | None
    sentence: str  # for a person


class Verdict(Record):
    """What filter decided about one clip; every reason that applied is listed."""

    clip_id: str
    group_id: str
    kept: bool
    reasons: tuple[Reason, ...]
    split: SplitName | None  # None for dropped clips
    tier: Tier | None = None  # None for dropped clips
    short_of: tuple[Reason, ...] = ()  # what keeps a kept clip from the high-quality tier
