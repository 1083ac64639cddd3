"""A network has the last word, and only where the detectors disagree."""

from pathlib import Path

import numpy as np
import pytest
import torch
from filming import film, raw_folder, shot

from svd.config.curation import BankConfig, ClipConfig, CutConfig, CutNetworkConfig
from svd.config.engine import EngineConfig
from svd.curation.clip.second_opinion import CONTEXT, Opinion, look_at, settle, windows_around
from svd.curation.clip.stage import make_clips
from svd.curation.clip.transnet import HEIGHT, WIDTH, TransNet, fetch_transnet, load_transnet
from svd.errors import IntegrityError
from svd.media.decode import decode_frames, index_packets
from svd.types.base import read_records
from svd.types.video import Cut

CONFIG = CutNetworkConfig()


def hard(frame: int) -> Cut:
    return Cut(
        video_id="v", start_frame=frame, stop_frame=frame, kind="hard", score=20.0, detector="a"
    )


def opinion(first: int, num: int, peaks: dict[int, float], within: range = range(0)) -> Opinion:
    last, inside = np.zeros(num, dtype=np.float32), np.zeros(num, dtype=np.float32)
    for frame, score in peaks.items():
        last[frame - first] = score
    for frame in [*within, *(f for f, score in peaks.items() if score > 0.5)]:
        inside[frame - first] = 0.9
    return Opinion(first, last, inside)


def settled(cuts: list[Cut], disputed: list[tuple[int, int]], said: Opinion) -> list[Cut]:
    return list(settle(cuts, disputed, [said], CONFIG, video_id="v", detector="net"))


def test_a_cut_that_only_slow_detectors_saw_is_added_where_the_network_sees_it() -> None:
    found = settled([hard(40)], [(100, 108)], opinion(75, 60, {104: 0.9}))
    assert [(cut.kind, cut.start_frame, cut.detector) for cut in found] == [
        ("hard", 40, "a"),
        ("hard", 105, "net"),
    ]


def test_motion_that_the_network_sees_through_adds_nothing() -> None:
    assert settled([hard(40)], [(100, 108)], opinion(75, 60, {104: 0.3})) == [hard(40)]


def test_a_run_of_frames_in_transition_is_a_dissolve() -> None:
    said = opinion(75, 60, {104: 0.8}, within=range(100, 112))
    (found,) = settled([], [(98, 110)], said)
    assert (found.kind, found.start_frame, found.stop_frame) == ("dissolve", 100, 112)


@pytest.mark.parametrize(("score", "stays"), [(0.9, True), (0.2, True), (0.01, False)])
def test_a_cut_of_the_native_detector_alone_falls_only_if_the_network_sees_nothing(
    score: float, stays: bool
) -> None:
    found = settled([hard(100)], [(99, 100)], opinion(75, 60, {99: score}))
    assert found == ([hard(100)] if stays else [])


def test_what_is_not_disputed_is_not_touched() -> None:
    assert settled([hard(90), hard(120)], [(99, 100)], opinion(75, 60, {})) == [hard(90), hard(120)]


def test_windows_have_context_and_are_joined() -> None:
    assert windows_around([(10, 18), (60, 61), (300, 308)], num_frames=320) == [
        range(87),
        range(300 - CONTEXT, 320),
    ]


class Recorder:
    def __init__(self) -> None:
        self.seen: dict[int, np.ndarray] = {}

    def look(self, first: int, frames: np.ndarray) -> Opinion:
        self.seen[first] = frames
        return opinion(first, len(frames), {})


@pytest.mark.parametrize("gop", [12, 500], ids=["many-keyframes", "one-keyframe"])
def test_the_network_sees_exactly_the_frames_of_each_window(tmp_path: Path, gop: int) -> None:
    path = film(tmp_path / "a.mp4", shot(3, 90, dx=3), gop=gop)
    pts = np.array([timed.pts for timed in decode_frames(path)])
    network = Recorder()
    look = look_at(
        path,
        [range(20, 45), range(60, 80)],
        network,
        frame_pts=pts,
        index=index_packets(path),
        rotation=0,
        size=(WIDTH, HEIGHT),
    )
    assert len(list(look)) == 2
    whole = look_at(
        path,
        [range(90)],
        network,
        frame_pts=pts,
        index=index_packets(path),
        rotation=0,
        size=(WIDTH, HEIGHT),
    )
    list(whole)
    for first, num in ((20, 25), (60, 20)):
        np.testing.assert_array_equal(network.seen[first], network.seen[0][first : first + num])


def test_of_every_hundred_frames_the_middle_fifty_count() -> None:
    torch.manual_seed(0)
    network = TransNet().eval()
    frames = torch.randint(0, 256, (130, HEIGHT, WIDTH, 3), dtype=torch.uint8)
    scores = network.score(frames)
    assert scores.last.shape == scores.within.shape == (130,)
    with torch.no_grad():
        window = network(frames[None, 25:125])[0, 25:75].sigmoid()
    torch.testing.assert_close(scores.last[50:100], window[:, 0])
    torch.testing.assert_close(scores.within[50:100], window[:, 1])


def test_a_file_that_holds_no_weights_is_refused(tmp_path: Path) -> None:
    torch.save({"nothing": torch.zeros(1)}, tmp_path / "w.pth")
    with pytest.raises(IntegrityError, match="not TransNetV2's weights"):
        load_transnet(tmp_path / "w.pth")


@pytest.mark.network
@pytest.mark.slow
def test_published_weights_see_a_cut_and_the_clip_stage_asks_them(tmp_path: Path) -> None:
    weights = fetch_transnet(tmp_path / "cache")
    path = film(tmp_path / "a.mp4", shot(1, 40), shot(2, 60, dx=1), gop=24)
    raw_folder(tmp_path, [path])
    config = ClipConfig(
        cuts=CutConfig(network=CONFIG, adaptive_min_score=200.0),  # the native detector is blind
        bank=BankConfig(short_side_px=128, still_short_side_px=180),
        min_clip_s=0.5,
        max_clip_s=5.0,
    )
    make_clips(
        config,
        engine=EngineConfig(num_workers=1, timeout_s=120.0),
        raw=tmp_path / "data" / "raw",
        out=tmp_path / "clips",
        state=tmp_path / "state",
        network=weights,
    )
    (cut,) = read_records(tmp_path / "clips" / "cuts.jsonl", Cut)
    assert (cut.kind, cut.start_frame) == ("hard", 40)
    assert cut.detector.startswith("transnetv2 ")
