from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from filming import film, shot, texture
from torchvision.models.optical_flow import raft_small

from svd.config.curation import BankConfig, RaftConfig, ScoreRange
from svd.curation.annotate.raft import RaftScorer
from svd.curation.annotate.shards import why_not_chosen
from svd.curation.annotate.weights import Weights
from svd.types.video import Clip, ClipSpan


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Weights:
    """RAFT small with random weights, saved as torchvision's are."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "raft_small.pth"
    torch.save(raft_small(weights=None).state_dict(), path)
    return Weights(path, "sha256:0")


def scorer_of(weights: Weights, **changes: object) -> RaftScorer:
    values = {"file": "raft.pth", "size": "small", "short_side_px": 140, "num_updates": 2}
    return RaftScorer(RaftConfig(**(values | changes)), BankConfig(), weights)


def clip_of(path: Path, num_frames: int, width: int, height: int) -> Clip:
    span = ClipSpan(
        video_id="v",
        start_frame=0,
        stop_frame=num_frames,
        start_pts=0,
        stop_pts=num_frames,
        time_base=Fraction(1, 24),
        method="copy",
    )
    return Clip(
        clip_id="c",
        span=span,
        uri=path.name,
        sha256="",
        width=width,
        height=height,
        fps=Fraction(24),
        num_frames=num_frames,
        duration_s=num_frames / 24,
    )


def test_flow_is_torchvisions_own_cut_to_the_picture(weights: Weights) -> None:
    before, after = texture(1, 250, 140), texture(2, 250, 140)  # neither side a multiple of 8
    flow = scorer_of(weights).flow([(before, after), (after, before)])
    assert [one.shape for one in flow] == [(140, 250, 2)] * 2
    network = raft_small(weights=None).eval()
    network.load_state_dict(torch.load(weights.path, weights_only=True))
    inputs = []
    for picture in (before, after):
        wide = np.pad(picture[..., ::-1], ((0, 4), (0, 6), (0, 0)), mode="edge")
        inputs.append(torch.from_numpy(wide.transpose(2, 0, 1).copy())[None] / 127.5 - 1)
    with torch.inference_mode():
        wanted = network(*inputs, num_flow_updates=2)[-1][0, :, :140, :250]
    np.testing.assert_allclose(flow[0].transpose(2, 0, 1), wanted.numpy(), atol=1e-3)


def test_a_clip_is_decoded_at_two_frames_per_second(
    weights: Weights, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = film(tmp_path / "clip.mp4", shot(1, 49, dx=1, width=320, height=180))
    scorer = scorer_of(weights, pairs_per_batch=3)
    shown: list[int] = []

    def shift(self: RaftScorer, pairs: list) -> list[np.ndarray]:
        shown.append(len(pairs))
        height, width = pairs[0][0].shape[:2]
        assert height == 140
        return [np.full((height, width, 2), (3.0, 4.0), dtype=np.float32) for _ in pairs]

    monkeypatch.setattr(RaftScorer, "flow", shift)
    scores = scorer.measure(clip_of(path, 49, 320, 180), path).scores
    assert shown == [3, 1]  # five frames: 0, 12, 24, 36, 48
    assert scores["px"] == pytest.approx(5)
    assert scores["px_min"] == pytest.approx(5)
    assert scores["camera_px"] == pytest.approx(5)
    assert scores["residual_px"] == pytest.approx(0, abs=1e-6)


def test_real_flow_of_a_real_clip_has_all_scores(weights: Weights, tmp_path: Path) -> None:
    path = film(tmp_path / "clip.mp4", shot(1, 16, dx=1))
    scores = scorer_of(weights).measure(clip_of(path, 16, 320, 180), path).scores
    assert set(scores) == {"px", "px_min", "camera_px", "residual_px"}
    assert all(np.isfinite(value) for value in scores.values())


def test_a_clip_of_one_sampled_frame_has_no_flow(weights: Weights, tmp_path: Path) -> None:
    path = film(tmp_path / "clip.mp4", shot(1, 8))
    measured = scorer_of(weights).measure(clip_of(path, 8, 320, 180), path)
    assert measured.missing["px"] == "fewer than two sampled frames"


@pytest.mark.parametrize(
    ("scores", "reason"),
    [
        ({"motion.dis_px": 2.0, "text.area": 0.01}, None),
        ({"motion.dis_px": 0.2, "text.area": 0.01}, "motion.dis_px is 0.2, below 1"),
        ({"motion.dis_px": 2.0, "text.area": 0.5}, "text.area is 0.5, above 0.07"),
        ({"motion.dis_px": 2.0}, "text.area was not measured"),
    ],
    ids=["chosen", "still", "text", "unmeasured"],
)
def test_only_clips_in_all_ranges_are_chosen(scores: dict, reason: str | None) -> None:
    only = {"motion.dis_px": ScoreRange(min=1.0), "text.area": ScoreRange(max=0.07)}
    found = why_not_chosen(scores, only)
    assert found == (None if reason is None else f"not chosen: {reason}")
