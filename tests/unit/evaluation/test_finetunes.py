"""The measures of finetunes say what they should of videos whose answer is known."""

from pathlib import Path

import numpy as np
import pytest
import torch
from einops import rearrange
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from svd.config.camera_motion import CameraMotionConfig
from svd.config.evaluation import BootstrapConfig
from svd.evaluation.extractors.base import metric_name
from svd.evaluation.extractors.tiny import TinyVideoExtractor
from svd.evaluation.features import FeatureCache
from svd.evaluation.finetunes.between import linear_blend
from svd.evaluation.finetunes.buckets import NAME, measure_buckets, rank_correlation
from svd.evaluation.finetunes.camera import measure_adapters
from svd.evaluation.finetunes.decoders import Networks, measure_decoders
from svd.evaluation.finetunes.movement import camera_of, motion_px
from svd.evaluation.measures.base import RunFacts
from svd.evaluation.metrics.temporal import error_flicker

FPS = 8
FACTS = RunFacts(
    seed=1,
    dataset_fingerprint="d",
    checkpoint_sha256="c",
    sampling_fingerprint="s",
    bootstrap=BootstrapConfig(num_resamples=100),
)


def texture(seed: int, height: int, width: int) -> Tensor:
    coarse = torch.rand(
        (1, 3, height // 12, width // 12), generator=torch.Generator().manual_seed(seed)
    )
    return torch.nn.functional.interpolate(coarse, size=(height, width), mode="bicubic")[0]


def panned(seed: int, px_per_frame: int, *, num_frames: int = 8) -> Tensor:
    """Frames "t H W 3" of 64x128 whose content moves to the left."""
    wide = texture(seed, 64, 256)
    frames = [wide[:, :, i * px_per_frame : i * px_per_frame + 128] for i in range(num_frames)]
    return rearrange((torch.stack(frames).clamp(0, 1) * 255).to(torch.uint8), "t c h w -> t h w c")


def zoomed(seed: int, factor: float, *, num_frames: int = 8) -> Tensor:
    import cv2

    picture = rearrange(texture(seed, 64, 128), "c h w -> h w c").clamp(0, 1).numpy()
    centre = (63.5, 31.5)
    frames = [
        cv2.warpAffine(
            picture,
            cv2.getRotationMatrix2D(centre, 0, 1.3 * factor**index),
            (128, 64),
            flags=cv2.INTER_CUBIC,
        )
        for index in range(num_frames)
    ]
    return torch.from_numpy((np.clip(np.stack(frames), 0, 1) * 255).astype(np.uint8))


@pytest.mark.parametrize("speed", [0, 1, 2], ids=["still", "slow", "fast"])
def test_motion_is_in_px_of_a_128_px_picture_per_half_second(speed: int) -> None:
    # 4 frames are half a second; 64 px high, so one px counts as two.
    assert motion_px(panned(1, speed), fps=FPS) == pytest.approx(8 * speed, abs=0.15 + 0.1 * speed)
    reading = camera_of(panned(1, speed), fps=FPS)
    assert reading.shift_x == pytest.approx(-8 * speed, abs=0.2 + 0.1 * speed)


def test_an_adapter_that_makes_its_motion_gains_and_one_that_does_nothing_does_not() -> None:
    base = [panned(seed, 1) for seed in range(4)]
    adapted = {
        "horizontal": [panned(seed, 3) for seed in range(4)],
        "zoom": [zoomed(seed, 1.03) for seed in range(4)],
        "static": base,
    }
    measured = measure_adapters(FACTS, base, adapted, CameraMotionConfig(), fps=FPS)
    values = {record.name: record.value for record in measured.records}
    assert values["horizontal camera shift, lora@horizontal, gain"] == pytest.approx(16, abs=2)
    assert values["camera zoom, lora@zoom, gain"] > 3
    assert values["camera stillness, lora@static, gain"] == 0
    assert values["samples of class zoom, lora@zoom"] == 1
    assert values["samples of class zoom, lora@zoom (control: without adapter)"] == 0
    assert values["samples of class static, lora@static"] == 0


def test_buckets_that_move_more_correlate_and_buckets_that_do_not_matter_do_not() -> None:
    rising = {
        bucket: [panned(1, speed), panned(2, speed)] for speed, bucket in enumerate((0, 9, 99))
    }
    values = {r.name: r.value for r in measure_buckets(FACTS, rising, fps=FPS).records}
    assert values[NAME] == 1
    assert (
        values["motion in bucket 99"] > values["motion in bucket 9"] > values["motion in bucket 0"]
    )
    same = {bucket: [panned(1, 1)] for bucket in (0, 9, 99)}
    assert measure_buckets(FACTS, same, fps=FPS).records[0].value == 0


numbers = st.lists(st.integers(-9, 9), min_size=3, max_size=12)


@given(numbers)
def test_rank_correlation_is_one_with_itself_and_does_not_see_monotone_changes(
    values: list[int],
) -> None:
    varies = len(set(values)) > 1
    assert rank_correlation(values, [v**3 + v for v in values]) == pytest.approx(float(varies))
    assert rank_correlation(values, [-v for v in values]) == pytest.approx(-float(varies))


def test_rank_correlation_agrees_with_scipy() -> None:
    stats = pytest.importorskip("scipy.stats")
    generator = np.random.default_rng(0)
    for _ in range(20):
        a, b = generator.integers(0, 6, (2, 9)).tolist()
        assert rank_correlation(a, b) == pytest.approx(stats.spearmanr(a, b).statistic)


def test_linear_blending_keeps_its_ends() -> None:
    clip = rearrange(panned(1, 2, num_frames=5), "t h w c -> t c h w")
    blended = linear_blend(clip[0], clip[-1], 5)
    assert torch.equal(blended[0], clip[0])
    assert torch.equal(blended[-1], clip[-1])
    middle = (clip[0].float() + clip[-1].float()) / 2
    assert (blended[2].float() - middle).abs().max() <= 0.5


def shifting(seed: int) -> Tensor:
    return rearrange(panned(seed, 2, num_frames=6), "t h w c -> t c h w")


def offset(clip: Tensor, levels: Tensor) -> Tensor:
    """Add grey levels to each frame."""
    return (clip.int() + levels.int()[:, None, None, None]).clamp(0, 255).to(torch.uint8)


def test_flicker_of_the_error_sees_neither_motion_nor_a_mistake_that_stays() -> None:
    clip = shifting(1) // 2 + 40
    assert error_flicker(clip, clip) == 0
    assert error_flicker(offset(clip, torch.full((6,), 9)), clip) == 0
    assert error_flicker(offset(clip, torch.tensor([0, 6, 0, 6, 0, 6])), clip) == 6


def test_decoders_that_differ_in_flicker_alone_are_told_apart_by_it(tmp_path: Path) -> None:
    clips = [shifting(seed) // 2 + 40 for seed in range(4)]
    steady = [offset(clip, torch.full((6,), 4)) for clip in clips]
    flickering = [offset(clip, torch.tensor([4, -4, 4, -4, 4, -4])) for clip in clips]
    video = TinyVideoExtractor(num_frames=6, source_frames=6)
    networks = Networks(None, video, FeatureCache(tmp_path, video), "n-1")
    measured = measure_decoders(FACTS, clips, steady, flickering, networks, of="reconstructions")
    values = {record.name: record.value for record in measured.records}
    assert values["flicker of the error of reconstructions"] == 0
    assert values["flicker of the error of reconstructions (control: image decoder)"] == 8
    assert values["flicker of the error of reconstructions, gain over the image decoder"] == 8
    assert values["PSNR of reconstructions, gain over the image decoder"] == pytest.approx(0)
    name = metric_name("FVD", "FD", video.card)
    assert name != "FVD"  # a random network's distance
    assert f"{name} of reconstructions" in values
    assert f"{name} of reconstructions (control: image decoder)" in values
