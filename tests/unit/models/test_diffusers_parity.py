"""Our networks against diffusers' on the same weights: forward, gradients, encode, decode.

diffusers is the oracle only; the weights travel through our key maps, which are tested with it.
"""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from svd.config.model import AutoencoderConfig, UNetConfig
from svd.models.checkpoints.key_maps import (
    autoencoder_to_diffusers,
    inverse,
    temporal_decoder_to_diffusers,
    unet_to_diffusers,
)
from svd.models.networks.autoencoder import Autoencoder
from svd.models.networks.conditioner import add_pose, embed_added_time_ids
from svd.models.networks.temporal_decoder import TemporalDecoder
from svd.models.networks.unet import SpatioTemporalUNet

diffusers = pytest.importorskip("diffusers")
IDS = torch.tensor(((6.0, 127.0, 0.02), (11.0, 3.0, 0.3)))  # as in the fixture's vector


def build_unet_oracle(config: UNetConfig, unet: SpatioTemporalUNet) -> nn.Module:
    last = len(config.channel_mult) - 1
    attends = [2**level in config.attention_factors for level in range(last + 1)]
    down = ["CrossAttnDown" if flag else "Down" for flag in attends]
    up = ["CrossAttnUp" if flag else "Up" for flag in reversed(attends)]
    oracle = diffusers.UNetSpatioTemporalConditionModel(
        in_channels=config.in_channels,
        down_block_types=tuple(f"{kind}BlockSpatioTemporal" for kind in down),
        up_block_types=tuple(f"{kind}BlockSpatioTemporal" for kind in up),
        block_out_channels=config.level_channels,
        addition_time_embed_dim=config.added_id_dim,
        projection_class_embeddings_input_dim=config.added_cond_dim,
        cross_attention_dim=config.context_dim,
        num_attention_heads=tuple(width // config.head_dim for width in config.level_channels),
    )
    state = unet.state_dict()
    names = inverse(state, unet_to_diffusers)
    assert set(names) == set(oracle.state_dict())
    oracle = oracle.to(unet.dtype)
    oracle.load_state_dict({theirs: state[ours] for theirs, ours in names.items()})
    return oracle


def use_released_eps(oracle: nn.Module) -> None:
    """Set the residual blocks' eps to the release's 1e-5; diffusers builds most with 1e-6."""
    for name, module in oracle.named_modules():
        if isinstance(module, nn.GroupNorm) and "res_block" in name:
            module.eps = 1e-5


@pytest.mark.parametrize("num_tokens", [1, 7], ids=["image-token", "text-tokens"])
@pytest.mark.parametrize(
    ("dtype", "released_eps", "tolerance"),
    [
        # diffusers computes its sinusoids in fp32, which bounds the agreement in fp64.
        pytest.param(torch.float64, True, 1e-6, id="fp64"),
        pytest.param(torch.float64, False, 3e-4, id="fp64-eps-as-diffusers-ships"),
        pytest.param(torch.float32, True, 2e-5, id="fp32"),
    ],
)
def test_unet_forward_equals_diffusers(
    unet_config: UNetConfig,
    drawn: Callable[..., nn.Module],
    unet_inputs: Callable[..., tuple[Tensor, ...]],
    dtype: torch.dtype,
    released_eps: bool,
    tolerance: float,
    num_tokens: int,
) -> None:
    unet = drawn(SpatioTemporalUNet(unet_config), dtype=dtype)
    oracle = build_unet_oracle(unet_config, unet)
    if released_eps:
        use_released_eps(oracle)
    latents, c_noise, context, vector = unet_inputs(num_tokens=num_tokens, dtype=dtype)
    with torch.no_grad():
        ours = unet(latents, c_noise, context, vector)
        theirs = oracle(latents, c_noise, context, IDS.to(dtype)).sample
    assert theirs.std() > 0.3
    assert torch.allclose(ours, theirs, rtol=0, atol=tolerance)


def test_an_exported_multi_view_model_takes_the_elevation_as_its_fourth_added_id(
    unet_config: UNetConfig,
    drawn: Callable[..., nn.Module],
    unet_inputs: Callable[..., tuple[Tensor, ...]],
) -> None:
    width = unet_config.added_id_dim
    config = unet_config.model_copy(update={"added_cond_dim": 4 * width})
    unet = drawn(SpatioTemporalUNet(config))
    oracle = build_unet_oracle(config, unet)
    use_released_eps(oracle)
    latents, c_noise, context, _ = unet_inputs(num_tokens=1, dtype=torch.float64)
    ids, elevation = IDS.double(), torch.full((len(IDS), 1), 17.5, dtype=torch.float64)
    poses = torch.zeros(len(IDS), latents.shape[1], 2, dtype=torch.float64)
    poses[..., 0] = elevation
    vector = add_pose(
        embed_added_time_ids(ids, width=width), poses, told=("elevation",), width=width
    )
    with torch.no_grad():
        ours = unet(latents, c_noise, context, vector)
        theirs = oracle(latents, c_noise, context, torch.cat([ids, elevation], dim=1)).sample
    assert torch.allclose(ours, theirs, rtol=0, atol=1e-6)


def test_unet_gradients_equal_diffusers(
    unet_config: UNetConfig,
    unet: SpatioTemporalUNet,
    unet_inputs: Callable[..., tuple[Tensor, ...]],
) -> None:
    oracle = build_unet_oracle(unet_config, unet)
    use_released_eps(oracle)
    latents, c_noise, context, vector = unet_inputs()
    generator = torch.Generator().manual_seed(7)
    weights = torch.randn(2, 5, 4, 8, 12, dtype=torch.float64, generator=generator)
    (unet(latents, c_noise, context, vector) * weights).sum().backward()
    (oracle(latents, c_noise, context, IDS.double()).sample * weights).sum().backward()
    theirs = {name: parameter.grad for name, parameter in oracle.named_parameters()}
    num_live = 0
    for name, parameter in unet.named_parameters():
        expected = theirs[unet_to_diffusers(name)]
        if parameter.grad is None:  # queries and keys of a single token
            assert expected.abs().max() < 1e-10, name
            continue
        num_live += 1
        scale = expected.abs().max()
        assert scale > 0, name
        assert (parameter.grad - expected).abs().max() < 1e-5 * scale, name
    assert num_live > 700


def build_vae_oracle(
    config: AutoencoderConfig, autoencoder: Autoencoder, decoder: TemporalDecoder
) -> nn.Module:
    oracle = diffusers.AutoencoderKLTemporalDecoder(
        down_block_types=("DownEncoderBlock2D",) * len(config.channel_mult),
        block_out_channels=config.level_channels,
        layers_per_block=config.num_res_blocks,
    ).double()
    ours = {
        name: tensor
        for name, tensor in autoencoder.state_dict().items()
        if name.startswith(("encoder.", "quant_conv."))
    }
    state = {autoencoder_to_diffusers(name): tensor for name, tensor in ours.items()}
    levels = len(config.channel_mult)
    state |= {
        temporal_decoder_to_diffusers(name, num_levels=levels): tensor
        for name, tensor in decoder.state_dict().items()
    }
    shapes = {name: tensor.shape for name, tensor in oracle.state_dict().items()}
    assert set(state) == set(shapes)
    oracle.load_state_dict({name: tensor.view(shapes[name]) for name, tensor in state.items()})
    return oracle


def test_autoencoder_and_temporal_decoder_equal_diffusers(
    autoencoder_config: AutoencoderConfig, drawn: Callable[..., nn.Module]
) -> None:
    autoencoder = drawn(Autoencoder(autoencoder_config), seed=1)
    decoder = drawn(TemporalDecoder(autoencoder_config), seed=2)
    oracle = build_vae_oracle(autoencoder_config, autoencoder, decoder)
    pixels = torch.rand(10, 3, 24, 32, dtype=torch.float64) * 2 - 1
    with torch.no_grad():
        moments = autoencoder.encode(pixels)
        theirs = oracle.encode(pixels).latent_dist
        assert torch.allclose(moments.mean, theirs.mean, rtol=0, atol=1e-10)
        assert torch.allclose(moments.logvar, theirs.logvar, rtol=0, atol=1e-10)
        frames = decoder.decode(moments.mean, 5)
        expected = oracle.decode(moments.mean, num_frames=5).sample
    assert expected.std() > 0.1
    assert torch.allclose(frames, expected, rtol=0, atol=1e-10)


def test_image_autoencoder_equals_diffusers(
    autoencoder_config: AutoencoderConfig, drawn: Callable[..., nn.Module]
) -> None:
    autoencoder = drawn(Autoencoder(autoencoder_config), seed=1)
    oracle = diffusers.AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        block_out_channels=autoencoder_config.level_channels,
        layers_per_block=2,
        latent_channels=4,
    ).double()
    shapes = {name: tensor.shape for name, tensor in oracle.state_dict().items()}
    state = {
        autoencoder_to_diffusers(name, num_levels=3): tensor
        for name, tensor in autoencoder.state_dict().items()
    }
    assert set(state) == set(shapes)
    oracle.load_state_dict({name: tensor.view(shapes[name]) for name, tensor in state.items()})
    latents = torch.randn(2, 4, 6, 8, dtype=torch.float64)
    with torch.no_grad():
        ours = autoencoder.decode(latents)
        theirs = oracle.decode(latents).sample
    assert torch.allclose(ours, theirs, rtol=0, atol=1e-10)
