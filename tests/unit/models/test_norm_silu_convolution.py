"""Norm, SiLU and convolution that keep their input only, against PyTorch's own one by one."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from svd.models.networks.cpu.norm_silu_convolution import NormSiluConvolution, keeps_input_only

GROUPS, EPS = 4, 1e-5
# of frames and of the time view; groups of few channels and of many
SHAPES = ((3, 12, 16, 17), (2, 48, 5, 6), (2, 12, 5, 60), (1, 12, 6, 300))
KERNELS = ((3, 3), (3, 1))


def draw(shape: tuple[int, ...], kernel: tuple[int, int]) -> tuple[Tensor, ...]:
    """Return frames, and the weights of a norm and of a convolution to 7 channels."""
    generator = torch.Generator().manual_seed(1)
    channels = shape[1]
    sizes = (shape, (channels,), (channels,), (7, channels, *kernel), (7,))
    x, *weights = (torch.randn(size, generator=generator, dtype=torch.float64) for size in sizes)
    return x.contiguous(memory_format=torch.channels_last), *weights


def in_turn(x: Tensor, weight: Tensor, bias: Tensor, kernel: Tensor, offset: Tensor) -> Tensor:
    padding = (kernel.shape[2] // 2, kernel.shape[3] // 2)
    return F.conv2d(F.silu(F.group_norm(x, GROUPS, weight, bias, EPS)), kernel, offset, 1, padding)


def at_once(x: Tensor, *weights: Tensor) -> Tensor:
    result: Tensor = NormSiluConvolution.apply(x, GROUPS, EPS, *weights)
    return result


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("shape", SHAPES)
def test_values_and_gradients_are_pytorchs(shape: tuple[int, ...], kernel: tuple[int, int]) -> None:
    inputs = [y.requires_grad_() for y in draw(shape, kernel)]
    found, expected = at_once(*inputs), in_turn(*inputs)
    torch.testing.assert_close(found, expected)
    grad = torch.randn(found.shape, dtype=found.dtype).contiguous(memory_format=torch.channels_last)
    for left, right in zip(
        torch.autograd.grad(found, inputs, grad),
        torch.autograd.grad(expected, inputs, grad),
        strict=True,
    ):
        torch.testing.assert_close(left, right)


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("trained", [(0,), (1, 2), (3,), (4,), (0, 3, 4)])
def test_only_what_is_trained_gets_a_gradient(
    trained: tuple[int, ...], kernel: tuple[int, int]
) -> None:
    inputs = draw(SHAPES[0], kernel)
    chosen = [inputs[place].requires_grad_() for place in trained]
    grads = torch.autograd.grad(at_once(*inputs).square().sum(), chosen)
    expected = torch.autograd.grad(in_turn(*inputs).square().sum(), chosen)
    for left, right in zip(grads, expected, strict=True):
        torch.testing.assert_close(left, right)


def test_of_all_activations_the_input_is_kept() -> None:
    inputs = [y.requires_grad_() for y in draw(SHAPES[0], KERNELS[0])]
    kept: list[Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda y: kept.append(y) or y, lambda y: y):
        at_once(*inputs)
    frames = [y for y in kept if y.ndim == 4 and y.shape[2:] == inputs[0].shape[2:]]
    assert [y.data_ptr() for y in frames] == [inputs[0].data_ptr()]


def test_inputs_are_not_written_to() -> None:
    inputs = draw(SHAPES[0], KERNELS[0])
    before = [y.clone() for y in inputs]
    at_once(*inputs)
    assert all(torch.equal(left, right) for left, right in zip(inputs, before, strict=True))


def test_bfloat16_does_not_go_this_way() -> None:
    assert keeps_input_only(torch.ones(1, 4, 2, 2))
    assert not keeps_input_only(torch.ones(1, 4, 2, 2, dtype=torch.bfloat16))
