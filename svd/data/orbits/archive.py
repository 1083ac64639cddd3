"""An orbit as a tar that plain webdataset reads: its record, then its views as PNG."""

import io
import tarfile
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import UInt8
from numpy import ndarray

from svd.atomic import new_file
from svd.errors import IntegrityError, MissingInputError
from svd.media.picture import over_white
from svd.types.orbit import OrbitMeta

Views = UInt8[ndarray, "t H W c"]  # RGB or RGBA


def write_orbit(folder: Path, meta: OrbitMeta, views: Views) -> Path:
    """Write an orbit's tar below a folder, all or nothing; equal views give equal bytes."""
    path = folder / meta.tar_uri
    with (
        new_file(path) as partial,
        tarfile.open(partial, "w", format=tarfile.USTAR_FORMAT) as tar,
    ):
        _add(tar, f"{meta.orbit_id}.json", meta.canonical_json().encode())
        for view, picture in enumerate(views):
            _add(tar, meta.view_name(view), png_bytes(picture))
    return path


def read_orbit(folder: Path, meta: OrbitMeta) -> Views:
    """Return the views of an orbit; members are read by name and never unpacked.

    Raises:
        MissingInputError: There is no tar.
        IntegrityError: It is no tar, or a view is missing or of another size.
    """
    path = folder / meta.tar_uri
    if not path.is_file():
        raise MissingInputError(f"{path} is not there: run `svd orbits` again")
    channels = 4 if meta.has_alpha else 3
    views = []
    try:
        with tarfile.open(path, "r:") as tar:
            for view in range(meta.num_views):
                member = tar.extractfile(meta.view_name(view))
                content = b"" if member is None else member.read()
                views.append(_picture(content, channels))
    except (tarfile.TarError, KeyError) as err:
        raise IntegrityError(f"{path}: {err}") from err
    if any(picture.shape != (meta.height, meta.width, channels) for picture in views):
        raise IntegrityError(f"{path}: a view is not of {meta.width}x{meta.height} pixels")
    return np.stack(views)


def over_white_views(views: Views) -> UInt8[ndarray, "t H W 3"]:
    """Return RGB views; what is transparent is laid over white."""
    return over_white(views) if views.shape[-1] == 4 else views


def png_bytes(picture: UInt8[ndarray, "H W c"]) -> bytes:
    """Return a PNG of an RGB or RGBA picture."""
    turned = cv2.COLOR_RGBA2BGRA if picture.shape[2] == 4 else cv2.COLOR_RGB2BGR
    done, content = cv2.imencode(".png", cv2.cvtColor(picture, turned))
    if not done:
        raise IntegrityError(f"a picture of shape {picture.shape} could not be written as PNG")
    return bytes(content)


def _picture(content: bytes, channels: int) -> UInt8[ndarray, "H W c"]:
    flag = cv2.IMREAD_UNCHANGED if channels == 4 else cv2.IMREAD_COLOR
    picture = cv2.imdecode(np.frombuffer(content, np.uint8), flag) if content else None
    if picture is None or picture.ndim != 3 or picture.shape[2] != channels:
        raise IntegrityError(f"{len(content)} bytes are not a PNG of {channels} channels")
    return cv2.cvtColor(picture, cv2.COLOR_BGRA2RGBA if channels == 4 else cv2.COLOR_BGR2RGB)


def _add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    header = tarfile.TarInfo(name)  # mtime, owner and mode stay constants
    header.size = len(content)
    tar.addfile(header, io.BytesIO(content))
