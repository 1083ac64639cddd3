"""A whole image-to-video sample against diffusers' pipeline on the same random weights."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from svd.config.model import AutoencoderConfig, DenoiserConfig, ImageEncoderConfig, UNetConfig
from svd.config.sampling import GuidanceConfig, SamplingConfig, ScheduleConfig
from svd.models.checkpoints.checkpoint import Checkpoint, Part
from svd.models.checkpoints.diffusers_export import diffusers_files
from svd.models.checkpoints.layout import TensorFile
from svd.models.checkpoints.tensor_file import LazyTensor, from_tensor, write_safetensors
from svd.models.networks.autoencoder import Autoencoder
from svd.models.networks.denoiser import Denoiser
from svd.models.networks.image_encoder import ImageEncoder
from svd.models.networks.temporal_decoder import TemporalDecoder
from svd.sampling.samplers.components import Components
from svd.sampling.samplers.noise import NoiseSource
from svd.sampling.samplers.sampler import image_to_video

diffusers = pytest.importorskip("diffusers")
pytest.importorskip("transformers")
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


def lazy(module: nn.Module) -> dict[str, LazyTensor]:
    return {name: from_tensor(tensor) for name, tensor in module.state_dict().items()}


def export(components: Components, folder: Path) -> Path:
    """Write the model as `svd convert --to diffusers` does."""
    assert components.temporal_decoder is not None
    assert components.image_encoder is not None
    checkpoint = Checkpoint(
        unet=Part(components.denoiser.config, lazy(components.denoiser.unet)),
        autoencoder=Part(VAE, lazy(components.autoencoder)),
        temporal_decoder=Part(VAE, lazy(components.temporal_decoder)),
        image_encoder=Part(CLIP, lazy(components.image_encoder.visual)),
    )
    for name, file in diffusers_files(checkpoint).items():
        if isinstance(file, TensorFile):
            write_safetensors(folder / name, file.tensors, origin=folder, description=name)
        else:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(json.dumps(file))
    return folder


def use_released_eps(unet: nn.Module) -> None:
    """Set the residual blocks' eps to the release's 1e-5; diffusers builds most with 1e-6."""
    for name, module in unet.named_modules():
        if isinstance(module, nn.GroupNorm) and "res_block" in name:
            module.eps = 1e-5


@pytest.mark.parametrize("released_eps", [True, False], ids=["eps-of-the-release", "as-shipped"])
def test_their_pipeline_loads_our_export_and_three_steps_are_ours(
    tmp_path: Path, released_eps: bool
) -> None:
    torch.set_num_threads(1)
    components = build_components()
    pipeline = diffusers.StableVideoDiffusionPipeline.from_pretrained(export(components, tmp_path))
    pipeline.set_progress_bar_config(disable=True)
    if released_eps:
        use_released_eps(pipeline.unet)
    pictures = np.random.default_rng(0).integers(0, 256, (2, HEIGHT, WIDTH, 3)).astype(np.uint8)
    theirs = pipeline(
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
    # The rounding to bytes, and what another eps makes of a few pixels.
    assert error.max() < (0.51 if released_eps else 1.5)
