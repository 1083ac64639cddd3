"""What each tensor is called in diffusers and transformers; our names are the release's.

Every function maps one of our names to the foreign one. The maps are injective, so that the way
back is the inverse of the map over a module's names (`inverse`).
Source: the release's modules (Stability-AI/generative-models) and diffusers' SVD pipeline,
compared tensor by tensor.
"""

import re
from collections.abc import Callable, Iterable

from svd.errors import CheckpointError

_RES_PARTS = {
    "in_layers.0": "norm1",
    "in_layers.2": "conv1",
    "emb_layers.1": "time_emb_proj",
    "out_layers.0": "norm2",
    "out_layers.3": "conv2",
    "skip_connection": "conv_shortcut",
}
_UNET_ENDS = {
    "time_embed.0": "time_embedding.linear_1",
    "time_embed.2": "time_embedding.linear_2",
    "label_emb.0.0": "add_embedding.linear_1",
    "label_emb.0.2": "add_embedding.linear_2",
    "input_blocks.0.0": "conv_in",
    "out.0": "conv_norm_out",
    "out.2": "conv_out",
}


def inverse(names: Iterable[str], to_foreign: Callable[[str], str]) -> dict[str, str]:
    """Return foreign name -> our name for all our names.

    Raises:
        CheckpointError: Two of our names map to one, so that the way back is not defined.
    """
    result: dict[str, str] = {}
    for name in names:
        foreign = to_foreign(name)
        if foreign in result:
            raise CheckpointError(f"{name} and {result[foreign]} are both called {foreign}")
        result[foreign] = name
    return result


def _unknown(name: str, part: str) -> CheckpointError:
    return CheckpointError(f"{name} is no tensor of the {part}")


def _with_ends(name: str, ends: dict[str, str]) -> str | None:
    module, _, leaf = name.rpartition(".")
    return f"{ends[module]}.{leaf}" if module in ends else None


def unet_to_diffusers(name: str, *, num_res_blocks: int = 2) -> str:
    """Return the name in diffusers' UNetSpatioTemporalConditionModel.

    Raises:
        CheckpointError: The name is none of the UNet's.
    """
    end = _with_ends(name, _UNET_ENDS)
    if end is not None:
        return end
    match = re.fullmatch(
        r"(input_blocks|output_blocks|middle_block)\.(\d+)\.(?:(\d+)\.)?(.+)", name
    )
    if match is None:
        raise _unknown(name, "UNet")
    part, index, slot, rest = match[1], int(match[2]), match[3], match[4]
    if part == "middle_block":
        if slot is not None:  # the regular expression took the first index of the rest
            rest = f"{slot}.{rest}"
        return _middle_to_diffusers(index, rest)
    if slot is None:
        raise _unknown(name, "UNet")
    per_level = num_res_blocks + 1
    if part == "input_blocks":
        level, position = divmod(index - 1, per_level)
        if rest.startswith("op."):
            return f"down_blocks.{level}.downsamplers.0.conv.{rest.removeprefix('op.')}"
        return f"down_blocks.{level}.{_slot_to_diffusers(int(slot), position, rest)}"
    level, position = divmod(index, per_level)
    if rest.startswith("conv."):
        return f"up_blocks.{level}.upsamplers.0.{rest}"
    return f"up_blocks.{level}.{_slot_to_diffusers(int(slot), position, rest)}"


def _slot_to_diffusers(slot: int, position: int, rest: str) -> str:
    if slot == 0:
        return f"resnets.{position}.{_res_to_diffusers(rest)}"
    return f"attentions.{position}.{_transformer_to_diffusers(rest)}"


def _middle_to_diffusers(index: int, rest: str) -> str:
    if index == 1:
        return f"mid_block.attentions.0.{_transformer_to_diffusers(rest)}"
    return f"mid_block.resnets.{index // 2}.{_res_to_diffusers(rest)}"


def _res_to_diffusers(rest: str) -> str:
    if rest.startswith("time_mixer."):
        return rest
    block = "spatial_res_block"
    if rest.startswith("time_stack."):
        block, rest = "temporal_res_block", rest.removeprefix("time_stack.")
    part = _with_ends(rest, _RES_PARTS)
    if part is None:
        raise _unknown(rest, "residual block")
    return f"{block}.{part}"


def _transformer_to_diffusers(rest: str) -> str:
    rest = re.sub(r"^time_stack\.", "temporal_transformer_blocks.", rest)
    return re.sub(
        r"^time_pos_embed\.([02])\.",
        lambda match: f"time_pos_embed.linear_{int(match[1]) // 2 + 1}.",
        rest,
    )


def autoencoder_to_diffusers(name: str, *, num_levels: int = 4) -> str:
    """Return the name of a tensor of our Autoencoder in diffusers' AutoencoderKL.

    The encoder and quant_conv are called the same in AutoencoderKLTemporalDecoder.

    Raises:
        CheckpointError: The name is none of the autoencoder's.
    """
    if name.startswith(("quant_conv.", "post_quant_conv.")):
        return name
    match = re.fullmatch(r"(encoder\.down|decoder\.up)\.(\d+)\.(?:block\.(\d+)|\w+)\.(.+)", name)
    if match is None:
        return _vae_rest_to_diffusers(name)
    is_encoder = match[1] == "encoder.down"
    level = int(match[2]) if is_encoder else num_levels - 1 - int(match[2])
    if match[3] is None:
        layer = "downsamplers.0" if is_encoder else "upsamplers.0"
        return f"{match[1]}_blocks.{level}.{layer}.{match[4]}"
    rest = match[4].replace("nin_shortcut", "conv_shortcut")
    return f"{match[1]}_blocks.{level}.resnets.{match[3]}.{rest}"


def temporal_decoder_to_diffusers(name: str, *, num_levels: int = 4) -> str:
    """Return the name of a tensor of our TemporalDecoder in diffusers' VAE.

    Raises:
        CheckpointError: The name is none of them.
    """
    if name.startswith("conv_out.time_mix_conv."):
        return name.replace("conv_out.time_mix_conv", "decoder.time_conv_out")
    match = re.fullmatch(r"up\.(\d+)\.(block\.(\d+)|upsample)\.(.+)", name)
    if match is not None:
        level = num_levels - 1 - int(match[1])
        if match[2] == "upsample":
            return f"decoder.up_blocks.{level}.upsamplers.0.{match[4]}"
        return f"decoder.up_blocks.{level}.resnets.{match[3]}.{_video_block_to_diffusers(match[4])}"
    match = re.fullmatch(r"mid\.block_([12])\.(.+)", name)
    if match is not None:
        rest = _video_block_to_diffusers(match[2])
        return f"decoder.mid_block.resnets.{int(match[1]) - 1}.{rest}"
    return _vae_rest_to_diffusers(f"decoder.{name}")


def _video_block_to_diffusers(rest: str) -> str:
    if rest == "mix_factor":
        return "time_mixer.mix_factor"
    if rest.startswith("time_stack."):
        return _res_to_diffusers(rest)
    return f"spatial_res_block.{rest.replace('nin_shortcut', 'conv_shortcut')}"


def _vae_rest_to_diffusers(name: str) -> str:
    """Map the middle and the ends, which encoder and decoder share."""
    coder, _, rest = name.partition(".")
    match = re.fullmatch(r"mid\.block_([12])\.(.+)", rest)
    if match is not None:
        return f"{coder}.mid_block.resnets.{int(match[1]) - 1}.{match[2]}"
    match = re.fullmatch(r"mid\.attn_1\.(norm|q|k|v|proj_out)\.(weight|bias)", rest)
    if match is not None:
        layer = {"norm": "group_norm", "proj_out": "to_out.0"}.get(match[1], f"to_{match[1]}")
        return f"{coder}.mid_block.attentions.0.{layer}.{match[2]}"
    match = re.fullmatch(r"(conv_in|conv_out|norm_out)\.(weight|bias)", rest)
    if match is None:
        raise _unknown(name, "VAE")
    layer = "conv_norm_out" if match[1] == "norm_out" else match[1]
    return f"{coder}.{layer}.{match[2]}"
