"""Filmed objects to views: pictures along a camera path, portrait turned to landscape."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from numpy import ndarray

from svd.errors import MediaError
from svd.media.picture import fit_picture, read_picture_over_white


def filmed_views(
    pictures: Sequence[Path], *, num_views: int, height: int, width: int
) -> UInt8[ndarray, "t H W 3"]:
    """Return views from the first picture to the last.

    Portrait pictures are turned a quarter to the left where the size is a landscape's (paper,
    appendix D.6: portrait videos of MVImgNet are turned to landscape); transparency is laid over
    white.

    Raises:
        MediaError: There are fewer pictures than views, or one is no picture.
    """
    if len(pictures) < num_views:
        where = str(pictures[0].parent) if pictures else "filmed object"
        raise MediaError(where, "too-few-views", f"{len(pictures)} pictures, {num_views} wanted")
    chosen = np.linspace(0, len(pictures) - 1, num_views).round().astype(int)
    views = []
    for index in chosen:
        picture = read_picture_over_white(pictures[index])
        if picture.shape[0] > picture.shape[1] and width >= height:
            picture = np.ascontiguousarray(np.rot90(picture))
        views.append(fit_picture(picture, height=height, width=width))
    return np.stack(views)
