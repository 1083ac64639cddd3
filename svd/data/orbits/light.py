"""The light around an object: a panorama from a file, or a drawn sky with soft lamps."""

from pathlib import Path

import numpy as np
from jaxtyping import Float32
from numpy import ndarray

from svd.errors import MediaError, MissingInputError

_ROWS, _COLUMNS = 32, 64  # of a drawn panorama; a soft light needs no more
_LAMPS = (1, 4)  # how many, at least and at most
_MEAN = 1.0  # radiance over the sphere after scaling, so that exposures are alike
Panorama = Float32[ndarray, "h w 3"]
SUFFIXES = frozenset({".exr", ".hdr"})


def draw_panorama(generator: np.random.Generator) -> Panorama:
    """Return a sky that goes from one pale colour to another, and a few soft lamps, in linear RGB.

    Row 0 is straight up. The mean over the sphere is 1.
    """
    colatitude = (np.arange(_ROWS) + 0.5) * np.pi / _ROWS
    longitude = (np.arange(_COLUMNS) + 0.5) * 2 * np.pi / _COLUMNS
    above, below = 0.6 + 0.4 * generator.random(3), 0.2 + 0.3 * generator.random(3)
    height = (1 + np.cos(colatitude))[:, None, None] / 2
    light = np.broadcast_to(height * above + (1 - height) * below, (_ROWS, _COLUMNS, 3)).copy()
    for _ in range(int(generator.integers(_LAMPS[0], _LAMPS[1] + 1))):
        where = np.arccos(generator.uniform(-0.1, 0.95)), generator.uniform(0, 2 * np.pi)
        cosine = np.cos(colatitude)[:, None] * np.cos(where[0]) + np.sin(colatitude)[
            :, None
        ] * np.sin(where[0]) * np.cos(longitude[None] - where[1])
        sharpness = generator.uniform(4, 40)
        tint = 0.8 + 0.2 * generator.random(3)
        lobe = np.exp(sharpness * (cosine - 1))
        light += generator.uniform(2, 8) * lobe[..., None] * tint
    return _scaled(light)


def read_panorama(path: Path) -> Panorama:
    """Read an equirectangular panorama, scaled to a mean of 1.

    Raises:
        MissingInputError: No such file.
        MediaError: It is no picture, or holds no light.
    """
    import cv2

    if not path.is_file():
        raise MissingInputError(f"{path}: no such file")
    bgr = cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH)
    if bgr is None:
        raise MediaError(str(path), "not-a-picture", "no decoder knows its bytes")
    light = np.nan_to_num(bgr[..., ::-1].astype(np.float32), posinf=0.0, neginf=0.0)
    if not light.max() > 0:
        raise MediaError(str(path), "no-light", "every pixel is black")
    return _scaled(np.maximum(light, 0))


def turned(panorama: Panorama, share: float) -> Panorama:
    """Return a panorama turned about the vertical by a share of a full turn."""
    return np.roll(panorama, round(share * panorama.shape[1]), axis=1)


def _scaled(light: ndarray) -> Panorama:
    rows = light.shape[0]
    weight = np.sin((np.arange(rows) + 0.5) * np.pi / rows)
    mean = float((light.mean(axis=(1, 2)) * weight).sum() / weight.sum())
    return np.asarray(light * (_MEAN / mean), np.float32)
