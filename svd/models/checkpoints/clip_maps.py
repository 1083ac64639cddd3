"""OpenCLIP's towers in transformers' names; some tensors are split, joined or transposed."""

import re
from collections.abc import Mapping

from svd.models.checkpoints.tensor_file import LazyTensor

_BLOCK = {
    "ln_1": "layer_norm1",
    "ln_2": "layer_norm2",
    "mlp.c_fc": "mlp.fc1",
    "mlp.c_proj": "mlp.fc2",
    "attn.out_proj": "self_attn.out_proj",
}
_VISION = {
    "class_embedding": "vision_model.embeddings.class_embedding",
    "conv1.weight": "vision_model.embeddings.patch_embedding.weight",
    "positional_embedding": "vision_model.embeddings.position_embedding.weight",
    "ln_pre.weight": "vision_model.pre_layrnorm.weight",  # sic
    "ln_pre.bias": "vision_model.pre_layrnorm.bias",
    "ln_post.weight": "vision_model.post_layernorm.weight",
    "ln_post.bias": "vision_model.post_layernorm.bias",
}
_TEXT = {
    "token_embedding.weight": "text_model.embeddings.token_embedding.weight",
    "positional_embedding": "text_model.embeddings.position_embedding.weight",
    "ln_final.weight": "text_model.final_layer_norm.weight",
    "ln_final.bias": "text_model.final_layer_norm.bias",
}
_PROJECTION = "visual_projection.weight"
_UNREAD = re.compile(r".*\.position_ids")  # a constant that older files hold
_QKV = ("q", "k", "v")

Tensors = Mapping[str, LazyTensor]


def vision_to_transformers(tensors: Tensors) -> dict[str, LazyTensor]:
    """Return the vision tower as CLIPVisionModelWithProjection's tensors."""
    return _to_transformers(tensors, _VISION, "vision_model")


def vision_from_transformers(tensors: Tensors) -> dict[str, LazyTensor]:
    """Return CLIPVisionModelWithProjection's tensors by OpenCLIP's names.

    Tensors that are not the tower's keep their names, for the check that follows to list.
    """
    return _from_transformers(tensors, _VISION, "vision_model")


def text_from_transformers(tensors: Tensors) -> dict[str, LazyTensor]:
    """Return CLIPTextModel's tensors by OpenCLIP's names.

    Tensors that are not the tower's keep their names, for the check that follows to list.
    """
    return _from_transformers(tensors, _TEXT, "text_model")


def _to_transformers(tensors: Tensors, ends: Mapping[str, str], root: str) -> dict[str, LazyTensor]:
    result: dict[str, LazyTensor] = {}
    for name, tensor in tensors.items():
        match = re.fullmatch(r"transformer\.resblocks\.(\d+)\.(.+)\.(weight|bias)", name)
        joined = re.fullmatch(r"transformer\.resblocks\.(\d+)\.attn\.in_proj_(weight|bias)", name)
        if joined is not None:
            layer = f"{root}.encoder.layers.{joined[1]}.self_attn"
            for index, letter in enumerate(_QKV):
                result[f"{layer}.{letter}_proj.{joined[2]}"] = tensor.part(index, 3)
        elif match is not None:
            layer = f"{root}.encoder.layers.{match[1]}.{_BLOCK[match[2]]}"
            result[f"{layer}.{match[3]}"] = tensor
        elif name == "proj":
            result[_PROJECTION] = tensor.transposed()
        else:
            result[ends[name]] = tensor
    return result


def _from_transformers(
    tensors: Tensors, ends: Mapping[str, str], root: str
) -> dict[str, LazyTensor]:
    to_ours = {theirs: ours for ours, theirs in ends.items()}
    block_to_ours = {theirs: ours for ours, theirs in _BLOCK.items()}
    layer_name = re.compile(rf"{root}\.encoder\.layers\.(\d+)\.(.+)\.(weight|bias)")
    result: dict[str, LazyTensor] = {}
    for name, tensor in tensors.items():
        match = layer_name.fullmatch(name)
        if _UNREAD.fullmatch(name):
            continue
        if match is not None and match[2] == "self_attn.q_proj":
            parts = [tensors.get(name.replace("q_proj", f"{letter}_proj")) for letter in _QKV]
            present = [part for part in parts if part is not None]
            ours = f"transformer.resblocks.{match[1]}.attn.in_proj_{match[3]}"
            result[ours] = LazyTensor.joined(present)
        elif match is not None and match[2] in block_to_ours:
            result[f"transformer.resblocks.{match[1]}.{block_to_ours[match[2]]}.{match[3]}"] = (
                tensor
            )
        elif name == _PROJECTION:
            result["proj"] = tensor.transposed()
        elif match is None or match[2] not in {"self_attn.k_proj", "self_attn.v_proj"}:
            result[to_ours.get(name, name)] = tensor
    return result
