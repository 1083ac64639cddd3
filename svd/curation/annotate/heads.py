"""Small published heads that read a CLIP image embedding: aesthetics, watermark, NSFW.

All are affine. Each is known by the hash of its file, whatever the file is called: a head of
unknown origin is not read, and one trained for another embedding would give nonsense.
"""

import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, NamedTuple

import numpy as np
from jaxtyping import Float32

from svd.config.annotation_models import HeadName

Purpose = Literal["aesthetic", "watermark", "nsfw"]


class Tower(NamedTuple):
    """The sizes by which the image tower of an OpenAI CLIP is known."""

    name: str
    embed_dim: int
    width: int
    layers: int
    patch_size: int


VIT_B_32: Final = Tower("OpenAI ViT-B/32", embed_dim=512, width=768, layers=12, patch_size=32)
VIT_L_14: Final = Tower("OpenAI ViT-L/14", embed_dim=768, width=1024, layers=24, patch_size=14)


class PublishedHead(NamedTuple):
    """Where a head is published and what it reads."""

    name: HeadName
    purpose: Purpose
    tower: Tower  # whose embedding it reads
    reads_unit_length: bool  # the embedding is normalised first
    is_probability: bool  # a sigmoid follows
    url: str  # at a pinned commit
    sha256: str  # of the file
    size_bytes: int
    licence: str  # SPDX


_LAION = (
    "https://github.com/LAION-AI/aesthetic-predictor/raw/6d122adad522ab246644d9dc1c6d7a3810ee255f"
)
_IMPROVED = (
    "https://github.com/christophschuhmann/improved-aesthetic-predictor/raw/"
    "6934dd81792f086e613a121dbce43082cb8be85e"
)
_STABILITY = (
    "https://github.com/Stability-AI/generative-models/raw/"
    "0ad7de9a5cb53fd63d6d30a4f385485e72e08597/scripts/util/detection"
)
# Sources: the repositories' own code for normalisation and sigmoid.
PUBLISHED: Final[Mapping[HeadName, PublishedHead]] = {
    head.name: head
    for head in (
        PublishedHead(
            "laion-v1-b32",
            "aesthetic",
            VIT_B_32,
            reads_unit_length=True,
            is_probability=False,
            url=f"{_LAION}/sa_0_4_vit_b_32_linear.pth",
            sha256="c7b14cead230694acc7b9447974d3cad78003c72da032e402a303b6c2429e85f",
            size_bytes=3047,
            licence="MIT",
        ),
        PublishedHead(
            "laion-v1-l14",
            "aesthetic",
            VIT_L_14,
            reads_unit_length=True,
            is_probability=False,
            url=f"{_LAION}/sa_0_4_vit_l_14_linear.pth",
            sha256="2cd4e60f4f24ae3bcd57b847b13c1f3ba27edc28cc1a7f9ce74ee9f421243cba",
            size_bytes=4071,
            licence="MIT",
        ),
        PublishedHead(
            "improved-aesthetic-l14",
            "aesthetic",
            VIT_L_14,
            reads_unit_length=True,
            is_probability=False,
            url=f"{_IMPROVED}/sac+logos+ava1-l14-linearMSE.pth",
            sha256="21dd590f3ccdc646f0d53120778b296013b096a035a2718c9cb0d511bff0f1e0",
            size_bytes=3714759,
            licence="Apache-2.0",
        ),
        PublishedHead(
            "watermark-l14",
            "watermark",
            VIT_L_14,
            reads_unit_length=False,
            is_probability=True,
            url=f"{_STABILITY}/w_head_v1.npz",
            sha256="b6af23687aa347073e692025f405ccc48c14aadc5dbe775b3312041006d496d1",
            size_bytes=3588,
            licence="MIT",
        ),
        PublishedHead(
            "nsfw-l14",
            "nsfw",
            VIT_L_14,
            reads_unit_length=False,
            is_probability=True,
            url=f"{_STABILITY}/p_head_v1.npz",
            sha256="b4653a64d5f85d8d4c5f6c5ec175f1c5c5e37db8f38d39b2ed8b5979da7fdc76",
            size_bytes=3588,
            licence="MIT",
        ),
    )
}


@dataclass(frozen=True, slots=True)
class Head:
    """A head, folded to one weight vector."""

    published: PublishedHead
    weight: Float32[np.ndarray, " d"]
    bias: float

    def score(self, embeddings: Float32[np.ndarray, "n d"]) -> Float32[np.ndarray, " n"]:
        """Return one score per embedding; embeddings come as CLIP gives them, not normalised.

        Aesthetic scores lie around 1..10 and are not bounded; the others are probabilities.
        """
        read = embeddings
        if self.published.reads_unit_length:
            read = embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)
        values = read @ self.weight + np.float32(self.bias)
        if self.published.is_probability:
            values = 1 / (1 + np.exp(-values))
        result: np.ndarray = values.astype(np.float32)
        return result


def load_head(published: PublishedHead, path: Path) -> Head:
    """Read a head's file, whose hash has been checked."""
    layers = _read_layers(path)
    weight = np.eye(layers[0][0].shape[1])
    bias = np.zeros(layers[0][0].shape[1])
    for layer_weight, layer_bias in layers:  # no activations between them: they multiply out
        weight = layer_weight.astype(np.float64) @ weight
        bias = layer_weight.astype(np.float64) @ bias + layer_bias
    return Head(published=published, weight=weight[0].astype(np.float32), bias=float(bias[0]))


def _read_layers(path: Path) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return (weight, bias) of each layer."""
    data = path.read_bytes()
    if data[:2] == b"PK" and b".npy" in data:  # numpy's archive; torch's holds no .npy
        with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
            return [(np.atleast_2d(arrays["weights"]), arrays["biases"].reshape(1))]
    import torch

    state = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    prefixes = {name.rpartition(".")[0] for name in state}
    dotted = [
        f"{prefix}." if prefix else ""
        for prefix in sorted(prefixes, key=lambda name: (len(name), name))
    ]
    return [(state[f"{dot}weight"].numpy(), state[f"{dot}bias"].numpy()) for dot in dotted]
