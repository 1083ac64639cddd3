"""A whole image-to-video sample against diffusers' pipeline on the same random weights."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from svd.config.model import AutoencoderConfig, DenoiserConfig, ImageEncoderConfig, UNetConfig
from svd.config.sampling import GuidanceConfig, SamplingConfig, ScheduleConfig
from svd.models.autoencoder import Autoencoder
from svd.models.denoiser import Denoiser
from svd.models.image_encoder import ImageEncoder
from svd.models.key_maps import (
    autoencoder_to_diffusers,
    temporal_decoder_to_diffusers,
    unet_to_diffusers,
)
from svd.models.temporal_decoder import TemporalDecoder
from svd.sampling.components import Components
from svd.sampling.noise import NoiseSource
from svd.sampling.sampler import image_to_video

diffusers = pytest.importorskip("diffusers")
transformers = pytest.importorskip("transformers")
image_module = pytest.importorskip("PIL.Image")

UNET = UNetConfig(
    in_channels=8,
    model_channels=64,
    channel_mult=(1, 2),
    attention_factors=(1,),
    head_dim=32,
    context_dim=24,
    added_cond_dim=48,
    added_id_dim=16,
)
VAE = AutoencoderConfig(base_channels=32, channel_mult=(1, 2))
CLIP = ImageEncoderConfig(
    kind="tiny", width=24, heads=2, layers=2, image_size=224, patch_size=56, seed=3
)
HEIGHT, WIDTH, NUM_FRAMES = 32, 48, 5


def draw_weights(module: nn.Module, seed: int) -> nn.Module:
    """Draw every weight, zero-initialised layers and mix factors included."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if parameter.ndim > 1:
                noise = noise / parameter[0].numel() ** 0.5
            elif name.endswith("weight"):
                noise = 1 + 0.2 * noise
            else:
                noise = 0.2 * noise
            parameter.copy_(noise)
    return module


def build_components() -> Components:
    components = Components(
        denoiser=draw_weights(Denoiser(DenoiserConfig(unet=UNET)), 0),
        autoencoder=draw_weights(Autoencoder(VAE), 1),
        temporal_decoder=draw_weights(TemporalDecoder(VAE), 2),
        image_encoder=ImageEncoder(CLIP),
        latent_scale=0.18215,
        device=torch.device("cpu"),
    )
    components.freeze()
    return components


def build_unet(components: Components) -> nn.Module:
    oracle = diffusers.UNetSpatioTemporalConditionModel(
        in_channels=8,
        down_block_types=("CrossAttnDownBlockSpatioTemporal", "DownBlockSpatioTemporal"),
        up_block_types=("UpBlockSpatioTemporal", "CrossAttnUpBlockSpatioTemporal"),
        block_out_channels=UNET.level_channels,
        addition_time_embed_dim=UNET.added_id_dim,
        projection_class_embeddings_input_dim=UNET.added_cond_dim,
        cross_attention_dim=UNET.context_dim,
        num_attention_heads=(2, 4),
        num_frames=NUM_FRAMES,
    )
    state = components.denoiser.unet.state_dict()
    oracle.load_state_dict({unet_to_diffusers(name): tensor for name, tensor in state.items()})
    for name, module in oracle.named_modules():
        if isinstance(module, nn.GroupNorm) and "res_block" in name:
            module.eps = 1e-5  # the release's; diffusers builds most with 1e-6
    return oracle


def build_vae(components: Components) -> nn.Module:
    oracle = diffusers.AutoencoderKLTemporalDecoder(
        down_block_types=("DownEncoderBlock2D",) * 2,
        block_out_channels=VAE.level_channels,
        layers_per_block=2,
        scaling_factor=0.18215,
    )
    assert components.temporal_decoder is not None
    state = {
        autoencoder_to_diffusers(name): tensor
        for name, tensor in components.autoencoder.state_dict().items()
        if name.startswith(("encoder.", "quant_conv."))
    }
    for name, tensor in components.temporal_decoder.state_dict().items():
        state[temporal_decoder_to_diffusers(name, num_levels=2)] = tensor
    shapes = {name: tensor.shape for name, tensor in oracle.state_dict().items()}
    oracle.load_state_dict({name: tensor.view(shapes[name]) for name, tensor in state.items()})
    return oracle


def build_clip(components: Components) -> nn.Module:
    oracle = transformers.CLIPVisionModelWithProjection(
        transformers.CLIPVisionConfig(
            hidden_size=CLIP.width,
            intermediate_size=4 * CLIP.width,
            projection_dim=CLIP.width,
            num_hidden_layers=CLIP.layers,
            num_attention_heads=CLIP.heads,
            image_size=CLIP.image_size,
            patch_size=CLIP.patch_size,
            hidden_act="gelu",
        )
    )
    assert components.image_encoder is not None
    renamed: dict[str, Tensor] = {}
    for name, tensor in components.image_encoder.visual.state_dict().items():
        if name == "proj":
            renamed["visual_projection.weight"] = tensor.T
        elif "in_proj" in name:
            for letter, part in zip("qkv", tensor.chunk(3), strict=True):
                kind = name.rpartition("in_proj_")[2]
                stem = name.replace("transformer.resblocks", "vision_model.encoder.layers")
                stem = stem.replace(f"attn.in_proj_{kind}", f"self_attn.{letter}_proj.{kind}")
                renamed[stem] = part
        else:
            new = name
            for ours, theirs in (
                ("transformer.resblocks", "encoder.layers"),
                ("attn.out_proj", "self_attn.out_proj"),
                ("ln_1", "layer_norm1"),
                ("ln_2", "layer_norm2"),
                ("mlp.c_fc", "mlp.fc1"),
                ("mlp.c_proj", "mlp.fc2"),
                ("ln_pre", "pre_layrnorm"),
                ("ln_post", "post_layernorm"),
                ("class_embedding", "embeddings.class_embedding"),
                ("conv1.weight", "embeddings.patch_embedding.weight"),
                ("positional_embedding", "embeddings.position_embedding.weight"),
            ):
                new = new.replace(ours, theirs)
            renamed[f"vision_model.{new}"] = tensor
    oracle.load_state_dict(renamed)
    return oracle


def build_pipeline(components: Components) -> object:
    pipeline = diffusers.StableVideoDiffusionPipeline(
        vae=build_vae(components),
        image_encoder=build_clip(components),
        unet=build_unet(components),
        scheduler=diffusers.EulerDiscreteScheduler(
            beta_schedule="scaled_linear",
            prediction_type="v_prediction",
            timestep_type="continuous",
            timestep_spacing="leading",
            use_karras_sigmas=True,
            sigma_min=0.002,
            sigma_max=700.0,
            steps_offset=1,
        ),
        feature_extractor=transformers.CLIPImageProcessor(),
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def test_three_steps_equal_those_of_diffusers() -> None:
    torch.set_num_threads(1)
    components = build_components()
    pictures = np.random.default_rng(0).integers(0, 256, (2, HEIGHT, WIDTH, 3)).astype(np.uint8)
    theirs = build_pipeline(components)(
        [image_module.fromarray(picture) for picture in pictures],
        height=HEIGHT,
        width=WIDTH,
        num_frames=NUM_FRAMES,
        num_inference_steps=3,
        min_guidance_scale=1.0,
        max_guidance_scale=3.0,
        fps=7,
        motion_bucket_id=127,
        noise_aug_strength=0.02,
        generator=[torch.Generator().manual_seed(seed) for seed in (11, 12)],
        output_type="np",
    ).frames
    ours = image_to_video(
        components,
        torch.from_numpy(pictures),
        config=SamplingConfig(
            num_frames=NUM_FRAMES,
            height=HEIGHT,
            width=WIDTH,
            schedule=ScheduleConfig(num_steps=3),
            guidance=GuidanceConfig(max_scale=3.0),
            batch_size=2,
            decode_chunk_size=NUM_FRAMES,
        ),
        seeds=(11, 12),
        make_noise=lambda seeds, _: NoiseSource(
            [torch.Generator().manual_seed(seed) for seed in seeds]
        ),
    )
    expected = np.asarray(theirs) * 255
    assert expected.std() > 20
    error = np.abs(ours.numpy() - expected)
    assert error.max() < 0.51  # nothing but the rounding to bytes
