"""The samples section: condition, sample and ground truth of each held-out clip, side by side."""

from collections.abc import Sequence
from dataclasses import dataclass

from svd.evaluation.measures.first_frame import PSNR
from svd.evaluation.report import words
from svd.evaluation.report.sources import Sources
from svd.evaluation.report.svg import number, tick_label
from svd.types.annotation import Verdict
from svd.types.evaluation import ClipScores, EvaluationReport
from svd.types.video import Clip, RawVideo


@dataclass(frozen=True, slots=True)
class Triple:
    """One held-out clip.

    Attributes:
        clip_id: Of the clip.
        origin: Its source's name.
        licence: Its source's licence.
        condition: Data URI of the conditioning frame, or None if it found no room.
        reconstructed: Of that frame after the autoencoder alone, or None likewise.
        sample: Of the sampled video.
        truth: Of the real video.
        rank: Of its condition among all, by distance to frame 0 of the sample.
        psnr: Of frame 0, for sorting.
        facts: (name, value) of every score.
        seed: Of the sample.
    """

    clip_id: str
    origin: str
    licence: str
    condition: str | None
    reconstructed: str | None
    sample: str | None
    truth: str | None
    rank: int
    psnr: float
    facts: tuple[tuple[str, str], ...]
    seed: int


@dataclass(frozen=True, slots=True)
class Samples:
    """All held-out clips, in the order of their ids.

    Attributes:
        triples: One a clip.
        caption: What was sampled and how.
        shared: A sentence on clips whose source also gave training clips, or "".
        width: Pixels.
        height: Pixels.
        fps: Frames per second.
    """

    triples: tuple[Triple, ...]
    caption: str
    shared: str
    width: int
    height: int
    fps: float


def read_samples(sources: Sources, report: EvaluationReport | None) -> Samples | None:
    """Return the samples of the last evaluation, or None if it has not run."""
    if report is None:
        return None
    clips = sources.records(sources.workspace.clips / "index.jsonl", Clip)
    videos = {
        video.video_id: video
        for video in sources.records(sources.workspace.raw / "index.jsonl", RawVideo)
    }
    video_of = {clip.clip_id: videos.get(clip.span.video_id) for clip in clips}
    triples = tuple(
        _triple(sources, scores, video_of.get(scores.clip_id)) for scores in report.clips
    )
    sampling = report.sampling
    schedule = sampling.get("schedule")
    steps = schedule.get("num_steps") if isinstance(schedule, dict) else None
    caption = (
        f"{words.plural(len(triples), 'held-out clip')}, {report.num_frames} frames of "
        f"{report.width}x{report.height} at {tick_label(report.fps)} fps"
        + (f", {steps} solver steps" if steps else "")
        + f", motion bucket {sampling.get('motion_bucket_id')}"
    )
    shared = _shared_sources(sources, report, clips)
    return Samples(triples, caption, shared, report.width, report.height, report.fps)


def _shared_sources(sources: Sources, report: EvaluationReport, clips: Sequence[Clip]) -> str:
    """Say how many of the clips come from videos that were also trained on.

    Such a clip is new to the model, but its characters and places may not be.
    """
    verdicts = sources.records(sources.workspace.filtered / "verdicts.jsonl", Verdict)
    trained_on = {verdict.clip_id for verdict in verdicts if verdict.split == "train"}
    videos = {clip.span.video_id for clip in clips if clip.clip_id in trained_on}
    num = sum(scores.video_id in videos for scores in report.clips)
    if not num:
        return ""
    return (
        f"{num} of the {len(report.clips)} come from videos that also gave training clips: other "
        "shots, the same world."
    )


def _triple(sources: Sources, scores: ClipScores, video: RawVideo | None) -> Triple:
    folder = sources.workspace.evaluation / "samples"
    return Triple(
        clip_id=scores.clip_id,
        origin=video.origin.rsplit("/", 1)[-1] if video else "unknown source",
        licence=video.licence if video else "unknown",
        condition=sources.embed_file(folder / f"{scores.clip_id}.cond.png"),
        reconstructed=sources.embed_file(folder / f"{scores.clip_id}.recon.png"),
        sample=sources.embed_file(folder / f"{scores.clip_id}.mp4"),
        truth=sources.embed_file(folder / f"{scores.clip_id}.truth.mp4"),
        rank=scores.rank,
        psnr=scores.scores.get(PSNR, 0.0),
        facts=tuple((name, number(value)) for name, value in scores.scores.items()),
        seed=scores.seed,
    )
