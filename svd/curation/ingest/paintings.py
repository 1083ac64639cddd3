"""Pictures drawn from a seed, so that a synthetic corpus needs no network."""

import cv2
import numpy as np
from numpy.typing import NDArray

from svd.config.ingest import PaintingStyle
from svd.runtime.seed import numpy_generator

_NUM_OCTAVES = 7
_PLAIN_OCTAVES = 3  # the smallest forms of a plain picture are an eighth of its height
_OCTAVE_WEIGHT = 0.6  # of each octave of the clouds to the one before, which is twice as large
_GRAIN_STD = 14.0  # of 255; no part of a picture may be so flat that its motion cannot be seen
_MIN_LUMA, _MAX_LUMA = 80.0, 160.0  # of the mean; darker would pass for a fade through black


def paint(
    *key: int, width: int, height: int, style: PaintingStyle = "detailed"
) -> NDArray[np.uint8]:
    """Return a picture (H, W, 3).

    Args:
        key: Same key, size and style, same picture.
        width: In pixels.
        height: In pixels.
        style: "detailed" has detail at every scale and shapes with sharp edges; "plain" has a few
            large soft forms in two colours, which a small model learns to move in minutes.
    """
    generator = numpy_generator(*key)
    if style == "plain":
        return _clouds(generator, width, height, _PLAIN_OCTAVES)
    canvas = _clouds(generator, width, height, _NUM_OCTAVES)
    for _ in range(int(generator.integers(14, 28))):
        _draw_shape(canvas, generator)
    grain = _noise(generator, width, height, _NUM_OCTAVES, weight=1.0)
    wanted = float(generator.uniform(_MIN_LUMA, _MAX_LUMA))
    lit = canvas * (wanted / float(canvas.mean())) + _GRAIN_STD * grain[..., None]
    return np.asarray(np.clip(np.rint(lit), 0, 255), dtype=np.uint8)


def _clouds(
    generator: np.random.Generator, width: int, height: int, num_octaves: int
) -> NDArray[np.uint8]:
    """Return two colours mixed by noise whose large forms outweigh its small ones."""
    mix = 2.0 * _noise(generator, width, height, num_octaves, weight=_OCTAVE_WEIGHT)
    share = 1 / (1 + np.exp(-mix))[..., None]
    dark, light = generator.uniform(0, 120, 3), generator.uniform(100, 230, 3)
    return np.asarray(dark * (1 - share) + light * share, dtype=np.uint8)


def _noise(
    generator: np.random.Generator, width: int, height: int, num_octaves: int, *, weight: float
) -> NDArray[np.float32]:
    """Return fractal noise (H, W) of variance about 1."""
    total = np.zeros((height, width), np.float32)
    for octave in range(num_octaves):
        cells = 2 ** (octave + 1)
        grid = generator.standard_normal((cells + 1, cells * 2 + 1), dtype=np.float32)
        layer = cv2.resize(grid, (width, height), interpolation=cv2.INTER_CUBIC)
        total += np.float32(weight**octave) * layer
    return np.asarray(total / total.std(), dtype=np.float32)


def _draw_shape(canvas: NDArray[np.uint8], generator: np.random.Generator) -> None:
    """Draw one ellipse or polygon of a random colour onto the canvas."""
    height, width = canvas.shape[:2]
    colour = [int(value) for value in generator.integers(10, 230, 3)]
    centre = np.array([generator.uniform(0, width), generator.uniform(0, height)])
    radius = float(generator.uniform(0.04, 0.2)) * height
    if generator.random() < 0.5:
        axes = (round(radius), round(radius * float(generator.uniform(0.3, 1.0))))
        angle = float(generator.uniform(0, 180))
        middle = (int(centre[0]), int(centre[1]))
        cv2.ellipse(canvas, middle, axes, angle, 0, 360, colour, cv2.FILLED, cv2.LINE_AA)
    else:
        turns = np.sort(generator.uniform(0, 2 * np.pi, int(generator.integers(3, 7))))
        corners = centre + radius * np.stack([np.cos(turns), np.sin(turns)], axis=1)
        cv2.fillPoly(canvas, [corners.round().astype(np.int32)], colour, cv2.LINE_AA)
