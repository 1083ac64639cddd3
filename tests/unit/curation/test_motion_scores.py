"""Motion scores of whole clips, through encoder, decode pass and bank, against known speeds."""

import numpy as np
import pytest
from filming import film, raw_folder, shot

from svd.config.curation import BankConfig, ClipConfig
from svd.config.engine import EngineConfig
from svd.curation.annotate.motion import MotionAnnotator
from svd.curation.annotate.scoring import ClipView
from svd.curation.clip.bank import FrameBank
from svd.curation.clip.stage import make_clips
from svd.types.base import read_records
from svd.types.video import Clip

# Pixels per frame of a 320 px wide picture, in no order.
SPEEDS = (0.0, 2.5, 0.5, -4.0, 1.0, 0.0, -2.0, 3.5, 0.25, -3.0, 5.0, 0.0, 1.5, -0.125, 0.75)
SPEEDS_PER_PAIR = [abs(speed) * 12 * 128 / 180 for speed in SPEEDS]  # px of the flow picture


@pytest.fixture(scope="module")
def scores(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, float]]:
    """Scores of one clip per speed; still shots have a sensor's noise."""
    root = tmp_path_factory.mktemp("motion")
    generator = np.random.default_rng(0)
    shots = []
    for number, speed in enumerate(SPEEDS):
        frames = shot(number + 20, 37, dx=speed)
        if not speed:
            noisy = frames + generator.normal(0, 4, frames.shape)
            frames = np.clip(noisy, 0, 255).astype(np.uint8)
        shots.append(frames)
    raw_folder(root, [film(root / "speeds.mp4", *shots, gop=37, scenecut=False)])
    make_clips(
        ClipConfig(min_clip_s=1.0, max_clip_s=3.0),
        engine=EngineConfig(num_workers=1, timeout_s=200.0),
        raw=root / "data" / "raw",
        out=root / "clips",
        state=root / "state",
    )
    clips = sorted(
        read_records(root / "clips" / "index.jsonl", Clip), key=lambda clip: clip.span.start_frame
    )
    assert [clip.span.start_frame for clip in clips] == [37 * n for n in range(len(SPEEDS))]
    bank = FrameBank(root / "clips" / "bank" / clips[0].span.video_id)
    annotator = MotionAnnotator(BankConfig())
    return [
        annotator.measure(ClipView(clip, bank, root / "clips" / clip.uri)).scores for clip in clips
    ]


def spearman(first: list[float], second: list[float]) -> float:
    """Rank correlation; equal values share their mean rank."""

    def ranks(values: list[float]) -> np.ndarray:
        array = np.array(values)
        less = (array[None] < array[:, None]).sum(axis=1)
        equal = (array[None] == array[:, None]).sum(axis=1)
        return less + (equal - 1) / 2

    return float(np.corrcoef(ranks(first), ranks(second))[0, 1])


@pytest.mark.parametrize("name", ["dis_px", "farneback_px"])
def test_clips_rank_by_their_speed(scores: list[dict[str, float]], name: str) -> None:
    found = [one[name] for one in scores]
    assert spearman(found, SPEEDS_PER_PAIR) >= 0.95


def test_the_accurate_score_is_the_speed_itself(scores: list[dict[str, float]]) -> None:
    for one, speed in zip(scores, SPEEDS_PER_PAIR, strict=True):
        if speed:
            assert one["dis_px"] == pytest.approx(speed, rel=0.1)


def test_a_noisy_still_clip_separates_from_the_slowest_moving_one(
    scores: list[dict[str, float]],
) -> None:
    still = [one["dis_px"] for one, speed in zip(scores, SPEEDS, strict=True) if not speed]
    moving = [one["dis_px"] for one, speed in zip(scores, SPEEDS, strict=True) if speed]
    assert max(still) < 0.3 < min(moving)  # 0.3 is the laptop recipe's threshold
