"""An untrusted mesh file to triangles, colours and textures that can be rendered.

Only GLB and OBJ are read, by trimesh, whose loaders of these two run no code. A file that the mesh
names is looked for by its last name in the object's own folders, so no path leads out of them.
"""

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Literal

import numpy as np
from jaxtyping import Float32, Int32, UInt8
from numpy import ndarray

from svd.errors import MediaError, MissingInputError

MESH_SUFFIXES = frozenset({".glb", ".obj"})
_MIB = 1 << 20
_GREY = (0.7, 0.7, 0.7)  # of a surface that says no colour
_NO_PICTURE = frozenset({".mtl", ".bin"})
_SIDECARS = frozenset({".mtl", ".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff", ".bin"})


@dataclass(frozen=True, slots=True)
class Surface:
    """Triangles of one material.

    Attributes:
        vertices: In the unit sphere, y up.
        faces: Corners of each triangle.
        uv: Place of each vertex in the texture, v up; None without texture.
        texture: RGB; None without.
        colour: Linear RGB in 0..1, where there is no texture.
    """

    vertices: Float32[ndarray, "v 3"]
    faces: Int32[ndarray, "f 3"]
    uv: Float32[ndarray, "v 2"] | None
    texture: UInt8[ndarray, "H W 3"] | None
    colour: tuple[float, float, float]


@dataclass(frozen=True, slots=True)
class MeshLimits:
    """What an object may cost.

    Attributes:
        max_faces: Triangles.
        max_mib: Of its file and of each file it names.
        max_texture_side: Pixels; larger textures are shrunk.
    """

    max_faces: int
    max_mib: int
    max_texture_side: int


class ConfinedFiles:
    """Gives a mesh the files it names, from the object's own folders only.

    trimesh asks through `get` (it is one of its "resolvers").
    """

    def __init__(self, folders: Sequence[Path], limits: MeshLimits) -> None:
        self._folders = folders
        self._limits = limits
        self.missing: list[str] = []

    def get(self, name: str) -> bytes:
        """Return a file's bytes.

        Raises:
            ValueError: It is not there, too large, or no picture where it should be one; noted in
                `missing`.
        """
        last = PurePosixPath(name.replace("\\", "/")).name
        for folder in self._folders:
            path = folder / last
            is_plain = path.is_file() and not path.is_symlink()
            if is_plain and path.suffix.lower() in _SIDECARS:
                if path.stat().st_size <= self._limits.max_mib * _MIB:
                    content = path.read_bytes()
                    if path.suffix.lower() in _NO_PICTURE or _is_picture(content):
                        return content
                break
        self.missing.append(name)
        raise ValueError(f"no file {last} in the object's folders")

    __getitem__ = get

    def keys(self) -> list[str]:
        """Return the names there are."""
        return [
            path.name for folder in self._folders if folder.is_dir() for path in folder.iterdir()
        ]

    def namespaced(self, _namespace: str) -> "ConfinedFiles":
        """Return the files below a name: the same ones, as names count alone."""
        return self


def _is_picture(content: bytes) -> bool:
    """Tell whether a picture can be had from bytes; trimesh would silently go on without it."""
    from PIL import Image

    try:
        with Image.open(io.BytesIO(content)) as picture:
            picture.load()
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return False
    return True


def load_mesh(path: Path, *, up: Literal["y", "z"], limits: MeshLimits) -> tuple[Surface, ...]:
    """Read an object, centred and scaled into the unit sphere.

    Raises:
        MissingInputError: No such file.
        MediaError: It is no mesh, has no faces, is too large, or lacks a texture that it names.
    """
    if not path.is_file():
        raise MissingInputError(f"{path}: no such file")
    size = path.stat().st_size
    if size > limits.max_mib * _MIB:
        raise MediaError(
            str(path),
            "huge-mesh",
            f"{size / _MIB:.0f} MiB, more than max_mesh_mib={limits.max_mib}",
        )
    files = ConfinedFiles(_folders_of(path), limits)
    parts = _read(path, files)
    if files.missing:
        raise MediaError(
            str(path), "missing-texture", f"it names {files.missing[0]}, which is not to be had"
        )
    num_faces = sum(len(part.faces) for part in parts)
    if not num_faces:
        raise MediaError(str(path), "no-faces", "there is nothing to render")
    if num_faces > limits.max_faces:
        raise MediaError(
            str(path), "huge-mesh", f"{num_faces} faces, more than max_faces={limits.max_faces}"
        )
    return _normalised([_surface(part, limits) for part in parts if len(part.faces)], path, up)


def _folders_of(path: Path) -> tuple[Path, ...]:
    """Return the folders of an object's files; Google Scanned Objects keep textures beside."""
    if path.parent.name == "meshes":
        return path.parent, path.parent.parent / "materials" / "textures"
    return (path.parent,)


def _read(path: Path, files: ConfinedFiles) -> list[Any]:  # of trimesh.Trimesh, which has no types
    """Return the meshes of a file in world coordinates."""
    import trimesh

    resolver: Any = files

    try:
        with path.open("rb") as file:
            scene = trimesh.load_scene(
                file, file_type=path.suffix[1:].lower(), resolver=resolver, process=False
            )
        parts = scene.dump()
    except (ImportError, MemoryError):
        raise
    except Exception as err:
        if files.missing:
            raise MediaError(
                str(path), "missing-texture", f"it names {files.missing[0]}, which is not to be had"
            ) from err
        said = " ".join(str(err).split())[:200] or type(err).__name__
        raise MediaError(str(path), "not-a-mesh", said) from err
    return [part for part in parts if isinstance(part, trimesh.Trimesh)]


def _surface(part: Any, limits: MeshLimits) -> Surface:
    uv = getattr(part.visual, "uv", None)
    material = getattr(part.visual, "material", None)
    picture = getattr(material, "baseColorTexture", None) or getattr(material, "image", None)
    has_texture = uv is not None and picture is not None and len(uv) == len(part.vertices)
    return Surface(
        vertices=np.asarray(part.vertices, np.float32),
        faces=np.asarray(part.faces, np.int32),
        uv=np.asarray(uv, np.float32) if has_texture else None,
        texture=_texture(picture, limits.max_texture_side) if has_texture else None,
        colour=_colour(part, material),
    )


def _texture(picture: Any, max_side: int) -> UInt8[ndarray, "H W 3"]:
    """Return an RGB texture; what is transparent in it is laid over white."""
    from PIL import Image

    picture.thumbnail((max_side, max_side))
    rgba = picture.convert("RGBA")
    white = Image.new("RGBA", rgba.size, (255, 255, 255, 255))
    return np.asarray(Image.alpha_composite(white, rgba).convert("RGB"), np.uint8)


def _colour(part: Any, material: Any) -> tuple[float, float, float]:
    """Return linear RGB: the material's colour, else the mean of the vertices' colours."""
    found = getattr(material, "baseColorFactor", None)  # linear, by glTF 2.0, section 3.9.2
    if found is None:
        found = getattr(material, "diffuse", None)
    if found is None and getattr(part.visual, "kind", None) in {"vertex", "face"}:
        found = np.asarray(part.visual.vertex_colors, np.float64).mean(axis=0)
    if found is None:
        return _GREY
    is_bytes = np.asarray(found).dtype.kind in "iu"
    values = np.clip(np.asarray(found, np.float64)[:3] / (255 if is_bytes else 1), 0, 1)
    red, green, blue = (float(value) for value in values)
    return red, green, blue


def _normalised(
    surfaces: Sequence[Surface], path: Path, up: Literal["y", "z"]
) -> tuple[Surface, ...]:
    """Return surfaces moved and scaled into the unit sphere, y up."""
    points = np.concatenate([surface.vertices for surface in surfaces])
    if not np.isfinite(points).all():
        raise MediaError(str(path), "not-finite", "a vertex is not a point")
    centre = (points.min(axis=0) + points.max(axis=0)) / 2
    radius = float(np.linalg.norm(points - centre, axis=1).max())
    if radius <= 0:
        raise MediaError(str(path), "no-extent", "all vertices are one point")
    axes = {"y": (0, 1, 2), "z": (0, 2, 1)}[up]
    mirror = np.array([1, 1, 1 if up == "y" else -1], np.float32)  # z up: (x, y, z) -> (x, z, -y)
    return tuple(
        Surface(
            vertices=((surface.vertices - centre) / radius)[:, axes] * mirror,
            faces=surface.faces,
            uv=surface.uv,
            texture=surface.texture,
            colour=surface.colour,
        )
        for surface in surfaces
    )


def source_files(path: Path) -> Mapping[str, Path]:
    """Return an object's files by name: the mesh, and what may lie beside it for it alone."""
    found = {path.name: path}
    if path.suffix.lower() == ".obj":
        for folder in _folders_of(path):
            if folder.is_dir():
                found |= {
                    other.name: other
                    for other in sorted(folder.iterdir())
                    if other.suffix.lower() in _SIDECARS and other.is_file()
                }
    return found
