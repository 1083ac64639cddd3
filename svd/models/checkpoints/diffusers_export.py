"""Writing a folder that diffusers' StableVideoDiffusionPipeline loads.

The folder holds one part more than the pipeline needs, `image_vae/`: the frame-wise autoencoder,
without which the way back would lose its decoder.

diffusers builds most residual blocks with eps 1e-6 where the release has 1e-5, so its outputs
differ from ours by some 1e-5 on the same weights.
"""

from collections.abc import Mapping
from typing import Any

from svd.config.model import AutoencoderConfig, DenoiserConfig, ImageEncoderConfig, UNetConfig
from svd.errors import CheckpointError
from svd.models.checkpoints.checkpoint import Checkpoint, Tensors, is_image_decoder
from svd.models.checkpoints.clip_maps import vision_to_transformers
from svd.models.checkpoints.diffusers_folder import IMAGE_VAE, INDEX_FILE
from svd.models.checkpoints.key_maps import (
    autoencoder_to_diffusers,
    temporal_decoder_to_diffusers,
    unet_to_diffusers,
)
from svd.models.checkpoints.layout import JsonFile, TensorFile
from svd.models.checkpoints.tensor_file import LazyTensor
from svd.models.networks.tower import architecture_config

_NUM_GROUPS = 32  # of every GroupNorm in diffusers' spatio-temporal UNet
_VERSION = {"_diffusers_version": "0.24.0"}  # the first with this pipeline
_WEIGHTS = "diffusion_pytorch_model.safetensors"

# The released scheduler: EDM noise levels 0.002..700 for a v-predicting network.
_SCHEDULER = {
    "_class_name": "EulerDiscreteScheduler",
    **_VERSION,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "beta_start": 0.00085,
    "interpolation_type": "linear",
    "num_train_timesteps": 1000,
    "prediction_type": "v_prediction",
    "sigma_max": 700.0,
    "sigma_min": 0.002,
    "steps_offset": 1,
    "timestep_spacing": "leading",
    "timestep_type": "continuous",
    "use_karras_sigmas": True,
}


def diffusers_files(checkpoint: Checkpoint) -> dict[str, TensorFile | JsonFile]:
    """Return the files of a StableVideoDiffusionPipeline folder.

    Raises:
        CheckpointError: A part that the pipeline needs is absent, or diffusers cannot build it.
    """
    unet, autoencoder, decoder, image_encoder = (
        checkpoint.unet,
        checkpoint.autoencoder,
        checkpoint.temporal_decoder,
        checkpoint.image_encoder,
    )
    if unet is None or autoencoder is None or decoder is None or image_encoder is None:
        raise CheckpointError(
            "StableVideoDiffusionPipeline needs a UNet, an autoencoder, a temporal decoder and an "
            "image encoder; this model has not all of them"
        )
    _check_buildable(unet.config, autoencoder.config)
    files: dict[str, TensorFile | JsonFile] = {
        INDEX_FILE: _INDEX,
        "scheduler/scheduler_config.json": _SCHEDULER,
        "feature_extractor/preprocessor_config.json": _preprocessor(image_encoder.config),
        "unet/config.json": _unet_tree(unet.config.unet),
        f"unet/{_WEIGHTS}": TensorFile(_unet_tensors(unet.tensors, unet.config.unet)),
        "vae/config.json": _vae_tree(autoencoder.config),
        f"vae/{_WEIGHTS}": TensorFile(
            _vae_tensors(autoencoder.tensors, decoder.tensors, autoencoder.config)
        ),
        "image_encoder/config.json": _image_encoder_tree(image_encoder.config),
        "image_encoder/model.safetensors": TensorFile(
            vision_to_transformers(image_encoder.tensors)
        ),
    }
    if any(is_image_decoder(name) for name in autoencoder.tensors):
        files[f"{IMAGE_VAE}/config.json"] = _image_vae_tree(autoencoder.config)
        files[f"{IMAGE_VAE}/{_WEIGHTS}"] = TensorFile(
            _autoencoder_tensors(autoencoder.tensors, autoencoder.config)
        )
    return files


def _check_buildable(denoiser: DenoiserConfig, autoencoder: AutoencoderConfig) -> None:
    if denoiser.preconditioning != "edm-v":
        raise CheckpointError(
            f"the pipeline's scheduler is edm-v's; this model has {denoiser.preconditioning}"
        )
    for what, groups in (
        ("UNet", denoiser.unet.norm_groups),
        ("autoencoder", autoencoder.norm_groups),
    ):
        if groups != _NUM_GROUPS:
            raise CheckpointError(
                f"the {what} has norm_groups={groups}; diffusers builds it with {_NUM_GROUPS}"
            )


def _unet_tensors(tensors: Tensors, config: UNetConfig) -> dict[str, LazyTensor]:
    num = config.num_res_blocks
    return {unet_to_diffusers(name, num_res_blocks=num): tensor for name, tensor in tensors.items()}


def _vae_tensors(
    autoencoder: Tensors, decoder: Tensors, config: AutoencoderConfig
) -> dict[str, LazyTensor]:
    encoder = {n: tensor for n, tensor in autoencoder.items() if not is_image_decoder(n)}
    levels = len(config.channel_mult)
    return _autoencoder_tensors(encoder, config) | {
        temporal_decoder_to_diffusers(name, num_levels=levels): _matrix(name, tensor)
        for name, tensor in decoder.items()
    }


def _autoencoder_tensors(tensors: Tensors, config: AutoencoderConfig) -> dict[str, LazyTensor]:
    levels = len(config.channel_mult)
    return {
        autoencoder_to_diffusers(name, num_levels=levels): _matrix(name, tensor)
        for name, tensor in tensors.items()
    }


def _matrix(name: str, tensor: LazyTensor) -> LazyTensor:
    """Flatten the attention's 1x1 convolutions, which diffusers has as linear layers."""
    is_convolution = ".attn_1." in f".{name}" and len(tensor.shape) == 4
    return tensor.reshaped(*tensor.shape[:2]) if is_convolution else tensor


_INDEX: JsonFile = {
    "_class_name": "StableVideoDiffusionPipeline",
    **_VERSION,
    "feature_extractor": ["transformers", "CLIPImageProcessor"],
    "image_encoder": ["transformers", "CLIPVisionModelWithProjection"],
    "scheduler": ["diffusers", "EulerDiscreteScheduler"],
    "unet": ["diffusers", "UNetSpatioTemporalConditionModel"],
    "vae": ["diffusers", "AutoencoderKLTemporalDecoder"],
}


def _unet_tree(config: UNetConfig) -> JsonFile:
    attends = [2**level in config.attention_factors for level in range(len(config.channel_mult))]
    down = ["CrossAttnDown" if flag else "Down" for flag in attends]
    up = ["CrossAttnUp" if flag else "Up" for flag in reversed(attends)]
    return {
        "_class_name": "UNetSpatioTemporalConditionModel",
        **_VERSION,
        "in_channels": config.in_channels,
        "out_channels": config.out_channels,
        "down_block_types": [f"{kind}BlockSpatioTemporal" for kind in down],
        "up_block_types": [f"{kind}BlockSpatioTemporal" for kind in up],
        "block_out_channels": list(config.level_channels),
        "addition_time_embed_dim": config.added_id_dim,
        "projection_class_embeddings_input_dim": config.added_cond_dim,
        "layers_per_block": config.num_res_blocks,
        "cross_attention_dim": config.context_dim,
        "transformer_layers_per_block": 1,
        "num_attention_heads": [width // config.head_dim for width in config.level_channels],
        "num_frames": 14,
        "sample_size": 96,
    }


def _vae_tree(config: AutoencoderConfig) -> JsonFile:
    return {
        "_class_name": "AutoencoderKLTemporalDecoder",
        **_VERSION,
        **_vae_sizes(config),
        "force_upcast": True,
    }


def _image_vae_tree(config: AutoencoderConfig) -> JsonFile:
    return {
        "_class_name": "AutoencoderKL",
        **_VERSION,
        **_vae_sizes(config),
        "up_block_types": ["UpDecoderBlock2D"] * len(config.channel_mult),
        "norm_num_groups": config.norm_groups,
    }


def _vae_sizes(config: AutoencoderConfig) -> Mapping[str, Any]:
    return {
        "in_channels": config.pixel_channels,
        "out_channels": config.pixel_channels,
        "down_block_types": ["DownEncoderBlock2D"] * len(config.channel_mult),
        "block_out_channels": list(config.level_channels),
        "layers_per_block": config.num_res_blocks,
        "latent_channels": config.latent_channels,
        "sample_size": 768,
        "scaling_factor": config.latent_scale,
    }


def _image_encoder_tree(config: ImageEncoderConfig) -> JsonFile:
    return {
        "architectures": ["CLIPVisionModelWithProjection"],
        "model_type": "clip_vision_model",
        "hidden_act": "gelu",
        "num_channels": 3,
        **_vision_sizes(config),
    }


def _vision_sizes(config: ImageEncoderConfig) -> Mapping[str, int]:
    if config.kind == "tiny":
        return {
            "hidden_size": config.width,
            "intermediate_size": 4 * config.width,
            "projection_dim": config.width,
            "num_hidden_layers": config.layers,
            "num_attention_heads": config.heads,
            "image_size": config.image_size,
            "patch_size": config.patch_size,
        }
    clip = architecture_config(config.architecture)
    vision = clip["vision_cfg"]
    return {
        "hidden_size": vision["width"],
        "intermediate_size": int(vision["width"] * vision.get("mlp_ratio", 4.0)),
        "projection_dim": clip["embed_dim"],
        "num_hidden_layers": vision["layers"],
        "num_attention_heads": vision["width"] // vision.get("head_width", 64),
        "image_size": config.image_size,
        "patch_size": vision["patch_size"],
    }


def _preprocessor(config: ImageEncoderConfig) -> JsonFile:
    size = config.image_size
    return {
        "image_processor_type": "CLIPImageProcessor",
        "crop_size": {"height": size, "width": size},
        "do_center_crop": True,
        "do_convert_rgb": True,
        "do_normalize": True,
        "do_rescale": True,
        "do_resize": True,
        "image_mean": [0.48145466, 0.4578275, 0.40821073],
        "image_std": [0.26862954, 0.26130258, 0.27577711],
        "resample": 3,
        "rescale_factor": 1 / 255,
        "size": {"shortest_edge": size},
    }
