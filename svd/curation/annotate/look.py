"""How a clip looks: brightness, contrast, saturation, sharpness, and the names of its colours."""

from collections import Counter

import cv2
import numpy as np

from svd.curation.annotate.scoring import ClipView, Measured
from svd.types.annotation import Scorer

_BLACK_VALUE = 40  # HSV value below which a pixel has no colour to name, of 255
_WHITE_VALUE = 205
_GRAY_SATURATION = 40  # of 255
_BROWN_VALUE = 150  # dark orange is called brown
# Upper ends of OpenCV's hue (degrees / 2) for each name, as English speakers divide the circle.
_HUES = (
    (8, "red"),
    (20, "orange"),
    (34, "yellow"),
    (80, "green"),
    (97, "turquoise"),
    (128, "blue"),
    (145, "purple"),
    (170, "pink"),
    (180, "red"),
)
_COLOURS = ("black", "gray", "white", "brown", *dict.fromkeys(name for _, name in _HUES))
_SMALL = (64, 36)  # px; colours are counted on a small picture


class LookAnnotator:
    """Scores of the picture itself, as means over the sampled frames."""

    @property
    def scorer(self) -> Scorer:
        """Name, version and settings."""
        return Scorer(name="look", version="1", settings={})

    def measure(self, view: ClipView) -> Measured:
        """Return brightness, contrast, saturation (all 0..1), sharpness and blackness."""
        names = ("brightness", "contrast", "saturation", "sharpness")
        if not view.pictures:
            return Measured(missing=dict.fromkeys(names, "no sampled frame"))
        means = np.array([_look(picture) for picture in view.pictures]).mean(axis=0)
        return Measured(scores=dict(zip(names, means.tolist(), strict=True)))


def _look(picture: np.ndarray) -> tuple[float, float, float, float]:
    gray = cv2.cvtColor(picture, cv2.COLOR_BGR2GRAY)
    saturation = cv2.cvtColor(picture, cv2.COLOR_BGR2HSV)[..., 1]
    edges = cv2.Laplacian(gray, cv2.CV_32F)
    return (
        float(gray.mean()) / 255,
        float(gray.std()) / 255,
        float(saturation.mean()) / 255,
        float(edges.var()),
    )


def colour_shares(pictures: list[np.ndarray]) -> dict[str, float]:
    """Return the share of pixels of each named colour, largest first, ties by name."""
    counts: Counter[str] = Counter()
    for picture in pictures:
        small = cv2.resize(picture, _SMALL, interpolation=cv2.INTER_AREA)
        numbers = np.bincount(_colour_numbers(small).ravel(), minlength=len(_COLOURS))
        counts.update(dict(zip(_COLOURS, numbers.tolist(), strict=True)))
    total = max(1, sum(counts.values()))
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return {name: count / total for name, count in ordered if count}


def _colour_numbers(picture: np.ndarray) -> np.ndarray:
    hue, saturation, value = cv2.split(cv2.cvtColor(picture, cv2.COLOR_BGR2HSV))
    number = np.zeros(hue.shape, dtype=np.int64)
    lower = 0
    for upper, name in _HUES:
        number[(hue >= lower) & (hue < upper)] = _COLOURS.index(name)
        lower = upper
    is_warm = (hue >= _HUES[0][0]) & (hue < _HUES[1][0])
    number[is_warm & (value < _BROWN_VALUE)] = _COLOURS.index("brown")
    number[saturation < _GRAY_SATURATION] = _COLOURS.index("gray")
    number[(saturation < _GRAY_SATURATION) & (value >= _WHITE_VALUE)] = _COLOURS.index("white")
    number[value < _BLACK_VALUE] = _COLOURS.index("black")
    return number
