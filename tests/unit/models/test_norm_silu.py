"""The fused GroupNorm+SiLU against PyTorch's; without a GPU, Triton's interpreter runs it."""

import os
import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from svd.models.networks.cpu.group_norm import NarrowGroupNorm, group_norm
from svd.models.networks.norm_silu import norm_silu

# n, channels, groups, height, width: groups of 1 and of 5 channels, ragged blocks, many rows
SHAPES = ((2, 32, 32, 3, 5), (1, 160, 32, 9, 8), (2, 48, 4, 1, 70), (1, 8, 2, 4, 33))

INTERPRETED = """
import torch
from svd.models.networks.norm_silu_kernels import NormSilu
from tests.unit.models.test_norm_silu import SHAPES, compare
for shape in SHAPES:
    compare(NormSilu.apply, shape, "cpu")
"""


def compare(fused, shape: tuple[int, ...], device: str, *, mean: float = 30.0) -> None:
    n, channels, groups, height, width = shape
    generator = torch.Generator().manual_seed(1)
    norm = nn.GroupNorm(groups, channels, eps=1e-5)
    with torch.no_grad():
        norm.weight.normal_(1.0, 0.3, generator=generator)
        norm.bias.normal_(0.0, 0.3, generator=generator)
    norm = norm.to(device)
    # A large mean beside a small deviation is what a sum of squares would lose.
    x = mean + torch.randn(n, channels, height, width, generator=generator).to(device)
    grad = torch.randn(x.shape, generator=generator).to(device)
    frames = x.contiguous(memory_format=torch.channels_last).requires_grad_()
    ours = fused(frames, norm.weight, norm.bias, groups, norm.eps)
    assert ours.is_contiguous(memory_format=torch.channels_last)
    found = torch.autograd.grad(ours, (frames, norm.weight, norm.bias), grad)
    exact, wide = x.double().requires_grad_(), norm.double()
    expected: Tensor = F.silu(wide(exact))
    truth = torch.autograd.grad(expected, (exact, wide.weight, wide.bias), grad.double())
    torch.testing.assert_close(ours.double(), expected, rtol=0.0, atol=2e-4)
    for left, right in zip(found, truth, strict=True):
        torch.testing.assert_close(left.double(), right, rtol=1e-4, atol=1e-3)


# fewer and more positions than PyTorch's forward needs to be fast
@pytest.mark.parametrize("shape", [(2, 32, 32, 16, 16), (1, 60, 12, 1, 300), (3, 20, 4, 40, 26)])
def test_narrow_groups_on_a_cpu_have_pytorchs_values_and_gradients(shape: tuple[int, ...]) -> None:
    def activated(x: Tensor, weight: Tensor, bias: Tensor, num_groups: int, eps: float) -> Tensor:
        return F.silu(NarrowGroupNorm.apply(x, num_groups, eps, weight, bias))

    compare(activated, shape, "cpu", mean=3.0)


def test_a_narrow_group_keeps_its_digits_beside_a_large_mean() -> None:
    generator = torch.Generator().manual_seed(2)
    x = 1000 + torch.randn(2, 16, 20, 20, generator=generator)
    x = x.contiguous(memory_format=torch.channels_last)
    normed = group_norm(x, torch.ones(16), torch.zeros(16), num_groups=4, eps=1e-5)
    expected = F.group_norm(x.double(), 4, eps=1e-5)
    torch.testing.assert_close(normed.frames.double(), expected, rtol=0.0, atol=1e-3)


def test_only_narrow_groups_of_many_positions_take_our_way() -> None:
    def backward_of(channels: int, side: int) -> str:
        x = torch.ones(1, channels, side, side).contiguous(memory_format=torch.channels_last)
        activated = norm_silu(nn.GroupNorm(4, channels), x.requires_grad_())
        return activated.grad_fn.next_functions[0][0].name()

    assert backward_of(16, 16) == "NarrowGroupNormBackward"
    assert backward_of(16, 8) == backward_of(32, 16) == "NativeGroupNormBackward0"


def test_interpreted_kernels_equal_pytorch() -> None:
    pytest.importorskip("triton")
    environment = os.environ | {"TRITON_INTERPRET": "1"}
    run = subprocess.run(
        [sys.executable, "-c", INTERPRETED],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("shape", [*SHAPES, (14, 320, 32, 40, 72), (1, 640, 32, 14, 2880)])
def test_compiled_kernels_equal_pytorch(shape: tuple[int, ...]) -> None:
    from svd.models.networks.norm_silu_kernels import NormSilu

    compare(NormSilu.apply, shape, "cuda")


def test_a_cpu_takes_pytorchs_own() -> None:
    norm, x = nn.GroupNorm(4, 8), torch.randn(2, 8, 3, 3)
    x = x.contiguous(memory_format=torch.channels_last)
    assert torch.equal(norm_silu(norm, x), F.silu(norm(x)))
