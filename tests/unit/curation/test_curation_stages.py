"""The stages clip, annotate and filter, one after the other, on small films."""

import hashlib
import json
import multiprocessing as mp
import os
import signal
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
from filming import dissolve, film, raw_folder, shot, texture

from svd.config.curation import (
    AnnotateConfig,
    BankConfig,
    ClipConfig,
    CutConfig,
    FilterConfig,
    SplitConfig,
    Threshold,
)
from svd.config.engine import EngineConfig
from svd.curation.annotate.stage import annotate_clips
from svd.curation.clip.bank import FrameBank
from svd.curation.clip.stage import make_clips
from svd.curation.filter.stage import filter_clips
from svd.errors import MissingInputError
from svd.types.annotation import Annotation, Verdict
from svd.types.base import read_records
from svd.types.curation import ClipReport, FilterReport
from svd.types.video import Clip, RawVideo, RejectedFile

BANK = BankConfig(short_side_px=128, still_short_side_px=180)


def engine(workers: int = 2) -> EngineConfig:
    return EngineConfig(num_workers=workers, timeout_s=120.0, max_attempts=1)


def clip_config(**changes: object) -> ClipConfig:
    values = {
        "segment_s": 2.0,
        "cuts": CutConfig(),
        "bank": BANK,
        "min_clip_s": 0.8,
        "max_clip_s": 3.0,
    }
    return ClipConfig(**(values | changes))


def annotate(root: Path, out: str, state: str, workers: int = 2) -> None:
    annotate_clips(
        AnnotateConfig(clips_per_shard=2, text=None),
        BANK,
        engine=engine(workers),
        root=root,
        clips=root / "data" / "clips",
        out=root / "data" / out,
        state=root / ".runs" / state,
    )


def sums(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of raw videos, cut into clips."""
    root = tmp_path_factory.mktemp("corpus")
    sources = root / "sources"
    sources.mkdir()
    shots = [shot(seed, 48, dx=0.5 * seed) for seed in range(1, 5)]
    text = shot(9, 48)
    for n, line in enumerate(("BREAKING NEWS TODAY", "MARKET REPORT", "LIVE EPISODE")):
        for frame in text:
            cv2.putText(frame, line, (10, 45 + 45 * n), 4, 0.9, (255, 255, 255), 2, cv2.LINE_AA)
    videos = raw_folder(
        root,
        [
            film(sources / "cuts.mp4", *shots, gop=24),
            film(sources / "dissolve.mp4", dissolve(shot(5, 60), shot(6, 60, dx=1), 16), gop=24),
            film(sources / "still.mp4", shot(7, 48), text, gop=24),
            film(sources / "copy.mp4", *shots, crf=33, gop=60),
            film(sources / "one-keyframe.mp4", shot(8, 40), shot(10, 40), gop=500, scenecut=False),
            film(sources / "hidden-noise.mp4", shot(11, 48, dx=3)),
        ],
    )
    noise = root / "data" / "raw" / videos["hidden-noise.mp4"].uri
    noise.write_bytes(np.random.default_rng(0).bytes(4000))
    make_clips(
        clip_config(),
        engine=engine(),
        raw=root / "data" / "raw",
        out=root / "data" / "clips",
        state=root / ".runs" / "clip",
    )
    return root


@pytest.fixture(scope="module")
def annotated(corpus: Path) -> Path:
    annotate(corpus, "annotations", "annotate")
    return corpus


def videos_of(root: Path) -> dict[str, RawVideo]:
    index = root / "data" / "raw" / "index.jsonl"
    return {video.origin: video for video in read_records(index, RawVideo)}


def clips_of(root: Path, origin: str) -> list[Clip]:
    video_id = videos_of(root)[origin].video_id
    index = root / "data" / "clips" / "index.jsonl"
    return [clip for clip in read_records(index, Clip) if clip.span.video_id == video_id]


def test_shots_become_clips_of_their_frames(corpus: Path) -> None:
    spans = [(c.span.start_frame, c.span.stop_frame) for c in clips_of(corpus, "cuts.mp4")]
    assert spans == [(0, 48), (48, 96), (96, 144), (144, 192)]
    for clip in clips_of(corpus, "cuts.mp4"):
        path = corpus / "data" / "clips" / clip.uri
        assert clip.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
        assert (clip.num_frames, clip.fps, clip.duration_s) == (48, 24, 2.0)


def test_a_dissolve_lies_in_no_clip(corpus: Path) -> None:
    for clip in clips_of(corpus, "dissolve.mp4"):
        assert clip.span.stop_frame <= 46 or clip.span.start_frame >= 58


def test_one_keyframe_means_re_encoding(corpus: Path) -> None:
    methods = [(c.span.start_frame, c.span.method) for c in clips_of(corpus, "one-keyframe.mp4")]
    assert methods == [(0, "copy"), (40, "reencode")]


def test_a_video_that_cannot_be_read_is_a_record_and_the_others_are_cut(corpus: Path) -> None:
    out = corpus / "data" / "clips"
    rejected = list(read_records(out / "rejected.jsonl", RejectedFile))
    assert [(r.origin, r.reason) for r in rejected] == [("hidden-noise.mp4", "unreadable")]
    report = ClipReport.parse((out / "report.json").read_text(), origin="report.json")
    assert (report.num_videos, report.num_rejected) == (6, 1)
    assert report.num_clips == len(list((out / "clips").iterdir())) >= 10


def test_clips_do_not_depend_on_the_number_of_workers(corpus: Path, tmp_path: Path) -> None:
    make_clips(
        clip_config(),
        engine=engine(workers=1),
        raw=corpus / "data" / "raw",
        out=tmp_path / "clips",
        state=tmp_path / "state",
    )
    assert sums(tmp_path / "clips") == sums(corpus / "data" / "clips")


def test_the_bank_answers_by_frame_number(corpus: Path) -> None:
    video_id = videos_of(corpus)["cuts.mp4"].video_id
    bank = FrameBank(corpus / "data" / "clips" / "bank" / video_id)
    assert bank.frames.tolist() == list(range(0, 192, 12))
    assert bank.frames_within(48, 96) == [48, 60, 72, 84]
    assert bank.stills.tolist() == list(range(0, 192, 24))
    picture = bank.picture(0)
    wanted = cv2.resize(texture(1, 320 + 2 * 32, 180)[:, 32:-32], picture.shape[1::-1])
    assert np.abs(picture[..., ::-1].astype(int) - wanted).mean() < 12
    assert bank.flow_within(48, 96).frames.tolist() == [[48, 60], [60, 72], [72, 84]]
    with pytest.raises(MissingInputError, match="svd clip"):
        FrameBank(corpus / "nowhere")


def rows_of(root: Path, folder: str = "annotations") -> list[Annotation]:
    return list(read_records(root / "data" / folder / "annotations.jsonl", Annotation))


def test_motion_ranks_the_shots_by_their_speed(annotated: Path) -> None:
    scores = {row.clip_id: row.scores for row in rows_of(annotated)}
    shots = [scores[clip.clip_id] for clip in clips_of(annotated, "cuts.mp4")]
    assert [s["motion.dis_px"] for s in shots] == sorted(s["motion.dis_px"] for s in shots)
    still = [scores[clip.clip_id]["motion.dis_px"] for clip in clips_of(annotated, "still.mp4")]
    assert max(still) < 0.3 < shots[0]["motion.dis_px"]


def test_the_caption_says_what_was_measured(annotated: Path) -> None:
    captions = {row.clip_id: row.captions[0] for row in rows_of(annotated)}
    moving = captions[clips_of(annotated, "cuts.mp4")[1].clip_id]
    assert "camera pans left" in moving.text  # the content moves right
    assert moving.source == "measured"
    assert "static camera" in captions[clips_of(annotated, "still.mp4")[0].clip_id].text


def test_copies_share_a_group_with_their_originals(annotated: Path) -> None:
    groups = {row.clip_id: row.group_id for row in rows_of(annotated)}
    originals = [groups[clip.clip_id] for clip in clips_of(annotated, "cuts.mp4")]
    copies = [groups[clip.clip_id] for clip in clips_of(annotated, "copy.mp4")]
    assert len(set(originals)) == 4
    assert set(copies) <= set(originals)


def test_every_score_names_its_scorer(annotated: Path) -> None:
    for row in rows_of(annotated):
        assert {name.split(".")[0] for name in row.scores} <= set(row.scorers)
        assert row.bank_frames


def test_annotations_do_not_depend_on_the_number_of_workers(annotated: Path) -> None:
    annotate(annotated, "again", "again", workers=1)
    assert sums(annotated / "data" / "again") == sums(annotated / "data" / "annotations")


@pytest.mark.faults
def test_a_killed_annotate_resumes_and_ends_in_the_same_bytes(annotated: Path) -> None:
    shards = annotated / ".runs" / "killed" / "shards"
    process = mp.get_context("spawn").Process(
        target=annotate, args=(annotated, "resumed", "killed", 1)
    )
    process.start()
    deadline = time.monotonic() + 100
    while not list(shards.rglob("*.jsonl")) and time.monotonic() < deadline:
        time.sleep(0.005)
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    done = {path: path.stat().st_mtime_ns for path in shards.rglob("*.jsonl")}
    assert done
    assert not (annotated / "data" / "resumed").exists()
    annotate(annotated, "resumed", "killed")
    assert {path: path.stat().st_mtime_ns for path in done} == done
    assert sums(annotated / "data" / "resumed") == sums(annotated / "data" / "annotations")


def filter_config(**changes: object) -> FilterConfig:
    values = {
        "thresholds": {"motion.dis_px": Threshold(min=0.3)},
        "split": SplitConfig(heldout_share=0.2, min_heldout_clips=2),
    }
    return FilterConfig(**(values | changes))


def run_filter(root: Path, config: FilterConfig, out: Path) -> FilterReport:
    data = root / "data"
    return filter_clips(config, annotations=data / "annotations", clips=data / "clips", out=out)


def test_the_filter_judges_every_clip_and_draws_why(annotated: Path, tmp_path: Path) -> None:
    report = run_filter(annotated, filter_config(), tmp_path / "filtered")
    verdicts = list(read_records(tmp_path / "filtered" / "verdicts.jsonl", Verdict))
    rows = rows_of(annotated)
    assert [v.clip_id for v in verdicts] == [r.clip_id for r in rows]
    assert report.num_kept + report.num_by_reason["motion.dis_px"] == len(rows)
    assert report.num_heldout >= 2
    assert report.table[0].num_clips == len(rows)
    groups = {v.group_id: v.split for v in verdicts if v.kept}
    assert all(groups[v.group_id] == v.split for v in verdicts if v.kept)
    motion = next(h for h in report.histograms if h.score == "motion.dis_px")
    assert sum(motion.counts) == len(rows)
    assert motion.low == 0.3
    titles = [picture.title for picture in report.pictures]
    assert any(title.startswith("rejected: motion.dis_px") for title in titles)
    for picture in report.pictures:
        sheet = cv2.imread(str(tmp_path / "filtered" / picture.path))
        assert sheet is not None
        assert sheet.std() > 20


def test_the_filter_is_reproducible(annotated: Path, tmp_path: Path) -> None:
    for name in ("one", "two"):
        run_filter(annotated, filter_config(), tmp_path / name)
    assert sums(tmp_path / "one") == sums(tmp_path / "two")


def test_a_missing_input_says_which_stage_makes_it(tmp_path: Path) -> None:
    with pytest.raises(MissingInputError, match="svd ingest"):
        make_clips(
            clip_config(), engine=engine(), raw=tmp_path, out=tmp_path / "o", state=tmp_path / "s"
        )
    with pytest.raises(MissingInputError, match="svd clip"):
        annotate(tmp_path, "o", "s")
    with pytest.raises(MissingInputError, match="svd annotate"):
        run_filter(tmp_path, filter_config(), tmp_path / "o")


def test_reports_are_canonical_json(annotated: Path) -> None:
    text = (annotated / "data" / "annotations" / "report.json").read_text()
    assert json.loads(text)["num_clips"] == len(rows_of(annotated))
