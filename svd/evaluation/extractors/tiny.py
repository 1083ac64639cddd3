"""Random networks of a few kilobytes: for tests and for machines without the weights.

They show that the machinery works; their numbers carry their own name, never an official one.
"""

import torch
from jaxtyping import Float, UInt8
from torch import Tensor
from torch.nn import functional

from svd.evaluation.extractors.base import ExtractorCard
from svd.evaluation.extractors.prepare import VideoInput, prepare_video
from svd.runtime.seed import torch_generator

_SEED = 20231125  # fixed for ever: other weights would be another network
_CHANNELS = 12


class TinyVideoExtractor:
    """Two random 3D convolutions; the features are the mean and spread of their answers."""

    def __init__(self, *, num_frames: int, source_frames: int) -> None:
        self.video_input = VideoInput(num_frames=num_frames, source_frames=source_frames, size=32)
        generator = torch_generator(_SEED, 3)
        self._first = torch.randn(_CHANNELS, 3, 3, 5, 5, generator=generator) / 225**0.5
        self._second = torch.randn(_CHANNELS, _CHANNELS, 3, 3, 3, generator=generator) / 324**0.5

    @property
    def card(self) -> ExtractorCard:
        """Who measures."""
        return _card("tiny-rand3d", self.video_input.describe(), 2 * _CHANNELS)

    @property
    def variant(self) -> str:
        """Network and input, as in a variant id."""
        return f"tiny-rand3d/{self.video_input.describe()}"

    @torch.inference_mode()
    def extract(self, frames: UInt8[Tensor, "b t c H W"]) -> Float[Tensor, "b d"]:
        """Return one vector a video."""
        x = functional.conv3d(
            prepare_video(frames, self.video_input), self._first, stride=(1, 2, 2)
        )
        x = functional.conv3d(functional.relu(x), self._second, stride=(1, 2, 2))
        return torch.cat([x.mean(dim=(2, 3, 4)), x.std(dim=(2, 3, 4))], dim=1)


class TinyPictureDistance:
    """Squared distance of one random convolution's answers."""

    def __init__(self) -> None:
        self._kernel = torch.randn(8, 3, 5, 5, generator=torch_generator(_SEED, 2)) / 75**0.5

    @property
    def card(self) -> ExtractorCard:
        """Who measures."""
        return _card("tiny-rand2d", "pictures at native size", 1)

    @property
    def variant(self) -> str:
        """Network and input, as in a variant id."""
        return "tiny-rand2d/native"

    @torch.inference_mode()
    def distance(
        self, pictures_a: UInt8[Tensor, "n c H W"], pictures_b: UInt8[Tensor, "n c H W"]
    ) -> Float[Tensor, " n"]:
        """Return the distance of each pair."""
        features = [
            functional.relu(functional.conv2d(pictures.float() / 127.5 - 1, self._kernel, stride=2))
            for pictures in (pictures_a, pictures_b)
        ]
        return (features[0] - features[1]).square().mean(dim=(1, 2, 3))


class TinyPictureEmbedder:
    """One random convolution; the vector is the mean and spread of its answers."""

    def __init__(self) -> None:
        self._kernel = torch.randn(16, 3, 7, 7, generator=torch_generator(_SEED, 4)) / 147**0.5

    @property
    def card(self) -> ExtractorCard:
        """Who measures."""
        return _card("tiny-rand2d-embedder", "pictures at native size", 32)

    @property
    def variant(self) -> str:
        """Network and input, as in a variant id."""
        return "tiny-rand2d-embedder/native"

    @torch.inference_mode()
    def embed(self, pictures: UInt8[Tensor, "n c H W"]) -> Float[Tensor, "n d"]:
        """Return one vector a picture."""
        answers = functional.conv2d(pictures.float() / 127.5 - 1, self._kernel, stride=2)
        answers = functional.relu(answers)
        return torch.cat([answers.mean(dim=(2, 3)), answers.std(dim=(2, 3))], dim=1)


def _card(name: str, description: str, dim: int) -> ExtractorCard:
    return ExtractorCard(
        name=name,
        kind="random",
        weights_sha256=None,
        source=f"drawn from seed {_SEED}",
        licence="Apache-2.0",
        input=f"{description}, RGB in -1..1",
        dim=dim,
        code_version="1",
    )
