"""Per-clip metrics of videos that have their own truth: PSNR, SSIM, LPIPS, CLIP-S, flicker."""

from collections.abc import Callable, Mapping, Sequence
from typing import Final, Literal, NamedTuple

import torch
from jaxtyping import UInt8
from torch import Tensor

from svd.evaluation.extractors.base import ExtractorCard, metric_name
from svd.evaluation.measures.base import RunFacts
from svd.evaluation.metrics.embedding import clip_similarity
from svd.evaluation.metrics.image import psnr_per_clip, psnr_per_frame, ssim_per_frame
from svd.evaluation.metrics.temporal import energy_ratio, flicker
from svd.evaluation.protocols.base import MeasuredClip, Reduced
from svd.evaluation.protocols.networks import Networks
from svd.evaluation.protocols.run import ProtocolRun
from svd.types.artifact import MetricRecord
from svd.types.protocol import GroupValue

Frames = UInt8[Tensor, "t c H W"]
Likeness = Literal["psnr", "psnr-clip", "ssim", "lpips", "clip-s", "flicker", "energy"]
_CHUNK = 8  # frames that a picture network sees at once


class Metric(NamedTuple):
    """A per-clip metric.

    Attributes:
        name: Official name; what is printed if its network is the official one.
        generic: Bare name of the formula, for other networks.
        higher_is_better: Direction.
        part: First part of the variant id.
        card: Of its network, or None.
        network: Variant of its network, or "".
        score: Of a generated video and its truth.
    """

    name: str
    generic: str
    higher_is_better: bool
    part: str
    card: Callable[[Networks], ExtractorCard | None]
    network: Callable[[Networks], str]
    score: Callable[[Frames, Frames, Networks], float]

    def printed(self, networks: Networks) -> str:
        """Return the name under which its number may be printed."""
        card = self.card(networks)
        return self.name if card is None else metric_name(self.name, self.generic, card)

    def variant(self, networks: Networks) -> str:
        """Return the beginning of its variant id."""
        return self.network(networks) or self.part


def likeness_scores(
    metrics: Sequence[Likeness], generated: Frames, real: Frames, networks: Networks
) -> dict[str, float]:
    """Return the value of each metric under its printed name."""
    chosen = [LIKENESS[name] for name in metrics]
    return {each.printed(networks): each.score(generated, real, networks) for each in chosen}


def likeness_records(
    metrics: Sequence[Likeness],
    clips: Sequence[MeasuredClip],
    run: ProtocolRun,
    facts: RunFacts,
    *,
    where: str,
    by_group: bool,
) -> Reduced:
    """Return means over clips, and over the clips of each group if asked for."""
    records: list[MetricRecord] = []
    groups: list[GroupValue] = []
    directions: dict[str, bool] = {}
    for each in (LIKENESS[name] for name in metrics):
        name = each.printed(run.networks)
        directions[name] = each.higher_is_better
        values = torch.tensor([one.scores[name] for one in clips], dtype=torch.float64)
        records.append(
            facts.mean_record(
                name,
                values,
                variant=f"{each.variant(run.networks)}/{where}",
                higher_is_better=each.higher_is_better,
                card=each.card(run.networks),
            )
        )
        if by_group:
            groups += _by_group(name, clips)
    return Reduced(tuple(records), directions, groups=tuple(groups))


def _by_group(name: str, clips: Sequence[MeasuredClip]) -> list[GroupValue]:
    values: dict[str, list[float]] = {}
    for one in clips:
        values.setdefault(one.clip.group, []).append(one.scores[name])
    return [
        GroupValue(metric=name, group=group, value=sum(some) / len(some), num=len(some))
        for group, some in sorted(values.items())
    ]


def _no_card(_: Networks) -> ExtractorCard | None:
    return None


def _no_network(_: Networks) -> str:
    return ""


def _lpips(generated: Frames, real: Frames, networks: Networks) -> float:
    distance = networks.distance()
    pairs = zip(torch.split(generated, _CHUNK), torch.split(real, _CHUNK), strict=True)
    return float(torch.cat([distance.distance(a, b) for a, b in pairs]).double().mean())


def _clip_s(generated: Frames, real: Frames, networks: Networks) -> float:
    embedder = networks.embedder()
    pairs = zip(torch.split(generated, _CHUNK), torch.split(real, _CHUNK), strict=True)
    cosines = [clip_similarity(embedder.embed(a), embedder.embed(b)) for a, b in pairs]
    return float(torch.cat(cosines).mean())


LIKENESS: Final[Mapping[Likeness, Metric]] = {
    "psnr": Metric(
        "PSNR",
        "PSNR",
        True,
        "psnr/mean-of-frames",
        _no_card,
        _no_network,
        lambda a, b, _: float(psnr_per_frame(a, b).mean()),
    ),
    "psnr-clip": Metric(
        "PSNR, per clip",
        "PSNR, per clip",
        True,
        "psnr/of-clip-mse",
        _no_card,
        _no_network,
        lambda a, b, _: float(psnr_per_clip(a, b)),
    ),
    "ssim": Metric(
        "SSIM",
        "SSIM",
        True,
        "ssim/gauss11-1.5/valid",
        _no_card,
        _no_network,
        lambda a, b, _: float(ssim_per_frame(a, b).mean()),
    ),
    "lpips": Metric(
        "LPIPS",
        "perceptual distance",
        False,
        "lpips",
        lambda networks: networks.distance().card,
        lambda networks: networks.distance().variant,
        _lpips,
    ),
    "clip-s": Metric(
        "CLIP-S",
        "cosine",
        True,
        "clip-s",
        lambda networks: networks.embedder().card,
        lambda networks: networks.embedder().variant,
        _clip_s,
    ),
    "flicker": Metric(
        "flicker",
        "flicker",
        False,
        "mean-abs-frame-difference",
        _no_card,
        _no_network,
        lambda a, _, __: flicker(a),
    ),
    "energy": Metric(
        "motion energy, sample over real",
        "motion energy, sample over real",
        True,
        "frame-difference-energy",
        _no_card,
        _no_network,
        lambda a, b, _: energy_ratio(a, b),
    ),
}
