"""Laws of the UNet: sizes, paths that must agree, gradients, and what a forward pass costs."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
import torch
from torch import Tensor, nn

from svd.config.model import CheckpointPolicy, UNetConfig, svd_unet_config
from svd.errors import ConfigError
from svd.models.networks import attention
from svd.models.networks.attention import (
    FEW_KEYS,
    TransformerBlock,
    attend,
)
from svd.models.networks.layers import convolve
from svd.models.networks.unet import SpatioTemporalUNet, is_temporal, is_unused_with_one_token

Inputs = Callable[..., tuple[Tensor, ...]]
Drawn = Callable[..., nn.Module]


def full_size(config: UNetConfig) -> SpatioTemporalUNet:
    with torch.device("meta"):
        return SpatioTemporalUNet(config)


def num_parameters(unet: nn.Module) -> int:
    return sum(parameter.numel() for parameter in unet.parameters())


@contextmanager
def spatial_only(unet: SpatioTemporalUNet) -> Iterator[None]:
    unet.spatial_only = True
    yield
    unet.spatial_only = False


def test_the_full_model_has_the_releases_tensors_and_parameters() -> None:
    unet = full_size(svd_unet_config())
    assert len(unet.state_dict()) == 1428
    assert num_parameters(unet) == 1_524_623_082
    temporal = {name: p.numel() for name, p in unet.named_parameters() if is_temporal(name)}
    assert len(temporal) == 738
    assert sum(temporal.values()) == 656_076_838


@pytest.mark.parametrize(
    ("change", "count"),
    [
        ({"in_channels": 4}, 1_524_611_562),
        ({"in_channels": 9}, 1_524_623_082 + 9 * 320),
        ({"added_cond_dim": 256}, 1_523_967_722),
        ({"added_cond_dim": 1280}, 1_525_278_442),
    ],
    ids=["text-to-video", "interpolation", "orbit", "orbit-with-camera"],
)
def test_other_tasks_differ_in_the_first_and_the_id_layer_only(
    change: dict[str, int], count: int
) -> None:
    assert num_parameters(full_size(svd_unet_config().model_copy(update=change))) == count


@pytest.mark.parametrize("num_clips", [1, 2])
def test_one_token_gives_what_the_general_path_gives(
    unet: SpatioTemporalUNet, unet_inputs: Inputs, num_clips: int
) -> None:
    """Two equal tokens share their softmax, whatever the queries: the same output as one."""
    latents, c_noise, context, vector = (x[:num_clips] for x in unet_inputs())
    shortcut = unet(latents, c_noise, context, vector)
    general = unet(latents, c_noise, context.expand(-1, 2, -1), vector)
    torch.testing.assert_close(shortcut, general, rtol=0.0, atol=1e-12)
    names = [name for name, p in unet.named_parameters() if not is_unused_with_one_token(name)]
    parameters = [unet.get_parameter(name) for name in names]
    ours = torch.autograd.grad(shortcut.square().sum(), parameters)
    theirs = torch.autograd.grad(general.square().sum(), parameters)
    for name, left, right in zip(names, ours, theirs, strict=True):
        torch.testing.assert_close(left, right, rtol=1e-9, atol=1e-9, msg=name)


def test_a_batch_is_its_clips(unet: SpatioTemporalUNet, unet_inputs: Inputs) -> None:
    inputs = unet_inputs()
    with torch.no_grad():
        both = unet(*inputs)
        alone = torch.cat([unet(*(x[i : i + 1] for x in inputs)) for i in range(2)])
    torch.testing.assert_close(both, alone, rtol=0.0, atol=1e-12)


def test_image_only_clips_are_their_frames_alone(
    unet: SpatioTemporalUNet, unet_inputs: Inputs
) -> None:
    latents, c_noise, context, vector = unet_inputs()
    with torch.no_grad():
        mixed = unet(latents, c_noise, context, vector, torch.tensor([True, False]))
        video = unet(latents, c_noise, context, vector)
        with spatial_only(unet):
            frames = [
                unet(latents[:1, t : t + 1], c_noise[:1], context[:1], vector[:1]) for t in range(5)
            ]
    torch.testing.assert_close(mixed[:1], torch.cat(frames, dim=1), rtol=0.0, atol=1e-12)
    torch.testing.assert_close(mixed[1:], video[1:], rtol=0.0, atol=1e-12)
    assert (mixed[:1] - video[:1]).abs().max() > 1e-2


def test_a_vector_per_frame_that_repeats_is_a_vector_per_clip(
    unet: SpatioTemporalUNet, unet_inputs: Inputs
) -> None:
    latents, c_noise, context, vector = unet_inputs()
    per_frame = vector[:, None].repeat(1, 5, 1)
    with torch.no_grad():
        expected = unet(latents, c_noise, context, vector)
        torch.testing.assert_close(
            unet(latents, c_noise, context, per_frame), expected, rtol=0.0, atol=1e-12
        )
        per_frame[:, 2] += 0.5
        assert (unet(latents, c_noise, context, per_frame) - expected).abs().max() > 1e-3


def gradients(unet: SpatioTemporalUNet, inputs: tuple[Tensor, ...]) -> dict[str, Tensor]:
    unet.zero_grad()
    unet(*inputs).square().sum().backward()
    return {name: p.grad for name, p in unet.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("num_tokens", [1, 7], ids=["image-token", "text-tokens"])
@pytest.mark.parametrize("policy", ["outer", "ff+res", "block"])
def test_recomputing_changes_no_gradient(
    unet: SpatioTemporalUNet, unet_inputs: Inputs, policy: CheckpointPolicy, num_tokens: int
) -> None:
    inputs = unet_inputs(num_tokens=num_tokens)
    expected = gradients(unet, inputs)
    unet.set_checkpointing(policy)
    recomputed = gradients(unet, inputs)
    assert set(recomputed) == set(expected)
    for name, gradient in expected.items():
        assert torch.equal(recomputed[name], gradient), name


@pytest.mark.parametrize("policy", ["none", "outer", "ff+res", "block"])
def test_every_temporal_tensor_gets_a_gradient_when_only_they_are_trained(
    unet: SpatioTemporalUNet, unet_inputs: Inputs, policy: CheckpointPolicy
) -> None:
    unet.set_checkpointing(policy)
    for name, parameter in unet.named_parameters():
        parameter.requires_grad_(is_temporal(name))
    found = gradients(unet, unet_inputs(num_tokens=7))
    assert set(found) == {name for name, _ in unet.named_parameters() if is_temporal(name)}
    assert all(gradient.abs().max() > 0 for gradient in found.values())


def test_identity_start_leaves_the_image_model_as_it_was(
    unet_config: UNetConfig, drawn: Drawn, unet_inputs: Inputs
) -> None:
    config = unet_config.model_copy(update={"temporal_init": "identity"})
    fresh = SpatioTemporalUNet(config).state_dict()
    unet = drawn(SpatioTemporalUNet(config))
    temporal = {name: tensor for name, tensor in fresh.items() if is_temporal(name)}
    unet.load_state_dict(temporal, strict=False)
    inputs = unet_inputs(num_tokens=7)
    with torch.no_grad():
        video = unet(*inputs)
        with spatial_only(unet):
            torch.testing.assert_close(video, unet(*inputs), rtol=0.0, atol=1e-12)


def test_a_step_never_waits_for_the_device(unet_config: UNetConfig, unet_inputs: Inputs) -> None:
    """Meta tensors have no values: whatever asked for one, as .item() does, would raise."""
    with torch.device("meta"):
        unet = SpatioTemporalUNet(unet_config)
    inputs = [x.to("meta") for x in unet_inputs(dtype=torch.float32)]
    mask = torch.empty(2, dtype=torch.bool, device="meta")
    (unet(*inputs).square().mean() + unet(*inputs, mask).mean()).backward()


@pytest.mark.slow
def test_compiled_blocks_are_one_graph_each_and_compute_the_same(
    unet_config: UNetConfig, drawn: Drawn, unet_inputs: Inputs
) -> None:
    small = {"channel_mult": (1,), "attention_factors": (1,), "num_res_blocks": 1}
    unet = drawn(SpatioTemporalUNet(unet_config.model_copy(update=small)))
    inputs = unet_inputs()
    with torch.no_grad():
        expected = unet(*inputs)
        unet.compile_blocks(backend="eager")  # traces whole graphs, and makes no code
        torch.testing.assert_close(unet(*inputs), expected, rtol=0.0, atol=1e-12)


def test_attention_of_many_rows_is_cut_and_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    q, k, v = (torch.randn(70_001, 1, 2, 4) for _ in range(3))
    expected = nn.functional.scaled_dot_product_attention(q, k, v)
    rows: list[int] = []

    def kernel(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        rows.append(len(q))
        return nn.functional.softmax(q @ k.mT / q.shape[-1] ** 0.5, dim=-1) @ v

    monkeypatch.setattr(attention, "FEW_KEYS", 0)
    monkeypatch.setattr(attention.F, "scaled_dot_product_attention", kernel)
    torch.testing.assert_close(attend(q, k, v), expected)
    assert rows == [65_535, 70_001 - 65_535]


@pytest.mark.parametrize("num_keys", [1, 14, FEW_KEYS, FEW_KEYS + 1])
def test_attention_to_few_and_to_many_keys_is_the_formula(num_keys: int) -> None:
    q = torch.randn(5, 2, 7, 4, dtype=torch.float64)
    k, v = torch.randn(2, 5, 2, num_keys, 4, dtype=torch.float64)
    torch.testing.assert_close(attend(q, k, v), nn.functional.softmax(q @ k.mT / 2, -1) @ v)


@pytest.mark.parametrize("num_clips", [1, 3])
@pytest.mark.parametrize("num_frames", [1, 2, 5])
def test_the_convolution_over_time_has_its_gradients(num_clips: int, num_frames: int) -> None:
    x = torch.randn(num_clips, num_frames, 6, 3, dtype=torch.float64).permute(0, 3, 1, 2)
    kernel, bias = torch.randn(4, 3, 3, 1, dtype=torch.float64), torch.randn(4, dtype=torch.float64)
    expected = nn.functional.conv3d(x[..., None], kernel[..., None], bias, padding=(1, 0, 0))
    torch.testing.assert_close(convolve(x, kernel, bias), expected[..., 0])
    inputs = tuple(y.requires_grad_() for y in (x, kernel, bias))
    assert torch.autograd.gradcheck(convolve, inputs)


def test_text_keys_are_projected_once_per_clip() -> None:
    block = TransformerBlock(16, 8, 12).double()
    x, context = torch.randn(2, 3, 6, 16).double(), torch.randn(2, 7, 12).double()
    shapes: list[tuple[int, ...]] = []
    block.attn2.to_k.register_forward_hook(lambda _m, _i, out: shapes.append(tuple(out.shape)))
    out = block(x, context)
    assert shapes == [(2, 7, 16)]
    frame = torch.cat([block(x[:, t : t + 1], context) for t in range(3)], dim=1)
    torch.testing.assert_close(out, frame, rtol=0.0, atol=1e-12)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({0: (2, 5, 7, 8, 12)}, "in_channels=8 but was given 7"),
        ({0: (2, 5, 8, 6, 12)}, "is not a multiple of 4"),
        ({2: (2, 1, 23)}, "context_dim=24 but was given 23"),
        ({3: (2, 47)}, "added_cond_dim=48 but was given 47"),
        ({2: (3, 1, 24)}, "2 clips, but context of 3"),
        ({3: (1, 48)}, "2 clips, but vector of 1"),
        ({3: (2, 4, 48)}, "5 frames per clip, but vector of 4"),
        ({1: (3,)}, "2 clips, but c_noise of 3"),
    ],
    ids=["channels", "size", "context", "ids", "contexts", "vectors", "frames", "levels"],
)
def test_wrong_shapes_are_one_clear_error(
    unet: SpatioTemporalUNet, unet_inputs: Inputs, change: dict[int, tuple[int, ...]], words: str
) -> None:
    inputs = list(unet_inputs())
    for index, shape in change.items():
        inputs[index] = torch.zeros(shape, dtype=torch.float64)
    with pytest.raises(ConfigError, match=words):
        unet(*inputs)
