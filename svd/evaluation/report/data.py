"""The data sections: sources, the paper's table 1 for our clips, histograms, contact sheets."""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

import cv2
import numpy as np
from markupsafe import Markup

from svd.curation.clip.bank import FrameBank, decode_jpeg
from svd.errors import IntegrityError, MissingInputError
from svd.evaluation.report import plots, words
from svd.evaluation.report.sources import Sources
from svd.types.annotation import Annotation, Verdict
from svd.types.curation import FilterReport
from svd.types.video import Clip, RawVideo, RejectedFile

NUM_KEPT, NUM_REJECTED = 30, 60  # pictures on the two sheets
THUMB_HEIGHT = 108  # pixels, shown at about this size
_JPEG_QUALITY = 80
_BEST_CAPTION = ("merged", "video-model", "image-model", "measured")

# The paper's own sets, for scale (Blattmann et al. 2023, Table 1).
PAPER_TABLE = (
    ("LVD, paper", "577 M", "11.58", "212.09 years", "325", "11.09", "yes"),
    ("LVD-F, paper", "152 M", "10.53", "50.64 years", "301", "4.76", "yes"),
)


@dataclass(frozen=True, slots=True)
class Thumb:
    """A clip on a contact sheet.

    Attributes:
        clip_id: Of the clip.
        picture: Data URI of its middle frame, or None.
        caption: Source and length.
        words: What its best caption says, or "".
        origin: Full name of the source.
        reasons: Why it was dropped; empty for a kept clip.
        rules: The scores or rules of those reasons, for the filter buttons.
        split: "train" or "heldout"; None if dropped.
        is_high_quality: Whether it passes the second bar.
    """

    clip_id: str
    picture: str | None
    caption: str
    words: str
    origin: str
    reasons: tuple[str, ...]
    rules: tuple[str, ...]
    split: str | None
    is_high_quality: bool


@dataclass(frozen=True, slots=True)
class ReasonCount:
    """How many clips a rule dropped, and how many it alone."""

    rule: str
    num: int
    num_alone: int


@dataclass(frozen=True, slots=True)
class Plot:
    """A plot and its title; `bounded` if a threshold is drawn in it."""

    title: str
    picture: Markup
    note: str
    bounded: bool


@dataclass(frozen=True, slots=True)
class Curation:
    """What curation kept and why it dropped the rest."""

    num_clips: int
    num_kept: int
    num_heldout: int
    num_high_quality: int
    short_of: tuple[tuple[str, int], ...]  # rules that keep kept clips from the high-quality tier
    table: tuple[tuple[str, ...], ...]
    histograms: tuple[Plot, ...]
    reasons: tuple[ReasonCount, ...]
    kept: tuple[Thumb, ...]
    rejected: tuple[Thumb, ...]
    num_rejected: int
    clips_per_video: tuple[str, str]  # by native-rate cuts alone; by the cascade


@dataclass(frozen=True, slots=True)
class Ingest:
    """Raw videos and refused files."""

    num_videos: int
    hours: str
    total_size: str
    licences: tuple[tuple[str, int], ...]
    rejected: tuple[RejectedFile, ...]


def read_ingest(sources: Sources) -> Ingest | None:
    """Return what ingest took and refused, or None if it has not run."""
    raw = sources.workspace.raw
    if not (raw / "index.jsonl").is_file():
        return None
    videos = sources.records(raw / "index.jsonl", RawVideo)
    licences: dict[str, int] = defaultdict(int)
    for video in videos:
        licences[video.licence] += 1
    return Ingest(
        num_videos=len(videos),
        hours=words.duration(sum(video.probe.duration_s for video in videos)),
        total_size=words.size(sum(video.size_bytes for video in videos)),
        licences=tuple(sorted(licences.items(), key=lambda item: -item[1])),
        rejected=sources.records(raw / "rejected.jsonl", RejectedFile),
    )


def read_curation(sources: Sources) -> Curation | None:
    """Return what filter decided, or None if it has not run."""
    workspace = sources.workspace
    report = sources.record(workspace.filtered / "report.json", FilterReport)
    if report is None:
        return None
    verdicts = sources.records(workspace.filtered / "verdicts.jsonl", Verdict)
    thumbs = _ThumbMaker(sources)
    kept = [verdict for verdict in verdicts if verdict.kept]
    rejected = [verdict for verdict in verdicts if not verdict.kept]
    return Curation(
        num_clips=len(verdicts),
        num_kept=report.num_kept,
        num_heldout=report.num_heldout,
        num_high_quality=report.num_high_quality,
        short_of=tuple(sorted(report.num_short_of.items(), key=lambda item: -item[1])),
        table=(*(_table_row(report, index) for index in range(len(report.table))), *PAPER_TABLE),
        histograms=tuple(
            Plot(
                title=one.score,
                picture=plots.histogram(one),
                note=words.plural(one.num_missing, "clip") + " without this score"
                if one.num_missing
                else "",
                bounded=one.low is not None or one.high is not None,
            )
            for one in report.histograms
        ),
        reasons=tuple(
            ReasonCount(rule, num, report.num_only_by_reason.get(rule, 0))
            for rule, num in sorted(report.num_by_reason.items(), key=lambda item: -item[1])
        ),
        kept=tuple(thumbs.make(one) for one in _spread(kept, NUM_KEPT)),
        rejected=tuple(thumbs.make(one) for one in _by_turns(rejected, NUM_REJECTED)),
        num_rejected=len(rejected),
        clips_per_video=(
            f"{report.clips_per_video_native:.2f}",
            f"{report.clips_per_video_cascade:.2f}",
        ),
    )


class _ThumbMaker:
    """Makes thumbnails from the frame banks; opens each bank once."""

    def __init__(self, sources: Sources) -> None:
        workspace = sources.workspace
        self._sources = sources
        self._clips = {
            clip.clip_id: clip for clip in sources.records(workspace.clips / "index.jsonl", Clip)
        }
        self._annotations = {
            item.clip_id: item
            for item in sources.records(workspace.annotations / "annotations.jsonl", Annotation)
        }
        self._origins = {
            video.video_id: video.origin
            for video in sources.records(workspace.raw / "index.jsonl", RawVideo)
        }
        self._banks: dict[str, FrameBank | None] = {}

    def make(self, verdict: Verdict) -> Thumb:
        clip = self._clips.get(verdict.clip_id)
        origin = self._origins.get(clip.span.video_id, "unknown source") if clip else "unknown"
        name = origin.rsplit("/", 1)[-1]
        return Thumb(
            clip_id=verdict.clip_id,
            picture=self._picture(clip) if clip else None,
            caption=f"{name}, {clip.duration_s:.1f} s" if clip else name,
            words=self._words(verdict.clip_id),
            origin=origin,
            reasons=tuple(reason.sentence for reason in verdict.reasons),
            rules=tuple(sorted({reason.score for reason in verdict.reasons})),
            split=verdict.split,
            is_high_quality=verdict.tier == "high-quality",
        )

    def _words(self, clip_id: str) -> str:
        annotation = self._annotations.get(clip_id)
        captions = {one.source: one.text for one in annotation.captions} if annotation else {}
        return next((captions[source] for source in _BEST_CAPTION if source in captions), "")

    def _picture(self, clip: Clip) -> str | None:
        bank = self._bank(clip.span.video_id)
        if bank is None:
            return None
        frames = bank.frames_within(clip.span.start_frame, clip.span.stop_frame)
        if not frames:
            return None
        try:
            jpeg = shrink_jpeg(bank.jpeg(frames[len(frames) // 2]))
        except IntegrityError as err:
            self._sources.problems.append(str(err))
            return None
        return self._sources.embed(jpeg, "image/jpeg")

    def _bank(self, video_id: str) -> FrameBank | None:
        if video_id not in self._banks:
            try:
                bank = FrameBank(self._sources.workspace.clips / "bank" / video_id)
            except MissingInputError:
                bank = None
            self._banks[video_id] = bank
        return self._banks[video_id]


def shrink_jpeg(jpeg: bytes, *, height: int = THUMB_HEIGHT) -> bytes:
    """Return a JPEG no higher than `height` pixels times two, for sharp screens.

    Raises:
        IntegrityError: The bytes are no picture.
    """
    picture = decode_jpeg(jpeg, origin="frame bank")
    scale = min(1.0, 1.5 * height / picture.shape[0])
    width = max(1, round(picture.shape[1] * scale))
    small = cv2.resize(
        picture, (width, max(1, round(picture.shape[0] * scale))), interpolation=cv2.INTER_AREA
    )
    done, content = cv2.imencode(".jpg", small, [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY])
    if not done:
        raise IntegrityError("a thumbnail could not be written as JPEG")
    return bytes(np.asarray(content).tobytes())


def _spread(verdicts: list[Verdict], num: int) -> list[Verdict]:
    """Return `num` of them at equal distances, in their order."""
    if len(verdicts) <= num:
        return verdicts
    return [verdicts[index * len(verdicts) // num] for index in range(num)]


def _by_turns(verdicts: Iterable[Verdict], num: int) -> list[Verdict]:
    """Return `num` of them, taking from each first reason in turn, so that none is missing."""
    piles: dict[str, list[Verdict]] = defaultdict(list)
    for verdict in verdicts:
        piles[verdict.reasons[0].score if verdict.reasons else ""].append(verdict)
    taken: list[Verdict] = []
    while len(taken) < num and any(piles.values()):
        for pile in piles.values():
            if pile and len(taken) < num:
                taken.append(pile.pop(0))
    return taken


def _table_row(report: FilterReport, index: int) -> tuple[str, ...]:
    row = report.table[index]
    return (
        row.name,
        words.count(row.num_clips),
        f"{row.mean_clip_s:.2f}",
        f"{row.total_h:.3f} h",
        f"{row.mean_num_frames:.0f}",
        f"{row.mean_clips_per_video:.2f}",
        "yes" if row.has_motion_annotation else "no",
    )
