"""GroupNorm and SiLU of channels-last frames as Triton kernels, forward and backward.

PyTorch's GroupNorm on a GPU turns channels-last frames into channels-first ones, and the
convolution behind it turns them back; SiLU is one more trip through memory. Here one kernel reads
the frames for the statistics, one reads and writes them. Sums are fp32, about a pivot, and are
added in a fixed order, so that equal inputs give equal bits.

Frames are seen as (n, rows, channels); a program works on one block of rows.
"""
# Triton compiles the kernels from their source; their arguments are its own pointers.
# mypy: disable-error-code="no-untyped-def, no-untyped-call"

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

_ROWS = 64  # of a block; with 32 or more channels, a tile of some KiB in registers
_MAX_SPLITS = 64  # blocks of rows that a reduction is split into, at most


@triton.jit
def _group_sums(
    x, sums, rows, channels, width, rows_per_split, ROWS: tl.constexpr, WIDTH: tl.constexpr
):
    """Sum x - pivot and its square over one split of one group, pivot being the group's first."""
    n, group, split = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    base = x + n.to(tl.int64) * rows * channels + group * width
    pivot = tl.load(base).to(tl.float32)
    lane = tl.arange(0, WIDTH)
    total = tl.zeros([ROWS, WIDTH], tl.float32)
    square = tl.zeros([ROWS, WIDTH], tl.float32)
    start = split * rows_per_split
    for first in range(start, start + rows_per_split, ROWS):
        row = first + tl.arange(0, ROWS)
        live = (row < rows)[:, None] & (lane < width)[None, :]
        offset = row.to(tl.int64)[:, None] * channels + lane[None, :]
        value = tl.load(base + offset, mask=live, other=0.0).to(tl.float32)
        value = tl.where(live, value - pivot, 0.0)
        total += value
        square += value * value
    place = sums + 2 * ((n * tl.num_programs(1) + group) * tl.num_programs(2) + split)
    tl.store(place, tl.sum(tl.sum(total, 1), 0))
    tl.store(place + 1, tl.sum(tl.sum(square, 1), 0))


@triton.jit
def _statistics(x, sums, mean, rstd, rows, channels, width, splits, eps, SPLITS: tl.constexpr):
    """Turn the sums of a group's splits into its mean and 1 / standard deviation."""
    n, group = tl.program_id(0), tl.program_id(1)
    pivot = tl.load(x + n.to(tl.int64) * rows * channels + group * width).to(tl.float32)
    place = n * tl.num_programs(1) + group
    split = tl.arange(0, SPLITS)
    live = split < splits
    total = tl.sum(tl.load(sums + 2 * (place * splits + split), mask=live, other=0.0), 0)
    square = tl.sum(tl.load(sums + 2 * (place * splits + split) + 1, mask=live, other=0.0), 0)
    count = (rows * width).to(tl.float32)
    shift = total / count
    variance = tl.maximum(square / count - shift * shift, 0.0)
    tl.store(mean + place, pivot + shift)
    tl.store(rstd + place, 1.0 / tl.sqrt(variance + eps))


@triton.jit
def _tile(n, rows, channels, first_row, first_channel, ROWS: tl.constexpr, CHANNELS: tl.constexpr):
    """Return the channels of a tile, where it is inside the frames, and its places in memory."""
    row = first_row + tl.arange(0, ROWS)
    channel = first_channel + tl.arange(0, CHANNELS)
    live = (row < rows)[:, None] & (channel < channels)[None, :]
    place = (n.to(tl.int64) * rows + row.to(tl.int64))[:, None] * channels + channel[None, :]
    return channel, live, place


@triton.jit
def _normalized(x, mean, rstd, n, channel, live, place, channels, width):
    """Return (x - mean) * rstd of a tile, and rstd."""
    group = n * (channels // width) + channel // width
    inside = channel < channels
    centre = tl.load(mean + group, mask=inside, other=0.0)[None, :]
    scale = tl.load(rstd + group, mask=inside, other=0.0)[None, :]
    value = tl.load(x + place, mask=live, other=0.0).to(tl.float32)
    return (value - centre) * scale, scale


@triton.jit
def _forward(
    x,
    weight,
    bias,
    mean,
    rstd,
    out,
    rows,
    channels,
    width,
    ROWS: tl.constexpr,
    CHANNELS: tl.constexpr,
):
    """Write SiLU(weight * normalized + bias) of a tile."""
    n = tl.program_id(0)
    channel, live, place = _tile(
        n, rows, channels, tl.program_id(1) * ROWS, tl.program_id(2) * CHANNELS, ROWS, CHANNELS
    )
    normalized, _ = _normalized(x, mean, rstd, n, channel, live, place, channels, width)
    inside = channel < channels
    gain = tl.load(weight + channel, mask=inside, other=0.0).to(tl.float32)[None, :]
    offset = tl.load(bias + channel, mask=inside, other=0.0).to(tl.float32)[None, :]
    value = normalized * gain + offset
    value = value * tl.sigmoid(value)
    tl.store(out + place, value.to(out.dtype.element_ty), mask=live)


@triton.jit
def _silu_gradient(grad, normalized, weight, bias, channel, live, place, channels):
    """Return the gradient at SiLU's input, and the gain."""
    inside = channel < channels
    gain = tl.load(weight + channel, mask=inside, other=0.0).to(tl.float32)[None, :]
    offset = tl.load(bias + channel, mask=inside, other=0.0).to(tl.float32)[None, :]
    value = normalized * gain + offset
    gate = tl.sigmoid(value)
    incoming = tl.load(grad + place, mask=live, other=0.0).to(tl.float32)
    return tl.where(live, incoming * gate * (1.0 + value * (1.0 - gate)), 0.0), gain


@triton.jit
def _gradient_sums(
    x, grad, weight, bias, mean, rstd, sums, rows, channels, width, rows_per_split,
    ROWS: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    """Sum the gradient, and the gradient times normalized, per channel over one split of rows."""
    n, split = tl.program_id(0), tl.program_id(1)
    plain = tl.zeros([CHANNELS], tl.float32)
    times = tl.zeros([CHANNELS], tl.float32)
    start = split * rows_per_split
    for first in range(start, start + rows_per_split, ROWS):
        channel, live, place = _tile(
            n, rows, channels, first, tl.program_id(2) * CHANNELS, ROWS, CHANNELS
        )
        normalized, _ = _normalized(x, mean, rstd, n, channel, live, place, channels, width)
        inner, _ = _silu_gradient(grad, normalized, weight, bias, channel, live, place, channels)
        plain += tl.sum(inner, 0)
        times += tl.sum(inner * normalized, 0)
    channel = tl.program_id(2) * CHANNELS + tl.arange(0, CHANNELS)
    to = sums + 2 * ((n * tl.num_programs(1) + split) * channels + channel)
    tl.store(to, plain, mask=channel < channels)
    tl.store(to + 1, times, mask=channel < channels)


@triton.jit
def _backward(
    x, grad, weight, bias, mean, rstd, group_means, out, rows, channels, width,
    ROWS: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    """Write the gradient of x: rstd * (gain * inner - its mean - normalized * mean of both)."""
    n = tl.program_id(0)
    channel, live, place = _tile(
        n, rows, channels, tl.program_id(1) * ROWS, tl.program_id(2) * CHANNELS, ROWS, CHANNELS
    )
    normalized, scale = _normalized(x, mean, rstd, n, channel, live, place, channels, width)
    inner, gain = _silu_gradient(grad, normalized, weight, bias, channel, live, place, channels)
    group = 2 * (n * (channels // width) + channel // width)
    inside = channel < channels
    plain = tl.load(group_means + group, mask=inside, other=0.0)[None, :]
    times = tl.load(group_means + group + 1, mask=inside, other=0.0)[None, :]
    value = scale * (gain * inner - plain - normalized * times)
    tl.store(out + place, value.to(out.dtype.element_ty), mask=live)


class NormSilu(torch.autograd.Function):
    """SiLU(GroupNorm(x)) of dense channels-last frames; saves its input and two numbers a group."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, num_groups: int, eps: float
    ) -> Tensor:
        """Return the activated frames, channels-last."""
        n, channels, height, width = x.shape
        rows, group_width = height * width, channels // num_groups
        splits, rows_per_split = _split(rows)
        sums = x.new_empty((n, num_groups, splits, 2), dtype=torch.float32)
        mean, rstd = x.new_empty((2, n, num_groups), dtype=torch.float32)
        out = torch.empty_like(x)
        _group_sums[(n, num_groups, splits)](
            x, sums, rows, channels, group_width, rows_per_split,
            ROWS=_ROWS, WIDTH=triton.next_power_of_2(group_width),
        )  # fmt: skip
        _statistics[(n, num_groups)](
            x, sums, mean, rstd, rows, channels, group_width, splits, eps,
            SPLITS=triton.next_power_of_2(splits),
        )  # fmt: skip
        block = _channel_block(channels)
        _forward[(n, triton.cdiv(rows, _ROWS), triton.cdiv(channels, block))](
            x, weight, bias, mean, rstd, out, rows, channels, group_width,
            ROWS=_ROWS, CHANNELS=block,
        )  # fmt: skip
        ctx.save_for_backward(x, weight, bias, mean, rstd)
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None]:
        """Return the gradients of x, weight and bias."""
        x, weight, bias, mean, rstd = ctx.saved_tensors
        grad = grad.contiguous(memory_format=torch.channels_last)
        n, channels, height, width = x.shape
        rows, num_groups = height * width, mean.shape[1]
        group_width, block = channels // num_groups, _channel_block(channels)
        splits, rows_per_split = _split(rows)
        sums = x.new_empty((n, splits, channels, 2), dtype=torch.float32)
        _gradient_sums[(n, splits, triton.cdiv(channels, block))](
            x, grad, weight, bias, mean, rstd, sums, rows, channels, group_width, rows_per_split,
            ROWS=_ROWS, CHANNELS=block,
        )  # fmt: skip
        per_frame = sums.sum(dim=1)
        weighted = per_frame * weight.float()[:, None]
        group_means = weighted.view(n, num_groups, group_width, 2).sum(dim=2) / (rows * group_width)
        out = torch.empty_like(x)
        _backward[(n, triton.cdiv(rows, _ROWS), triton.cdiv(channels, block))](
            x, grad, weight, bias, mean, rstd, group_means, out, rows, channels, group_width,
            ROWS=_ROWS, CHANNELS=block,
        )  # fmt: skip
        total = per_frame.sum(dim=0)
        return out, total[:, 1].to(weight.dtype), total[:, 0].to(bias.dtype), None, None


def _split(rows: int) -> tuple[int, int]:
    """Return how many splits the rows have, and rows per split, a multiple of a block's."""
    blocks = triton.cdiv(rows, _ROWS)
    blocks_per_split = triton.cdiv(blocks, _MAX_SPLITS)
    return triton.cdiv(blocks, blocks_per_split), blocks_per_split * _ROWS


def _channel_block(channels: int) -> int:
    return min(64, int(triton.next_power_of_2(channels)))
