"""Reports of the curation stages: what came in, what came out, and why the rest did not."""

from typing import Literal

from pydantic import Field

from svd.types.base import Record


class ClipReport(Record):
    """data/clips/report.json."""

    num_videos: int = Field(ge=0)  # read from the index
    num_rejected: int = Field(ge=0)  # could not be decoded
    num_clips: int = Field(ge=0)
    num_copied: int = Field(ge=0)  # by stream copy
    num_reencoded: int = Field(ge=0)
    source_s: float = Field(ge=0)  # seconds of video decoded
    clip_s: float = Field(ge=0)  # seconds of video in clips
    num_frames: int = Field(ge=0)
    num_shot_frames: int = Field(ge=0)  # frames outside fades, dissolves and their guards
    num_clip_frames: int = Field(ge=0)
    num_shots: int = Field(ge=0)
    num_shots_native: int = Field(ge=0)  # shots by the native-rate detector alone
    num_cuts: dict[str, int]  # by kind
    num_hits_of_motion: int = Field(ge=0)  # of the slow detectors; neither cut nor mixture
    num_dropped: dict[str, int]  # spans by reason
    num_bad_packets: int = Field(ge=0)
    num_damaged_frames: int = Field(ge=0)


class AnnotateReport(Record):
    """data/annotations/report.json."""

    num_clips: int = Field(ge=0)
    num_groups: int = Field(ge=0)  # near-duplicate groups, singles included
    num_in_larger_groups: int = Field(ge=0)  # clips that have a near-duplicate
    num_failed: dict[str, int]  # clips that could not be annotated, by reason
    num_missing: dict[str, int]  # clips without a score, by score
    mean_scores: dict[str, float]


class TableRow(Record):
    """A column of the paper's table 1, for one set of clips."""

    name: str
    num_clips: int = Field(ge=0)
    mean_clip_s: float = Field(ge=0)
    total_h: float = Field(ge=0)
    mean_num_frames: float = Field(ge=0)
    mean_clips_per_video: float = Field(ge=0)
    has_motion_annotation: bool


class Histogram(Record):
    """How a score is distributed over all clips, with the bounds that apply."""

    score: str
    edges: tuple[float, ...]  # ascending, one more than counts
    counts: tuple[int, ...]
    counts_kept: tuple[int, ...]
    low: float | None  # clips below are dropped
    high: float | None  # clips above are dropped
    num_missing: int = Field(ge=0)


class Picture(Record):
    """A contact sheet below data/filtered/pictures."""

    path: str  # relative to data/filtered
    title: str
    kind: Literal["kept", "rejected"]
    reason: str | None  # the score or rule; None for kept clips
    clip_ids: tuple[str, ...]  # row by row


class FilterReport(Record):
    """data/filtered/report.json."""

    table: tuple[TableRow, ...]
    num_kept: int = Field(ge=0)
    num_train: int = Field(ge=0)
    num_heldout: int = Field(ge=0)
    num_high_quality: int = Field(default=0, ge=0)  # kept clips that pass the second bar
    num_short_of: dict[str, int] = Field(default_factory=dict)  # kept clips below it, by rule
    num_groups_train: int = Field(ge=0)
    num_groups_heldout: int = Field(ge=0)
    num_by_reason: dict[str, int]  # clips that a rule dropped; one clip may count in several
    num_only_by_reason: dict[str, int]  # clips that no other rule would have dropped
    histograms: tuple[Histogram, ...]
    pictures: tuple[Picture, ...]
    clips_per_video_native: float  # shots per video by the native-rate detector alone
    clips_per_video_cascade: float  # by the cascade (paper, Fig. 11: 2.65 before, 11.09 after)


class SweepAxis(Record):
    """One score of a sweep and the bounds that its shares stand for."""

    score: str
    drops: Literal["lowest", "highest"]  # which end of the scores a share drops
    bounds: tuple[float | None, ...]  # per share; None: nothing is dropped
    num_missing: int = Field(ge=0)  # clips without this score


class SweepRow(Record):
    """What survives one combination of shares."""

    shares: tuple[float, ...]  # dropped on each axis; 0: the axis does not count
    num_clips: int = Field(ge=0)
    hours: float = Field(ge=0)


class SweepReport(Record):
    """reports/sweep/sweep.json: clips and hours that survive each combination of thresholds."""

    num_clips: int = Field(ge=0)
    hours: float = Field(ge=0)
    shares: tuple[float, ...]  # ascending, the first is 0
    axes: tuple[SweepAxis, ...]
    rows: tuple[SweepRow, ...]  # every combination, the last axis fastest
    recipe: SweepRow | None  # under the recipe's own thresholds (no shares); None: none given
    seconds: float = Field(ge=0)  # that the queries took
