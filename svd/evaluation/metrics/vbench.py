"""VBench and VBench-I2V: scores of dimensions from plain features, and how totals are made.

Dimensions here are what a network's features become; whether the network is the official one is
the extractor card's to say.

Source: Huang et al. 2024; Vchitect/VBench, revision 45e79ec, scripts/constant.py and
vbench2_beta_i2v.
"""

from collections.abc import Mapping
from typing import Final, NamedTuple

from jaxtyping import Float, UInt8
from torch import Tensor
from torch.nn import functional

from svd.errors import ConfigError
from svd.evaluation.metrics.temporal import flicker


class Dimension(NamedTuple):
    """How a dimension's raw score, 0..1, enters a total: (score - low) / (high - low) x weight."""

    low: float = 0.0
    high: float = 1.0
    weight: float = 1.0


class Suite(NamedTuple):
    """Two groups of dimensions and how their means make the total.

    Attributes:
        quality: Dimensions of the video alone.
        following: Dimensions of what was asked for: semantics of a prompt, or the input picture.
        following_name: What the second group is called.
        quality_share: Of the total.
    """

    quality: Mapping[str, Dimension]
    following: Mapping[str, Dimension]
    following_name: str
    quality_share: float


class Totals(NamedTuple):
    """Totals in percent; a group is None where a dimension of it is missing."""

    quality: float | None
    following: float | None
    total: float | None


_SUBJECT, _BACKGROUND = Dimension(0.1462), Dimension(0.2615)
_SMOOTHNESS, _DYNAMIC = Dimension(0.706, 0.9975), Dimension(weight=0.5)
VBENCH: Final = Suite(
    quality={
        "subject_consistency": _SUBJECT,
        "background_consistency": _BACKGROUND,
        "temporal_flickering": Dimension(0.6293),
        "motion_smoothness": _SMOOTHNESS,
        "aesthetic_quality": Dimension(),
        "imaging_quality": Dimension(),
        "dynamic_degree": _DYNAMIC,
    },
    following={
        "object_class": Dimension(),
        "multiple_objects": Dimension(),
        "human_action": Dimension(),
        "color": Dimension(),
        "spatial_relationship": Dimension(),
        "scene": Dimension(0.0, 0.8222),
        "appearance_style": Dimension(0.0009, 0.2855),
        "temporal_style": Dimension(0.0, 0.364),
        "overall_consistency": Dimension(0.0, 0.364),
    },
    following_name="Semantic",
    quality_share=4 / 5,
)
VBENCH_I2V: Final = Suite(
    quality={
        "subject_consistency": _SUBJECT,
        "background_consistency": _BACKGROUND,
        "motion_smoothness": _SMOOTHNESS,
        "dynamic_degree": _DYNAMIC,
        "aesthetic_quality": Dimension(),
        "imaging_quality": Dimension(),
    },
    following={
        "camera_motion": Dimension(weight=0.1),
        "i2v_subject": _SUBJECT,
        "i2v_background": _BACKGROUND,
    },
    following_name="I2V",
    quality_share=1 / 2,
)
SUITES: Final = {"vbench": VBENCH, "vbench-i2v": VBENCH_I2V}
# Shares of nearest frame, mean and minimum of neighbours in the I2V dimensions.
_NEAREST, _MEAN, _WORST = 0.4, 0.3, 0.3


def normalise(dimension: Dimension, score: float) -> float:
    """Return a raw score on the scale of its dimension, 0..1 but for scores beyond its ends."""
    return (score - dimension.low) / (dimension.high - dimension.low)


def totals(suite: Suite, scores: Mapping[str, float]) -> Totals:
    """Return the totals of raw dimension scores in 0..1.

    A missing dimension makes its group and the total missing. The official script counts it as 0,
    which is a number nobody should be shown.

    Raises:
        ConfigError: A score is no dimension of the suite, or is not in 0..1.
    """
    known = {**suite.quality, **suite.following}
    for name, score in scores.items():
        if name not in known:
            raise ConfigError(f"{name!r} is no dimension of this suite; known: {', '.join(known)}")
        if not 0 <= score <= 1:
            raise ConfigError(f"{name}={score}: a raw score lies in 0..1, not in percent")
    quality, following = (_group(part, scores) for part in (suite.quality, suite.following))
    if quality is None or following is None:
        return Totals(quality, following, None)
    share = suite.quality_share
    return Totals(quality, following, share * quality + (1 - share) * following)


def _group(dimensions: Mapping[str, Dimension], scores: Mapping[str, float]) -> float | None:
    if not set(dimensions) <= set(scores):
        return None
    weighted = sum(one.weight * normalise(one, scores[name]) for name, one in dimensions.items())
    return 100 * weighted / sum(one.weight for one in dimensions.values())


def temporal_flickering(frames: UInt8[Tensor, "t c H W"]) -> float:
    """Return 1 minus the mean absolute frame difference; the suite asks for static scenes."""
    return 1 - flicker(frames) / 255


def consistency(features: Float[Tensor, "t d"]) -> float:
    """Return subject or background consistency of one video, from a vector for each frame.

    The mean over frames of the cosines to the first and to the previous frame, cut off at 0. A
    suite's score is the mean of these weighted by frames: equal lengths give the plain mean.

    Raises:
        ConfigError: One frame has no neighbour.
    """
    unit = _unit(features)
    to_previous = (unit[1:] * unit[:-1]).sum(dim=1).clamp(min=0)
    to_first = (unit[1:] @ unit[0]).clamp(min=0)
    return float(((to_previous + to_first) / 2).mean())


def image_fidelity(features: Float[Tensor, "t d"], image: Float[Tensor, " d"]) -> float:
    """Return i2v_subject or i2v_background of one video: how well it keeps its input picture."""
    unit = _unit(features)
    to_image = (unit @ functional.normalize(image.double(), dim=0)).clamp(min=0)
    neighbours = (unit[1:] * unit[:-1]).sum(dim=1).clamp(min=0)
    return float(_NEAREST * to_image.max() + _MEAN * neighbours.mean() + _WORST * neighbours.min())


def interpolation_smoothness(frames: UInt8[Tensor, "t c H W"]) -> float:
    """Return 1 minus the error of guessing every odd frame as the mean of its neighbours.

    A stand-in for motion smoothness, which guesses them with a network: never under that name.

    Raises:
        ConfigError: Fewer than three frames.
    """
    if len(frames) < 3:
        raise ConfigError(f"smoothness needs 3 frames, got {len(frames)}")
    odd = frames[1 : len(frames) - 1 : 2].double()
    before, after = frames[0:-2:2].double(), frames[2::2].double()
    return 1 - float((odd - (before + after) / 2).abs().mean()) / 255


def _unit(features: Tensor) -> Tensor:
    if features.shape[0] < 2:
        raise ConfigError("consistency over time needs at least two frames")
    return functional.normalize(features.double(), dim=1)
