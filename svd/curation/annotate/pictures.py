"""Pictures as networks take them."""

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from PIL.Image import Image


def to_image(picture: np.ndarray) -> "Image":
    """Return a BGR picture as PIL's RGB image."""
    from PIL import Image

    return Image.fromarray(np.ascontiguousarray(picture[..., ::-1]))


def to_images(pictures: list[np.ndarray]) -> "list[Image]":
    """Return BGR pictures as PIL's RGB images."""
    return [to_image(picture) for picture in pictures]
