"""Surfaces, light and cameras to pictures, with Mitsuba 3 on the processor."""

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from jaxtyping import Float32, UInt8
from numpy import ndarray

from svd.data.orbits.camera import Camera
from svd.data.orbits.light import Panorama
from svd.data.orbits.mesh import Surface
from svd.errors import ConfigError

# No compiler and no GPU; its pictures do not depend on the number of threads.
_VARIANT: Final = "scalar_rgb"


def renderer_name(samples_per_pixel: int) -> str:
    """Return what a record says of the renderer."""
    mi = _mitsuba()
    return f"mitsuba {mi.__version__}, {_VARIANT}, path, {samples_per_pixel} samples"


def render_views(
    surfaces: Sequence[Surface],
    panorama: Panorama,
    cameras: Sequence[Camera],
    *,
    height: int,
    width: int,
    samples_per_pixel: int,
    max_bounces: int,
    seed: int,
) -> UInt8[ndarray, "t H W 4"]:
    """Return sRGB views with transparency where there is no object; colours are not multiplied.

    Args:
        surfaces: In the unit sphere.
        panorama: Light from all around; it is not seen itself.
        cameras: One per view.
        height: Pixels.
        width: Pixels.
        samples_per_pixel: Light paths.
        max_bounces: Of a light path.
        seed: Of the light paths; view i takes seed + i.
    """
    mi = _mitsuba()
    with tempfile.TemporaryDirectory(prefix="svd-orbit-") as folder:
        scene = mi.load_dict(_scene(mi, surfaces, panorama, max_bounces, Path(folder)))
    views = []
    for index, camera in enumerate(cameras):
        sensor = mi.load_dict(_sensor(mi, camera, height, width, samples_per_pixel))
        rgba = np.asarray(mi.render(scene, sensor=sensor, seed=seed + index), np.float32)
        views.append(_to_bytes(rgba))
    return np.stack(views)


def _mitsuba() -> Any:
    try:
        import mitsuba
    except ImportError as err:
        raise ConfigError(
            "rendering needs Mitsuba: install svd with the extra `render` (mitsuba, trimesh)"
        ) from err
    if mitsuba.variant() != _VARIANT:
        mitsuba.set_variant(_VARIANT)
        mitsuba.set_log_level(mitsuba.LogLevel.Error)
    return mitsuba


def _scene(
    mi: Any,
    surfaces: Sequence[Surface],
    panorama: Panorama,
    max_bounces: int,
    folder: Path,
) -> dict[str, object]:
    scene: dict[str, object] = {
        "type": "scene",
        "integrator": {"type": "path", "max_depth": max_bounces + 1, "hide_emitters": True},
        "light": {"type": "envmap", "bitmap": mi.Bitmap(np.array(panorama))},
    }
    for index, surface in enumerate(surfaces):
        path = folder / f"{index}.ply"
        path.write_bytes(_ply(surface))
        scene[f"surface{index}"] = {
            "type": "ply",
            "filename": str(path),
            "flip_tex_coords": True,  # Mitsuba counts v from the top
            "bsdf": {
                "type": "twosided",
                "inner": {"type": "diffuse", "reflectance": _reflectance(mi, surface)},
            },
        }
    return scene


def _reflectance(mi: Any, surface: Surface) -> dict[str, object]:
    if surface.texture is None:
        return {"type": "rgb", "value": list(surface.colour)}
    return {"type": "bitmap", "bitmap": mi.Bitmap(np.array(surface.texture)), "raw": False}


def _ply(surface: Surface) -> bytes:
    """Return a binary PLY; Mitsuba takes `u` and `v` as the place in the texture, v up."""
    names = ["x", "y", "z", *(("u", "v") if surface.uv is not None else ())]
    columns = [surface.vertices] if surface.uv is None else [surface.vertices, surface.uv]
    header = [
        "ply",
        "format binary_little_endian 1.0",
        f"element vertex {len(surface.vertices)}",
        *(f"property float {name}" for name in names),
        f"element face {len(surface.faces)}",
        "property list uchar int vertex_indices",
        "end_header\n",
    ]
    faces = np.empty(len(surface.faces), dtype=[("n", "u1"), ("corners", "<i4", 3)])
    faces["n"], faces["corners"] = 3, surface.faces
    vertices = np.concatenate(columns, axis=1).astype("<f4")
    return "\n".join(header).encode() + vertices.tobytes() + faces.tobytes()


def _sensor(
    mi: Any,
    camera: Camera,
    height: int,
    width: int,
    samples_per_pixel: int,
) -> dict[str, object]:
    return {
        "type": "perspective",
        "fov": camera.fov_deg,
        "fov_axis": "smaller",
        "to_world": mi.ScalarTransform4f().look_at(
            origin=camera.eye.tolist(), target=[0, 0, 0], up=[0, 1, 0]
        ),
        "film": {
            "type": "hdrfilm",
            "height": height,
            "width": width,
            "pixel_format": "rgba",
            "rfilter": {"type": "box"},
        },
        "sampler": {"type": "independent", "sample_count": samples_per_pixel},
    }


def _to_bytes(rgba: Float32[ndarray, "H W 4"]) -> UInt8[ndarray, "H W 4"]:
    """Return sRGB bytes of linear, premultiplied colours. Source: IEC 61966-2-1."""
    alpha = np.clip(rgba[..., 3:], 0, 1)
    linear = np.clip(rgba[..., :3] / np.maximum(alpha, 1e-6), 0, 1)
    encoded = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    return np.asarray(np.rint(255 * np.concatenate([encoded, alpha], axis=-1)), np.uint8)
