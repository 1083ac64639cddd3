"""What the evaluate stage leaves for people and gates, beside its metric records."""

from pydantic import Field

from svd.types.base import Record


class ClipScores(Record):
    """Everything measured of one held-out clip and its sample.

    Paired tests between two models resample these rows; rows of the same clip and seed pair up.
    """

    clip_id: str
    video_id: str
    seed: int  # of the sample
    sample_sha256: str  # of the sampled frames, uint8, before any video codec
    scores: dict[str, float]  # by metric name, as in MetricRecord
    nearest_clip_id: str  # whose condition is nearest to frame 0 of the sample
    rank: int = Field(ge=1)  # of the own condition among all; 1 is a hit


class SetSizePoint(Record):
    """A video distance of random subsets of one size."""

    num: int = Field(ge=2)  # clips
    mean: float
    std: float


class EvaluationReport(Record):
    """reports/evaluate/report.json: what the page needs beside records.jsonl."""

    clips: tuple[ClipScores, ...]
    size_curve_name: str  # metric that size_curve is about
    size_curve: tuple[SetSizePoint, ...]
    # Row: sample; column: condition; mean squared pixel difference, 0..1.
    retrieval_distances: tuple[tuple[float, ...], ...]
    sampling: dict[str, object]  # the section the samples were made with
    num_frames: int = Field(gt=0)
    fps: float = Field(gt=0)  # of the sample videos
    height: int = Field(gt=0)
    width: int = Field(gt=0)
