"""Near-duplicates among clips of a real film and of its copies, each cut by itself."""

from itertools import combinations, islice
from pathlib import Path

import pytest
from filming import raw_folder

from svd.config.curation import AnnotateConfig, ClipConfig
from svd.config.engine import EngineConfig
from svd.curation.annotate.stage import annotate_clips
from svd.curation.clip.stage import make_clips
from svd.curation.ingest.films import copy_between_keyframes, fetch_film
from svd.media.decode import decode_frames
from svd.media.encode import write_video
from svd.types.annotation import Annotation
from svd.types.base import read_records
from svd.types.video import Clip, Cut

pytestmark = [pytest.mark.network, pytest.mark.slow, pytest.mark.timeout(900)]
FPS = 24
# How a film gets about: worse, smaller, in another format; and from another starting point.
COPIES = {  # name -> size, quality
    "reencoded.mp4": ((1280, 720), 36),
    "scaled.mp4": ((640, 360), 26),
    "web.webm": ((480, 270), 40),
}
OFFSETS = {"film.mp4": 0, "reencoded.mp4": 0, "scaled.mp4": 31, "web.webm": 7}  # frames left out


def copy_film(source: Path, target: Path) -> Path:
    (width, height), crf = COPIES[target.name]
    pictures = (
        timed.frame.reformat(width, height, "rgb24").to_ndarray()
        for timed in islice(decode_frames(source), OFFSETS[target.name], None)
    )
    write_video(target, pictures, FPS, crf=crf, preset="ultrafast")
    return target


class Span:
    """Where a clip lies in the film."""

    def __init__(self, clip: Clip, name: str, cuts: list[int]) -> None:
        self.clip_id, self.name = clip.clip_id, name
        self.start = clip.span.start_frame + OFFSETS[name]
        self.stop = clip.span.stop_frame + OFFSETS[name]
        self.shot = sum(cut <= (self.start + self.stop) // 2 for cut in cuts)

    def overlaps(self, other: "Span") -> bool:
        common = min(self.stop, other.stop) - max(self.start, other.start)
        return common >= 0.6 * min(self.stop - self.start, other.stop - other.start)


@pytest.fixture(scope="module")
def spans_and_groups(
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[list[Span], dict[str, str]]:
    root = tmp_path_factory.mktemp("film")
    film = root / "film.mp4"
    copy_between_keyframes(
        fetch_film("big-buck-bunny", root / "cache"), film, start_s=60, stop_s=150
    )
    copies = [copy_film(film, root / name) for name in COPIES]
    videos = raw_folder(root, [film, *copies])
    engine = EngineConfig(num_workers=2, timeout_s=300.0)
    make_clips(
        ClipConfig(min_clip_s=1.0, max_clip_s=6.0, reencode_preset="ultrafast"),
        engine=engine,
        raw=root / "data" / "raw",
        out=root / "clips",
        state=root / "state-clip",
    )
    annotate_clips(
        AnnotateConfig(text=None),
        ClipConfig(min_clip_s=1.0, max_clip_s=6.0).bank,
        engine=engine,
        root=root,
        clips=root / "clips",
        out=root / "annotations",
        state=root / "state-annotate",
    )
    names = {video.video_id: video.origin for video in videos.values()}
    original = next(video_id for video_id, name in names.items() if name == "film.mp4")
    cuts = [
        (cut.start_frame + cut.stop_frame) // 2
        for cut in read_records(root / "clips" / "cuts.jsonl", Cut)
        if cut.video_id == original
    ]
    clips = read_records(root / "clips" / "index.jsonl", Clip)
    rows = read_records(root / "annotations" / "annotations.jsonl", Annotation)
    spans = [Span(clip, names[clip.span.video_id], cuts) for clip in clips]
    return spans, {row.clip_id: row.group_id for row in rows}


def test_copies_are_found_and_different_shots_stay_apart(
    spans_and_groups: tuple[list[Span], dict[str, str]],
) -> None:
    spans, groups = spans_and_groups
    num_true = num_found = num_merged = 0
    for one, other in combinations(spans, 2):
        is_grouped = groups[one.clip_id] == groups[other.clip_id]
        if one.name != other.name and one.overlaps(other):
            num_true += 1
            num_found += is_grouped
        elif one.shot != other.shot:
            num_merged += is_grouped
    assert num_true > 60
    assert num_found >= 0.95 * num_true
    assert num_found >= 0.95 * (num_found + num_merged)
