"""Chunks that cover every frame, and borders that do not show."""

from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from svd.config.model import AutoencoderConfig
from svd.models.networks.layers import SpatialConv
from svd.models.networks.streamed_decoder import StreamedDecoder
from svd.models.networks.temporal_decoder import TemporalDecoder
from svd.sampling.samplers.decode import (
    blend_weights,
    decode_in_chunks,
    plan_chunks,
    to_frames,
    to_pixels,
)


@given(num_frames=st.integers(1, 200), chunk_size=st.integers(1, 40), data=st.data())
@settings(deadline=None)
def test_chunks_cover_all_frames_and_share_at_least_the_overlap(
    num_frames: int, chunk_size: int, data
) -> None:
    overlap = data.draw(st.integers(0, chunk_size - 1))
    chunks = plan_chunks(num_frames, chunk_size=chunk_size, overlap=overlap)
    assert chunks[0].start == 0
    assert chunks[-1].stop == num_frames
    assert all(chunk.stop - chunk.start == min(chunk_size, num_frames) for chunk in chunks)
    for left, right in pairwise(chunks):
        assert left.start < right.start
        assert left.stop - right.start >= overlap


@given(num_frames=st.integers(1, 80), chunk_size=st.integers(1, 30), data=st.data())
@settings(deadline=None)
def test_weights_of_a_frame_sum_to_one(num_frames: int, chunk_size: int, data) -> None:
    overlap = data.draw(st.integers(0, chunk_size - 1))
    chunks = plan_chunks(num_frames, chunk_size=chunk_size, overlap=overlap)
    weights = blend_weights(chunks, num_frames)
    assert (weights >= 0).all()
    torch.testing.assert_close(weights.sum(0), torch.ones(num_frames))


@pytest.mark.parametrize(("chunk_size", "overlap"), [(4, 0), (4, 2), (5, 3), (30, 4)])
def test_a_decoder_of_single_frames_gives_the_same_pixels_in_any_chunks(
    chunk_size: int, overlap: int
) -> None:
    def decode(latents: Tensor) -> Tensor:
        return latents[:, :, :3].tanh()

    latents = torch.randn(2, 17, 4, 5, 6, generator=torch.Generator().manual_seed(0))
    got = decode_in_chunks(decode, latents, chunk_size=chunk_size, overlap=overlap)
    torch.testing.assert_close(got, decode(latents))


def test_never_more_frames_than_a_chunk_are_decoded_at_once() -> None:
    sizes: list[int] = []

    def decode(latents: Tensor) -> Tensor:
        sizes.append(latents.shape[1])
        return latents[:, :, :3]

    decode_in_chunks(decode, torch.zeros(1, 25, 4, 2, 2), chunk_size=8, overlap=4)
    assert max(sizes) == 8


def tiny_decoder() -> TemporalDecoder:
    """A temporal decoder whose temporal layers matter."""
    torch.manual_seed(0)
    decoder = TemporalDecoder(
        AutoencoderConfig(base_channels=8, channel_mult=(1, 2), num_res_blocks=1, norm_groups=4)
    )
    with torch.no_grad():
        for name, tensor in decoder.named_parameters():
            if "time_stack.out_layers.3" in name:
                tensor.copy_(torch.randn(tensor.shape) * 0.05)
            if "mix_factor" in name:
                tensor.fill_(0.5)
    return decoder.eval()


@torch.no_grad()
def test_overlap_hides_the_border_of_chunks() -> None:
    """The jump at a border is how much a frame step differs from the step of the whole decode."""
    decoder = tiny_decoder()
    generator = torch.Generator().manual_seed(1)
    ends = torch.randn(2, 1, 4, 8, 8, generator=generator)
    latents = torch.lerp(ends[0], ends[1], torch.linspace(0, 1, 16)[:, None, None, None])[None]

    def decode(part: Tensor) -> Tensor:
        return decoder.decode(part[0], num_frames=part.shape[1])[None]

    whole = decode(latents)

    def worst_jump(overlap: int) -> float:
        pixels = decode_in_chunks(decode, latents, chunk_size=8, overlap=overlap)
        steps = (pixels.diff(dim=1) - whole.diff(dim=1)).abs().mean((0, 2, 3, 4))
        return float(steps.max())

    assert worst_jump(0) > 3 * worst_jump(4)


@pytest.mark.parametrize("frames_at_once", [1, 3, 14, 30])
@torch.no_grad()
def test_decoding_a_few_frames_at_once_gives_the_whole_clips_pixels(frames_at_once: int) -> None:
    decoder = tiny_decoder()
    latents = torch.randn(17, 4, 6, 8, generator=torch.Generator().manual_seed(2))
    whole = decoder.decode(latents, num_frames=17)
    streamed = StreamedDecoder(decoder, frames_at_once=frames_at_once)(latents)
    torch.testing.assert_close(streamed, whole, rtol=0, atol=1e-4)
    chunks = decode_in_chunks(
        lambda part: decoder.decode(part[0], num_frames=part.shape[1])[None],
        latents[None],
        chunk_size=8,
        overlap=4,
    )
    assert (chunks[0] - whole).abs().amax((1, 2, 3)).min() > 1e-3  # chunks change every frame


@torch.no_grad()
def test_a_layer_never_sees_more_frames_than_asked_for_and_one_on_each_side() -> None:
    decoder, seen = tiny_decoder(), []
    for module in decoder.modules():
        if isinstance(module, SpatialConv):
            module.register_forward_pre_hook(lambda _, inputs: seen.append(len(inputs[0])))
    StreamedDecoder(decoder, frames_at_once=4)(torch.zeros(11, 4, 4, 4))
    assert max(seen) == 4


def test_frames_are_clipped_and_rounded() -> None:
    pixels = (
        torch.tensor([-3.0, -1.0, -0.5, 0.0, 1.0, 3.0]).reshape(1, 1, 1, 1, 6).repeat(1, 1, 3, 1, 1)
    )
    assert to_frames(pixels)[0, 0, 0, :, 0].tolist() == [0, 0, 64, 128, 255, 255]


def test_frames_survive_the_way_to_pixels_and_back() -> None:
    frames = torch.arange(256, dtype=torch.uint8).reshape(1, 16, 16, 1).repeat(1, 1, 1, 3)
    assert torch.equal(to_frames(to_pixels(frames)[:, None])[:, 0], frames)
