"""A whole film whose cuts people have checked: what the cascade finds, and what clips it gives."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from filming import raw_folder

from svd.config.curation import ClipConfig
from svd.config.engine import EngineConfig
from svd.curation.clip.stage import make_clips
from svd.curation.ingest.films import fetch_film
from svd.media.decode import decode_frames, index_packets
from svd.types.base import read_records
from svd.types.curation import ClipReport
from svd.types.video import Clip, Cut

pytestmark = [pytest.mark.network, pytest.mark.slow, pytest.mark.timeout(900)]
GOLDEN = Path(__file__).parents[2] / "golden" / "big_buck_bunny_cuts.json"


@pytest.fixture(scope="module")
def truth() -> dict:
    return json.loads(GOLDEN.read_text())


@pytest.fixture(scope="module")
def cut_film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("film")
    raw_folder(root, [fetch_film("big-buck-bunny", root / "cache")])
    config = ClipConfig(min_clip_s=1.0, max_clip_s=10.0, reencode_preset="ultrafast")
    engine, raw = EngineConfig(num_workers=2), root / "data" / "raw"
    make_clips(config, engine=engine, raw=raw, out=root / "clips", state=root / "state")
    return root


@pytest.fixture(scope="module")
def cuts(cut_film: Path) -> list[Cut]:
    return list(read_records(cut_film / "clips" / "cuts.jsonl", Cut))


@pytest.fixture(scope="module")
def clips(cut_film: Path) -> list[Clip]:
    return list(read_records(cut_film / "clips" / "index.jsonl", Clip))


def test_hard_cuts_are_found_to_the_frame(truth: dict, cuts: list[Cut]) -> None:
    limit = truth["num_frames_with_all_hard_cuts"]
    found = [cut.start_frame for cut in cuts if cut.kind == "hard" and cut.start_frame < limit]
    hits = sum(any(abs(cut - mine) <= 1 for mine in found) for cut in truth["hard_cuts"])
    f1 = 2 * hits / (len(found) + len(truth["hard_cuts"]))
    assert f1 >= 0.99


def test_every_gradual_transition_is_covered_and_none_is_invented(
    truth: dict, cuts: list[Cut]
) -> None:
    gradual = [cut for cut in cuts if cut.kind != "hard"]
    assert [cut.kind for cut in gradual] == [known["kind"] for known in truth["gradual"]]
    for cut, known in zip(gradual, truth["gradual"], strict=True):
        assert cut.start_frame <= known["first"] + 4
        assert cut.stop_frame >= known["last"] - 4


def test_cuts_a_few_frames_apart_are_both_found(cuts: list[Cut]) -> None:
    frames = [cut.start_frame for cut in cuts]
    assert {8085, 8091, 9584, 9593} <= set(frames)


def test_no_clip_contains_a_cut(truth: dict, clips: list[Clip]) -> None:
    for clip in clips:
        inside = range(clip.span.start_frame + 1, clip.span.stop_frame)
        assert not any(cut in inside for cut in truth["hard_cuts"])
        for known in truth["gradual"]:
            middle = (known["first"] + known["last"]) // 2
            assert middle not in inside


def test_most_of_every_shot_is_kept(cut_film: Path) -> None:
    text = (cut_film / "clips" / "report.json").read_text()
    report = ClipReport.parse(text, origin="report.json")
    assert report.num_clip_frames >= 0.89 * report.num_shot_frames
    assert report.num_copied > 3 * report.num_reencoded


def test_every_clip_has_exactly_its_frames(cut_film: Path, clips: list[Clip]) -> None:
    for clip in clips:
        path = cut_film / "clips" / clip.uri
        index = index_packets(path)
        assert index.is_keyframe[0]
        assert int(index.is_shown.sum()) == clip.num_frames
        capture = cv2.VideoCapture(str(path))
        assert int(capture.get(cv2.CAP_PROP_FRAME_COUNT)) == clip.num_frames


def test_copied_frames_are_those_of_the_film(cut_film: Path, clips: list[Clip]) -> None:
    copied = [clip for clip in clips if clip.span.method == "copy"][::24]
    video = next((cut_film / "data" / "raw" / "videos").iterdir())
    for clip in copied:
        mine = [t.frame.to_ndarray() for t in decode_frames(cut_film / "clips" / clip.uri)]
        frames = decode_frames(video, start_pts=clip.span.start_pts)
        source = [timed.frame.to_ndarray() for _, timed in zip(mine, frames, strict=False)]
        np.testing.assert_array_equal(np.stack(mine), np.stack(source))
