"""A still from a file, upright and of the size that is asked for."""

from pathlib import Path

import cv2
import numpy as np
from jaxtyping import UInt8
from numpy import ndarray

from svd.errors import MediaError, MissingInputError

PICTURE_SUFFIXES = frozenset({".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"})


def read_picture(path: Path) -> UInt8[ndarray, "H W 3"]:
    """Return a picture as 8-bit RGB, turned as its EXIF says; transparency is dropped.

    Raises:
        MissingInputError: No such file.
        MediaError: The file is empty, is no picture, or is too large to be decoded.
    """
    if not path.is_file():
        raise MissingInputError(f"{path}: no such file")
    content = np.fromfile(path, dtype=np.uint8)
    if not content.size:
        raise MediaError(str(path), "empty-file", "it has no bytes")
    try:
        bgr = cv2.imdecode(content, cv2.IMREAD_COLOR)
    except cv2.error as err:  # more than 2^30 pixels, by OpenCV's own limit
        raise MediaError(str(path), "undecodable-picture", err.err) from err
    if bgr is None:
        raise MediaError(str(path), "not-a-picture", "no decoder knows its bytes")
    return cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB)


def read_picture_over_white(path: Path) -> UInt8[ndarray, "H W 3"]:
    """Return a picture as `read_picture` does, transparent parts of PNG and WebP laid over white.

    Raises:
        MissingInputError: No such file.
        MediaError: It is no picture.
    """
    picture = read_picture(path)
    if path.suffix.lower() not in {".png", ".webp"}:
        return picture
    bgra = cv2.imdecode(np.fromfile(path, dtype=np.uint8), cv2.IMREAD_UNCHANGED)
    if bgra is None or bgra.ndim != 3 or bgra.shape[2] != 4 or bgra.dtype != np.uint8:
        return picture
    return over_white(cv2.cvtColor(bgra, cv2.COLOR_BGRA2RGBA))


def over_white(rgba: UInt8[ndarray, "*t H W 4"]) -> UInt8[ndarray, "*t H W 3"]:
    """Return pictures with what is transparent laid over white; colours are not multiplied."""
    alpha = rgba[..., 3:].astype(np.float32) / 255
    blended = rgba[..., :3] * alpha + 255 * (1 - alpha)
    return np.asarray(np.rint(blended), dtype=np.uint8)


def widen_picture(
    picture: UInt8[ndarray, "H W 3"], *, height: int, width: int
) -> UInt8[ndarray, "h w 3"]:
    """Return a picture with white at two sides, so that it has the aspect of height x width."""
    tall, wide = picture.shape[:2]
    rows = max(tall, round(wide * height / width)) - tall
    columns = max(wide, round(tall * width / height)) - wide
    pads = ((rows // 2, rows - rows // 2), (columns // 2, columns - columns // 2), (0, 0))
    return np.pad(picture, pads, constant_values=255)


def fit_picture(
    picture: UInt8[ndarray, "H W 3"], *, height: int, width: int
) -> UInt8[ndarray, "h w 3"]:
    """Return the centre of a picture that is scaled to cover height x width.

    Shrinks by area average, as the release's demo does; grows by cubic interpolation.
    """
    scale = max(height / picture.shape[0], width / picture.shape[1])
    size = (
        max(width, round(picture.shape[1] * scale)),
        max(height, round(picture.shape[0] * scale)),
    )
    method = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    scaled = cv2.resize(picture, size, interpolation=method)
    top, left = (scaled.shape[0] - height) // 2, (scaled.shape[1] - width) // 2
    return np.ascontiguousarray(scaled[top : top + height, left : left + width])
