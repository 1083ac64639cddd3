"""Views around objects: geometry, light, bad input, and a stage that resumes."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import trimesh
from hypothesis import given
from hypothesis import strategies as st
from object_files import QUAD, write_quad

from svd.config.load import load_params
from svd.config.orbits import OrbitCameraConfig, OrbitsConfig
from svd.data.orbits.archive import read_orbit
from svd.data.orbits.camera import orbit_azimuths, orbit_cameras
from svd.data.orbits.filmed import filmed_views
from svd.data.orbits.light import draw_panorama
from svd.data.orbits.listing import ObjectFile, assign_splits
from svd.data.orbits.mesh import MeshLimits, Surface, load_mesh
from svd.data.orbits.render import render_views
from svd.data.orbits.stage import run
from svd.data.orbits.unit import OrbitTask, make_orbit, read_mark
from svd.errors import ConfigError, MediaError
from svd.evaluation.datasets.objects import GSO
from svd.runtime.seed import numpy_generator
from svd.runtime.tracking import NullTracker
from svd.runtime.workspace import Workspace
from svd.types.base import read_records
from svd.types.orbit import OrbitMeta, RejectedObject

ROOT = Path(__file__).parents[3]
LIMITS = MeshLimits(max_faces=1000, max_mib=1, max_texture_side=64)
SKY = draw_panorama(numpy_generator(7))
FAST = {"size": {"height": 16, "width": 16}, "samples_per_pixel": 2, "camera": {"num_views": 21}}


def render(surfaces, cameras, side=64, samples=16):
    return render_views(
        surfaces, SKY, cameras, height=side, width=side,
        samples_per_pixel=samples, max_bounces=1, seed=0,
    )  # fmt: skip


def ball(centre, colour, radius=0.05) -> Surface:
    mesh = trimesh.creation.icosphere(subdivisions=2, radius=radius)
    return Surface(
        vertices=np.asarray(mesh.vertices + centre, np.float32),
        faces=np.asarray(mesh.faces, np.int32),
        uv=None,
        texture=None,
        colour=colour,
    )


@pytest.mark.parametrize(("elevation", "start"), [(-5.0, 0.0), (12.5, 77.0), (30.0, 200.0)])
def test_projected_points_lie_where_the_renderer_puts_them(elevation, start):
    config = OrbitCameraConfig(num_views=5)
    cameras = orbit_cameras(config, elevation_deg=elevation, start_deg=start)
    for point in ([0.7, 0.1, 0.2], [-0.3, -0.5, 0.6], [0.0, 0.8, -0.3]):
        views = render([ball(point, (0.5, 0.5, 0.5))], cameras)
        for camera, view in zip(cameras, views, strict=True):
            weight = view[..., 3].astype(float)
            rows, columns = np.mgrid[:64, :64] + 0.5
            found = [(weight * columns).sum() / weight.sum(), (weight * rows).sum() / weight.sum()]
            expected = camera.project(np.array([point]), height=64, width=64)[0]
            assert np.abs(np.array(found) - expected).max() < 0.35


@given(st.floats(-60, 60), st.floats(0, 360))
def test_elevation_and_azimuths_can_be_read_off_the_cameras(elevation, start):
    cameras = orbit_cameras(OrbitCameraConfig(), elevation_deg=elevation, start_deg=start)
    eyes = np.array([camera.eye for camera in cameras])
    risen = np.degrees(np.arcsin(eyes[:, 1] / np.linalg.norm(eyes, axis=1)))
    turned = np.degrees(np.arctan2(eyes[:, 0], eyes[:, 2])) - start
    assert np.allclose(risen, elevation)
    assert np.allclose((turned - orbit_azimuths(21) + 180) % 360 - 180, 0, atol=1e-6)


def test_the_unit_sphere_fits_into_every_view():
    cameras = orbit_cameras(OrbitCameraConfig(), elevation_deg=20.0, start_deg=0.0)
    view = render([ball([0, 0, 0], (1, 1, 1), radius=1.0)], cameras[:1])[0]
    assert view[[0, -1]][..., 3].max() == view[:, [0, -1]][..., 3].max() == 0
    assert view[32, 32, 3] == 255


@pytest.mark.parametrize("kind", ["obj", "glb"])
def test_a_texture_is_the_right_way_up(tmp_path, kind):
    path = write_quad(tmp_path)
    if kind == "glb":
        loaded = trimesh.load(path, process=False)
        path = tmp_path / "quad.glb"
        path.write_bytes(trimesh.Scene([loaded]).export(file_type="glb"))
    camera = orbit_cameras(OrbitCameraConfig(), elevation_deg=0.0, start_deg=0.0)[0]
    view = render(load_mesh(path, up="y", limits=LIMITS), [camera])[0].astype(int)
    assert view[22, 32, 0] > view[22, 32, 2] + 60, "red above"
    assert view[42, 32, 2] > view[42, 32, 0] + 60, "blue below"


def test_an_object_with_z_up_is_stood_on_its_feet(tmp_path):
    (tmp_path / "pole.obj").write_text("v 0 0 0\nv 1 0 0\nv 0 0 5\nf 1 2 3\n")
    (surface,) = load_mesh(tmp_path / "pole.obj", up="z", limits=LIMITS)
    extent = surface.vertices.max(axis=0) - surface.vertices.min(axis=0)
    assert extent.argmax() == 1
    assert surface.vertices[2, 1] > 0.9
    assert np.linalg.norm(surface.vertices, axis=1).max() == pytest.approx(1)


def test_what_is_transparent_in_a_texture_is_laid_over_white(tmp_path):
    (surface,) = load_mesh(write_quad(tmp_path, alpha=0), up="y", limits=LIMITS)
    assert surface.texture.min() == 255


def refuse(path: Path) -> str:
    with pytest.raises(MediaError) as caught:
        load_mesh(path, up="y", limits=LIMITS)
    return caught.value.reason


def test_meshes_that_cannot_be_rendered_say_why(tmp_path):
    (tmp_path / "points.obj").write_text("v 0 0 0\nv 1 0 0\n")
    assert refuse(tmp_path / "points.obj") in {"no-faces", "not-a-mesh"}
    (tmp_path / "noise.glb").write_bytes(b"glTF" + bytes(range(200)))
    assert refuse(tmp_path / "noise.glb") == "not-a-mesh"
    (tmp_path / "empty.glb").write_bytes(b"")
    assert refuse(tmp_path / "empty.glb") == "not-a-mesh"
    fine = trimesh.creation.icosphere(subdivisions=4)
    (tmp_path / "fine.glb").write_bytes(trimesh.Scene([fine]).export(file_type="glb"))
    assert refuse(tmp_path / "fine.glb") == "huge-mesh"
    (tmp_path / "long.obj").write_text("#" * (2 << 20))
    assert refuse(tmp_path / "long.obj") == "huge-mesh"
    (tmp_path / "nan.obj").write_text("v nan 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 3\n")
    assert refuse(tmp_path / "nan.obj") in {"not-finite", "not-a-mesh"}
    (tmp_path / "dot.obj").write_text("v 1 1 1\nv 1 1 1\nv 1 1 1\nf 1 2 3\n")
    assert refuse(tmp_path / "dot.obj") in {"no-extent", "no-faces"}


def test_a_missing_texture_is_said_and_no_path_leads_out_of_the_folder(tmp_path):
    assert refuse(write_quad(tmp_path / "a", alpha=None)) == "missing-texture"
    secret = tmp_path / "secret.png"
    secret.write_bytes(b"not yours")
    assert refuse(write_quad(tmp_path / "b", texture="../secret.png")) == "missing-texture"
    assert refuse(write_quad(tmp_path / "c", texture=str(secret))) == "missing-texture"
    assert refuse(write_quad(tmp_path / "d", mtl="../a/quad.mtl", texture="x.png"))
    folder = tmp_path / "e"
    write_quad(folder, alpha=None)
    (folder / "coat.png").symlink_to(secret)
    assert refuse(folder / "quad.obj") == "missing-texture"


@pytest.mark.parametrize("share", [0, 0.5], ids=["junk", "cut-short"])
def test_a_texture_that_is_no_picture_is_a_missing_one(tmp_path, share):
    path = write_quad(tmp_path)
    texture = tmp_path / "coat.png"
    content = texture.read_bytes()
    texture.write_bytes(content[: int(share * len(content))] or b"junk")
    assert refuse(path) == "missing-texture"


def test_what_a_parser_trips_over_is_a_record_and_stops_nothing(tmp_path, monkeypatch):
    def trip(*_args, **_more):
        raise RuntimeError("degenerate")

    monkeypatch.setattr("svd.data.orbits.unit.load_mesh", trip)
    settings = FAST | {"sources": [{"kind": "procedural", "num_objects": 2}]}
    config = OrbitsConfig.model_validate_json(json.dumps(settings))
    one = ObjectFile("cup", tmp_path / "cup.obj", "cup.obj", "mesh")
    task = OrbitTask(one, 0, "train", config, str(tmp_path), str(tmp_path), 3)
    make_orbit(task)
    mark = read_mark(task.mark)
    assert isinstance(mark, RejectedObject)
    assert (mark.reason, mark.detail) == ("not-renderable", "RuntimeError: degenerate")


def write_filmed(folder: Path, num: int, *, height: int, width: int, alpha: bool = False) -> None:
    folder.mkdir(parents=True)
    for index in range(num):
        picture = np.full((height, width, 4 if alpha else 3), 10 * index, np.uint8)
        picture[: height // 2] = 0
        cv2.imwrite(str(folder / f"{index:03d}.png"), picture)


def test_portrait_pictures_are_turned_to_landscape_and_evenly_chosen(tmp_path):
    write_filmed(tmp_path / "x", 9, height=40, width=20)
    paths = sorted((tmp_path / "x").iterdir())
    views = filmed_views(paths, num_views=5, height=16, width=32)
    assert [int(view.max()) for view in views] == [0, 20, 40, 60, 80]
    assert views[4][:, :14].max() == 0, "what was above is on the left"
    with pytest.raises(MediaError, match="9 pictures, 10 wanted"):
        filmed_views(paths, num_views=10, height=16, width=32)


def test_what_is_transparent_in_a_picture_is_white(tmp_path):
    write_filmed(tmp_path / "x", 2, height=16, width=16, alpha=True)
    views = filmed_views(sorted((tmp_path / "x").iterdir()), num_views=2, height=16, width=16)
    assert views[0].min() == 255


def test_splits_are_by_object_and_stay(tmp_path):
    names = [f"object{index}" for index in range(40)]
    before, after = assign_splits(names, 0.25), assign_splits([*names, "one-more"], 0.25)
    assert sum(split == "heldout" for split in before.values()) == 10
    assert sum(before[name] != after[name] for name in names) <= 1


def stage_params(root: Path, **orbits):
    params = load_params(ROOT / "params.yaml")
    return params.model_copy(
        update={"orbits": OrbitsConfig.model_validate_json(json.dumps(FAST | orbits))}
    )


@pytest.fixture
def project(tmp_path):
    for name in ("params.yaml", "dvc.yaml"):
        (tmp_path / name).write_bytes((ROOT / name).read_bytes())
    (tmp_path / "svd").symlink_to(ROOT / "svd")
    return Workspace(tmp_path)


def test_the_stage_writes_orbits_and_a_record_of_every_bad_object(project):
    meshes = project.root / "meshes" / "glbs" / "000-000"
    meshes.mkdir(parents=True)
    (meshes / "broken.glb").write_bytes(b"no mesh")
    write_quad(project.root / "meshes" / "lost", alpha=None)
    write_filmed(project.root / "filmed" / "7" / "cup" / "images", 3, height=16, width=16)
    params = stage_params(
        project.root,
        sources=[
            {"kind": "procedural", "num_objects": 3},
            {"kind": "meshes", "folder": "meshes", "up": "y"},
            {"kind": "mvimgnet", "folder": "filmed"},
        ],
        heldout_share=0.4,
        background="alpha",
    )
    report = run(params, project, tracker=NullTracker())
    refused = {
        one.object_id: one
        for one in read_records(project.orbits / "rejected.jsonl", RejectedObject)
    }
    assert {name: one.reason for name, one in refused.items()} == {
        "broken": "not-a-mesh",
        "quad": "missing-texture",
        "7-cup": "too-few-views",
    }
    assert report.summary["objects refused"] == 3
    metas = list(read_records(project.orbits / "index.jsonl", OrbitMeta))
    assert [meta.object_id for meta in metas] == ["object00000", "object00001", "object00002"]
    for meta in metas:
        assert read_orbit(project.orbits, meta).shape == (21, 16, 16, 4)
        assert -5 <= meta.poses[0].elevation_deg <= 30
    heldout = [meta.orbit_id for meta in metas if meta.split == "heldout"]
    listing = GSO.list_items(project.orbits / "heldout")
    assert [item.path for item in listing.items] == [f"gso/{name}" for name in heldout]
    assert (project.orbits / "pictures" / "train.png").is_file()


def test_an_orbit_made_again_has_the_same_bytes_and_one_that_is_there_is_left(tmp_path):
    config = OrbitsConfig.model_validate_json(
        json.dumps(FAST | {"sources": [{"kind": "procedural", "num_objects": 2}]})
    )
    from svd.data.orbits.listing import list_objects
    from svd.data.orbits.stage import render_all

    objects = list_objects(config, tmp_path, tmp_path / "objects", seed=3)
    tasks = [OrbitTask(one, 0, "train", config, str(tmp_path), str(tmp_path), 3) for one in objects]
    make_orbit(tasks[0])
    meta = read_mark(tasks[0].mark)
    assert isinstance(meta, OrbitMeta)
    path = tmp_path / meta.tar_uri
    first, written = path.read_bytes(), path.stat().st_mtime_ns
    render_all(tasks, config)
    assert path.stat().st_mtime_ns == written, "what is there is left"
    tasks[0].mark.unlink()
    render_all(tasks, config)
    assert path.stat().st_mtime_ns != written
    assert path.read_bytes() == first


def test_a_source_without_any_good_object_is_an_error_that_says_why(project):
    meshes = project.root / "meshes"
    meshes.mkdir()
    for name in ("one", "two"):
        (meshes / f"{name}.obj").write_text("v 0 0 0\n")
    params = stage_params(project.root, sources=[{"kind": "meshes", "folder": "meshes", "up": "z"}])
    with pytest.raises(ConfigError, match="gave views; the first refused"):
        run(params, project, tracker=NullTracker())


def test_a_file_that_names_itself_material_of_another_object_is_text_only(tmp_path):
    (tmp_path / "quad.obj").write_text(QUAD.format(mtl="/etc/passwd"))
    assert refuse(tmp_path / "quad.obj") == "missing-texture"
