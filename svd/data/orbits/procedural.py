"""Our own objects: a few coloured solids put together, written as GLB or OBJ."""

import io
from pathlib import Path
from typing import Any, Final

import numpy as np

from svd.errors import ConfigError
from svd.runtime.seed import numpy_generator

_DRAW: Final = 0x0B1  # part of the key of an object's draws
_SOLIDS = (2, 5)  # of an object, at least and at most
_TEXTURE_SIDE = 32  # pixels of the stripes that some solids wear


def write_object(folder: Path, index: int, *, seed: int) -> Path:
    """Write an object as Objaverse (even index) or Google Scanned Objects (odd) would lie there.

    Objects are lopsided in shape and colour, so that their sides tell an orbit's views apart.

    Args:
        folder: Gets glbs/000-000/<name>.glb or <name>/meshes/model.obj.
        index: Of the object; its name and draws hang on it and on the seed.
        seed: Of all objects.
    """
    try:
        import trimesh
    except ImportError as err:
        raise ConfigError("meshes need trimesh: install svd with the extra `render`") from err
    generator = numpy_generator(seed, _DRAW, index)
    num = int(generator.integers(_SOLIDS[0], _SOLIDS[1] + 1))
    scene: Any = trimesh.Scene([_solid(trimesh, generator, place) for place in range(num)])
    name = f"object{index:05d}"
    if index % 2 == 0:
        path = folder / "glbs" / "000-000" / f"{name}.glb"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(scene.export(file_type="glb"))
        return path
    return _write_scanned(folder / name, scene)


def _write_scanned(folder: Path, scene: Any) -> Path:
    """Write OBJ, MTL and textures into the two folders that a scanned object has."""
    import trimesh.exchange.obj

    writer: Any = trimesh.exchange.obj
    text, sidecars = writer.export_obj(scene, return_texture=True, mtl_name="model.mtl")
    meshes, textures = folder / "meshes", folder / "materials" / "textures"
    for place in (meshes, textures):
        place.mkdir(parents=True, exist_ok=True)
    for name, content in sidecars.items():
        place = meshes if name.endswith(".mtl") else textures
        (place / Path(name).name).write_bytes(content)
    path = meshes / "model.obj"
    path.write_text(text, encoding="utf-8")
    return path


def _solid(trimesh: Any, generator: np.random.Generator, place: int) -> Any:
    """Return a solid at its place; the first is the body, the others stick out of it."""
    kinds = ("box", "cylinder", "ball", "cone")
    kind = kinds[int(generator.integers(len(kinds)))]
    size = generator.uniform(0.5, 0.9, 3) if place == 0 else generator.uniform(0.2, 0.5, 3)
    if kind == "box":
        solid = trimesh.creation.box(extents=2 * size)
    elif kind == "cylinder":
        solid = trimesh.creation.cylinder(radius=size[0], height=2 * size[1], sections=24)
    elif kind == "cone":
        solid = trimesh.creation.cone(radius=size[0], height=2 * size[1], sections=24)
    else:
        solid = trimesh.creation.icosphere(subdivisions=2, radius=size[0])
    if kind in {"cylinder", "cone"}:  # made along z
        solid.apply_transform(trimesh.transformations.rotation_matrix(-np.pi / 2, [1, 0, 0]))
    if place:
        angle, height = generator.uniform(0, 2 * np.pi), generator.uniform(-0.5, 0.9)
        reach = generator.uniform(0.6, 0.9)
        solid.apply_translation([reach * np.sin(angle), height, reach * np.cos(angle)])
    solid.unmerge_vertices()  # flat sides, and a place in the texture of its own per corner
    solid.visual = _coat(trimesh, solid, generator)
    return solid


def _coat(trimesh: Any, solid: Any, generator: np.random.Generator) -> Any:
    """Return one colour, or stripes of two around the solid."""
    from PIL import Image

    colours = (255 * _vivid(generator, 2)).astype(np.uint8)
    stripes = int(generator.integers(0, 5))  # 0 and 1: a single colour
    rows = np.arange(_TEXTURE_SIDE) * max(1, stripes) * 2 // _TEXTURE_SIDE % 2
    texture = colours[rows if stripes > 1 else np.zeros_like(rows)]
    picture = np.repeat(texture[:, None], _TEXTURE_SIDE, axis=1)
    low, high = solid.bounds
    vertical = (solid.vertices[:, 1] - low[1]) / max(high[1] - low[1], 1e-6)
    uv = np.stack([np.full_like(vertical, 0.5), np.clip(vertical, 0.01, 0.99)], axis=1)
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "PNG")
    material = trimesh.visual.material.PBRMaterial(
        baseColorTexture=Image.open(buffer), metallicFactor=0.0, roughnessFactor=1.0
    )
    return trimesh.visual.TextureVisuals(uv=uv, material=material)


def _vivid(generator: np.random.Generator, num: int) -> np.ndarray:
    """Return saturated sRGB colours."""
    hue = generator.uniform(0, 6, num)[:, None]
    pure = np.clip(np.abs((hue + np.array([0, 4, 2])) % 6 - 3) - 1, 0, 1)
    value = generator.uniform(0.5, 1.0, (num, 1))
    saturation = generator.uniform(0.6, 1.0, (num, 1))
    return np.asarray(value * (1 - saturation * (1 - pure)))
