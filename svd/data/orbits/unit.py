"""One orbit, in a process of its own: an object's file in, a tar of views or a reason out."""

import json
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from svd.atomic import write_text
from svd.config.orbits import OrbitsConfig
from svd.data.orbits.archive import Views, write_orbit
from svd.data.orbits.camera import orbit_azimuths, orbit_cameras
from svd.data.orbits.filmed import filmed_views
from svd.data.orbits.light import (
    SUFFIXES,
    Panorama,
    draw_panorama,
    read_panorama,
    turned,
)
from svd.data.orbits.listing import ObjectFile, filmed_pictures, source_sha256
from svd.data.orbits.mesh import MeshLimits, load_mesh
from svd.data.orbits.render import render_views, renderer_name
from svd.errors import MediaError, MissingInputError, is_disk_full
from svd.media.picture import over_white
from svd.runtime.seed import numpy_generator
from svd.types.annotation import SplitName
from svd.types.orbit import CameraPose, OrbitMeta, RejectedObject

# What parsers and renderers raise over odd bytes; our own errors are none of these.
_ODD = (RuntimeError, ValueError, TypeError, LookupError, ArithmeticError, SyntaxError)
_DRAW = 0x0B2  # part of the key of an orbit's draws


class OrbitTask(NamedTuple):
    """An orbit to be made."""

    one: ObjectFile
    number: int  # of the object's orbits
    split: SplitName
    config: OrbitsConfig
    root: str  # of the project; the panoramas' folder may be below it
    live: str  # gets the tar, and a mark that says how it ended
    seed: int

    @property
    def orbit_id(self) -> str:
        """Names the orbit."""
        return f"{self.one.object_id}-{self.number}"

    @property
    def mark(self) -> Path:
        """There once the orbit is made, or cannot be."""
        return Path(self.live) / "done" / f"{self.orbit_id}.json"


def make_orbit(task: OrbitTask) -> None:
    """Make the orbit and leave its mark: an OrbitMeta, or a RejectedObject."""
    try:
        meta, views = _filmed(task) if task.one.kind == "filmed" else _rendered(task)
    except MediaError as err:
        leave_mark(task, rejected(task, err.reason, err.detail))
        return
    except (MissingInputError, OSError) as err:
        if is_disk_full(err):
            raise
        leave_mark(task, rejected(task, "unreadable", str(err)))
        return
    except _ODD as err:
        said = " ".join(str(err).split())[:200]
        leave_mark(task, rejected(task, "not-renderable", f"{type(err).__name__}: {said}"))
        return
    except MemoryError:
        detail = f"it needs more than memory_mib={task.config.memory_mib}"
        leave_mark(task, rejected(task, "huge-mesh", detail))
        return
    write_orbit(Path(task.live), meta, views)
    leave_mark(task, meta)


def leave_mark(task: OrbitTask, record: OrbitMeta | RejectedObject) -> None:
    """Write how an orbit ended; a rerun leaves it as it is."""
    kind: Literal["made", "rejected"] = "made" if isinstance(record, OrbitMeta) else "rejected"
    write_text(task.mark, json.dumps({kind: json.loads(record.canonical_json())}))


def read_mark(path: Path) -> OrbitMeta | RejectedObject:
    """Return what a mark says."""
    tree = json.loads(path.read_text(encoding="utf-8"))
    kind = OrbitMeta if "made" in tree else RejectedObject
    return kind.parse(json.dumps(next(iter(tree.values()))), origin=str(path))


def rejected(task: OrbitTask, reason: str, detail: str) -> RejectedObject:
    """Return the record of an object that gives no views."""
    short = detail.replace(str(task.one.path), task.one.uri)
    return RejectedObject(
        object_id=task.one.object_id, source_uri=task.one.uri, reason=reason, detail=short
    )


def _filmed(task: OrbitTask) -> tuple[OrbitMeta, Views]:
    config = task.config
    views = filmed_views(
        filmed_pictures(task.one.path),
        num_views=config.camera.num_views,
        height=config.size.height,
        width=config.size.width,
    )
    meta = _meta(task, poses=(), renderer="filmed", light="filmed", has_alpha=False)
    return meta, views


def _rendered(task: OrbitTask) -> tuple[OrbitMeta, Views]:
    config, camera = task.config, task.config.camera
    limits = MeshLimits(config.max_faces, config.max_mesh_mib, config.max_texture_side)
    surfaces = load_mesh(task.one.path, up=task.one.up, limits=limits)
    generator = numpy_generator(task.seed, _DRAW, *task.orbit_id.encode())
    elevation = round(
        float(generator.uniform(camera.min_elevation_deg, camera.max_elevation_deg)), 3
    )
    start = float(generator.uniform(0, 360))
    panorama, light = _light(task, generator)
    views = render_views(
        surfaces,
        panorama,
        orbit_cameras(camera, elevation_deg=elevation, start_deg=start),
        height=config.size.height,
        width=config.size.width,
        samples_per_pixel=config.samples_per_pixel,
        max_bounces=config.max_bounces,
        seed=int(generator.integers(1 << 30)),
    )
    has_alpha = config.background == "alpha"
    poses = tuple(
        CameraPose(elevation_deg=elevation, azimuth_deg=azimuth)
        for azimuth in orbit_azimuths(camera.num_views)
    )
    name = renderer_name(config.samples_per_pixel)
    meta = _meta(task, poses=poses, renderer=name, light=light, has_alpha=has_alpha)
    return meta, views if has_alpha else over_white(views)


def _light(task: OrbitTask, generator: np.random.Generator) -> tuple[Panorama, str]:
    """Return the light and its name: a drawn one, or a panorama of the folder, turned."""
    if task.config.panoramas is None:
        return draw_panorama(generator), f"drawn for {task.orbit_id}"
    folder = Path(task.root) / task.config.panoramas
    files = sorted(path for path in folder.glob("*") if path.suffix.lower() in SUFFIXES)
    if not files:
        raise MissingInputError(f"orbits.panoramas={task.config.panoramas} holds no .exr or .hdr")
    path = files[int(generator.integers(len(files)))]
    return turned(read_panorama(path), float(generator.random())), path.name


def _meta(
    task: OrbitTask, *, poses: tuple[CameraPose, ...], renderer: str, light: str, has_alpha: bool
) -> OrbitMeta:
    return OrbitMeta(
        orbit_id=task.orbit_id,
        object_id=task.one.object_id,
        source_uri=task.one.uri,
        source_sha256=source_sha256(task.one),
        split=task.split,
        num_views=task.config.camera.num_views,
        height=task.config.size.height,
        width=task.config.size.width,
        has_alpha=has_alpha,
        poses=poses,
        renderer=renderer,
        light=light,
    )
