"""Physics-IQ: where, when and how much a scene moves, against two real takes of it.

The benchmark's own difference between two takes of one scene (physical variance) is the best a
model can be expected to reach, and scales the score to 100.

Source: Motamed et al. 2025; google-deepmind/physics-IQ-benchmark, revision e457754.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import cv2
import numpy as np
from jaxtyping import Bool, Float, UInt8
from numpy import ndarray

from svd.errors import ConfigError

SCORED_S = 5  # seconds after the switch frame that are scored
SHRINK = 4  # scored pictures are a quarter of the real ones' size, each way
_BLUR_TAPS, _KERNEL = (5, 5), np.ones((5, 5), np.uint8)  # pixels
_RUNNING_WEIGHT = 0.3  # of a new frame in the running mean
_MOVED = 10  # grey levels from the running mean
_DIGITS, _SPATIAL_DIGITS = 4, 5  # the official code rounds on the way; 5 for the spatial variance

Frames = UInt8[ndarray, "t H W 3"]
Masks = Bool[ndarray, "t H W"]


class Motion(NamedTuple):
    """The four numbers of one pair of videos.

    Attributes:
        mse: Mean squared error of each frame, pixels in 0..1.
        spatiotemporal_iou: Overlap of the moving regions in each frame: where and when.
        spatial_iou: Overlap of all that ever moved: where.
        weighted_spatial_iou: Overlap weighted by how long each pixel moved: where and how much.
    """

    mse: tuple[float, ...]
    spatiotemporal_iou: tuple[float, ...]
    spatial_iou: float
    weighted_spatial_iou: float


class View(NamedTuple):
    """One camera's view of one scenario: the model against take 1, and take 1 against take 2."""

    scenario: str
    generated: Motion
    variance: Motion


class PhysicsIQ(NamedTuple):
    """The score, 0..100, and what it is made of.

    Attributes:
        score: Rounded to two decimals, as published.
        generated: Means over scenarios: MSE, spatiotemporal, spatial, weighted spatial.
        variance: The same of take 1 against take 2.
        num_scenarios: Behind the means.
    """

    score: float
    generated: tuple[float, float, float, float]
    variance: tuple[float, float, float, float]
    num_scenarios: int


def motion_masks(frames: Frames) -> Masks:
    """Return which pixels of each frame differ from the running mean; none do in the first."""
    masks = np.zeros(frames.shape[:3], dtype=bool)
    mean: ndarray | None = None
    for index, frame in enumerate(frames):
        grey = cv2.GaussianBlur(cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY), _BLUR_TAPS, 0)
        if mean is None:
            mean = grey.astype(np.float64)
            continue
        cv2.accumulateWeighted(grey, mean, _RUNNING_WEIGHT)
        difference = cv2.absdiff(grey, cv2.convertScaleAbs(mean))
        moved = np.where(difference > _MOVED, 255, 0).astype(np.uint8)
        opened = cv2.morphologyEx(moved, cv2.MORPH_OPEN, _KERNEL)
        masks[index] = cv2.morphologyEx(opened, cv2.MORPH_CLOSE, _KERNEL) > 0
    return masks


def blend_to_rate(frames: Frames, num_frames: int) -> Frames:
    """Return the same time in another number of frames, each blended from its two neighbours.

    First and last frame stay; fractions of a grey level are cut off, as in the original.
    """
    if num_frames == len(frames):
        return frames
    places = np.linspace(0, len(frames) - 1, num_frames)
    before = places.astype(int)
    after = np.minimum(before + 1, len(frames) - 1)
    share = (places - before).astype(np.float32)[:, None, None, None]
    blended: ndarray = (1 - share) * frames[before] + share * frames[after]
    return blended.astype(np.uint8)


def compare_motion(frames_a: Frames, frames_b: Frames, masks_a: Masks, masks_b: Masks) -> Motion:
    """Return the four numbers of two videos of one size and length.

    Raises:
        ConfigError: Lengths or sizes differ.
    """
    shapes = {frames_a.shape[:3], frames_b.shape[:3], masks_a.shape, masks_b.shape}
    if len(shapes) > 1:
        raise ConfigError(f"Physics-IQ compares videos of one length and size, got {shapes}")
    pairs = zip(frames_a, frames_b, strict=True)
    return Motion(
        mse=tuple(float(np.mean((a / 255.0 - b / 255.0) ** 2)) for a, b in pairs),
        spatiotemporal_iou=tuple(_iou(a, b) for a, b in zip(masks_a, masks_b, strict=True)),
        spatial_iou=_iou(np.any(masks_a, axis=0), np.any(masks_b, axis=0)),
        weighted_spatial_iou=_weighted_iou(masks_a.mean(axis=0), masks_b.mean(axis=0)),
    )


def physics_iq_score(views: Sequence[View]) -> PhysicsIQ:
    """Return the score of a model from all views of all scenarios, rounding where it is official.

    Raises:
        ConfigError: There are no views, or the real takes never move.
    """
    if not views:
        raise ConfigError("Physics-IQ needs at least one view")
    generated = _per_scenario(views)
    variance = _variance(views)
    if min(variance[1:]) <= 0:
        raise ConfigError(f"the real takes share no motion (variances {variance}): wrong videos?")
    ratios = [ours / real for ours, real in zip(generated[1:], variance[1:], strict=True)]
    raw = sum(ratios) / 3 - (generated[0] - variance[0])
    score = round(float(np.clip(100 * raw, 0, 100)), 2)
    return PhysicsIQ(score, generated, variance, len({view.scenario for view in views}))


def _per_scenario(views: Sequence[View]) -> tuple[float, float, float, float]:
    """Return means of each scenario's views and frames, averaged over scenarios."""
    by_scenario: dict[str, list[Motion]] = {}
    for view in views:
        by_scenario.setdefault(view.scenario, []).append(view.generated)
    groups = by_scenario.values()
    return (
        _mean(_mean(_rounded([one.mse for one in group])) for group in groups),
        _mean(_mean(_rounded([one.spatiotemporal_iou for one in group])) for group in groups),
        _mean(_mean(one.spatial_iou for one in group) for group in groups),
        _mean(_mean(one.weighted_spatial_iou for one in group) for group in groups),
    )


def _variance(views: Sequence[View]) -> tuple[float, float, float, float]:
    takes = [view.variance for view in views]
    return (
        round(_mean(_mean(_rounded([take.mse])) for take in takes), _DIGITS),
        round(_mean(_mean(_rounded([take.spatiotemporal_iou])) for take in takes), _DIGITS),
        round(_mean(take.spatial_iou for take in takes), _SPATIAL_DIGITS),
        round(_mean(take.weighted_spatial_iou for take in takes), _DIGITS),
    )


def _rounded(lists: Sequence[Sequence[float]]) -> list[float]:
    return [round(value, _DIGITS) for values in lists for value in values]


def _mean(values: Iterable[float]) -> float:
    return float(np.mean(list(values)))


def _iou(a: Bool[ndarray, "H W"], b: Bool[ndarray, "H W"]) -> float:
    union = int((a | b).sum())
    return int((a & b).sum()) / union if union else 1.0


def _weighted_iou(a: Float[ndarray, "H W"], b: Float[ndarray, "H W"]) -> float:
    union = float(np.maximum(a, b).sum())
    return float(np.minimum(a, b).sum()) / union if union else 1.0
