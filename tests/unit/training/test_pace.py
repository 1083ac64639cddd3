"""What a step computes is counted once, and fast is a share of what the device can do."""

import pytest
import torch

from svd.config.model import DenoiserConfig
from svd.training.loop.pace import Shapes, Stopwatch, Work, peak_flops
from tests.unit.training.world import DENOISER


def shapes(batch_size: int, *, num_frames: int = 4) -> Shapes:
    return Shapes(
        latents=torch.Size((batch_size, num_frames, 4, 4, 8)),
        context=torch.Size((batch_size, 8, 16)),
        vector=torch.Size((batch_size, 24)),
        cond_latents=None,
    )


def work(denoiser: DenoiserConfig = DENOISER, trainable: str = "all") -> Work:
    return Work(denoiser, trainable, peak=1e12)  # type: ignore[arg-type]


def test_flops_are_in_proportion_to_clips() -> None:
    assert work().flops(shapes(6)) == pytest.approx(3 * work().flops(shapes(2)), rel=0.02)


def test_frozen_layers_spare_the_products_of_their_gradients() -> None:
    whole, part = work().flops(shapes(1)), work(trainable="time-embedding").flops(shapes(1))
    assert 0.5 * whole < part < 0.95 * whole  # forward and the way back stay, weights' part goes


def test_stills_cost_less_than_their_share_of_a_clip() -> None:
    still = work(trainable="spatial").flops(shapes(1, num_frames=1))
    assert still < work().flops(shapes(1, num_frames=4)) / 4


def test_a_row_is_the_work_done_over_the_time_spent_in_steps() -> None:
    watch = Stopwatch(peak=1e9, steps=4, busy_s=2.0, waiting_s=0.5, examples=8, flops=4e8)
    row = watch.row(12, steps_left=0, unsaved_steps=0, device=torch.device("cpu"), device_s=3.0)
    assert (row.mfu, row.examples_per_s, row.step_s) == (0.2, 4.0, 0.5)
    assert (row.data_wait_share, row.phase_left_s) == (0.25, 0.0)


def test_the_peak_of_a_cpu_is_measured() -> None:
    assert 1e8 < peak_flops(torch.device("cpu"), torch.float32) < 1e14


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_the_peak_of_a_gpu_is_above_any_rate_measured_on_it() -> None:
    device = torch.device("cuda")
    assert peak_flops(device, torch.bfloat16) > 0.9 * peak_flops(device, torch.float32)
