"""A tiny model whose every weight is drawn, in memory and as the folders that stages leave."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from svd.config.base import Section
from svd.config.model import (
    AutoencoderConfig,
    DenoiserConfig,
    ImageEncoderConfig,
    TextEncoderConfig,
    UNetConfig,
)
from svd.models.checkpoints.weights import save_weights
from svd.models.networks.autoencoder import Autoencoder
from svd.models.networks.denoiser import Denoiser
from svd.models.networks.image_encoder import ImageEncoder
from svd.models.networks.temporal_decoder import TemporalDecoder
from svd.models.networks.text_encoder import TextEncoder
from svd.runtime.fingerprint import file_sha256
from svd.sampling.samplers.components import Components
from svd.types.artifact import ModelRecord

AUTOENCODER = AutoencoderConfig(
    base_channels=8, channel_mult=(1, 2), num_res_blocks=1, norm_groups=4
)
IMAGE = ImageEncoderConfig(kind="tiny", width=16, heads=2, image_size=28, patch_size=7)
TEXT = TextEncoderConfig(kind="tiny", width=16, heads=2)
LATENT_SCALE = 0.5


def denoiser_config(in_channels: int) -> DenoiserConfig:
    return DenoiserConfig(
        unet=UNetConfig(
            in_channels=in_channels,
            model_channels=16,
            channel_mult=(1, 2),
            num_res_blocks=1,
            attention_factors=(1, 2),
            head_dim=8,
            context_dim=16,
            added_cond_dim=24,
            added_id_dim=8,
            norm_groups=4,
        )
    )


def drawn(module: nn.Module, seed: int) -> nn.Module:
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


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def image_model() -> Components:
    """Image-to-video, with a temporal decoder."""
    components = Components(
        denoiser=drawn(Denoiser(denoiser_config(8)), 0),
        autoencoder=drawn(Autoencoder(AUTOENCODER), 1),
        temporal_decoder=drawn(TemporalDecoder(AUTOENCODER), 2),
        image_encoder=ImageEncoder(IMAGE),
        latent_scale=LATENT_SCALE,
        device=torch.device("cpu"),
    )
    components.freeze()
    return components


@pytest.fixture(scope="session")
def text_model() -> Components:
    """Text-to-video, decoded frame by frame."""
    components = Components(
        denoiser=drawn(Denoiser(denoiser_config(4)), 0),
        autoencoder=drawn(Autoencoder(AUTOENCODER), 1),
        text_encoder=TextEncoder(TEXT),
        latent_scale=LATENT_SCALE,
        device=torch.device("cpu"),
    )
    components.freeze()
    return components


def save_model(
    folder: Path, module: nn.Module, *, kind: str, config: Section, extras: dict[str, object]
) -> None:
    """Write what a training stage leaves."""
    path = folder / "weights.safetensors"
    save_weights(module, path)
    record = ModelRecord(
        stage=folder.name,
        kind=kind,
        architecture=json.loads(config.model_dump_json()),
        weights_sha256=file_sha256(path),
        num_parameters=sum(weight.numel() for weight in module.parameters()),
        step=1,
        examples_seen=1,
        params_fingerprint="p",
        dataset_fingerprint="d",
        init_sha256=None,
        run_fingerprint="r",
        extras=extras,
    )
    (folder / "model.json").write_text(record.canonical_json(), encoding="utf-8")


@pytest.fixture
def project(tmp_path: Path, image_model: Components, text_model: Components) -> Callable[[], Path]:
    """Return a function that lays out a checkout with both models and returns its root."""

    def lay_out() -> Path:
        trained = {"num_frames": 3, "height": 32, "width": 48, "fps": "8/1"}
        for name, model, encoder in (
            ("finetune-i2v", image_model, {"image_encoder": IMAGE.model_dump(mode="json")}),
            ("pretrain-video", text_model, {"text_encoder": TEXT.model_dump(mode="json")}),
        ):
            save_model(
                tmp_path / "models" / name,
                model.denoiser.unet,
                kind="denoiser",
                config=model.denoiser.config,
                extras={**trained, **encoder, "latent_scale": LATENT_SCALE},
            )
        save_model(
            tmp_path / "models" / "autoencoder",
            image_model.autoencoder,
            kind="autoencoder",
            config=AUTOENCODER,
            extras={"latent_scale": LATENT_SCALE},
        )
        (tmp_path / "params.yaml").touch()
        return tmp_path

    return lay_out
