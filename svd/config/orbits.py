"""Views around objects (stage orbits), and their way into shards (stage encode-orbits)."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from svd.config.base import Section
from svd.config.data import PictureSize
from svd.config.evaluation import BootstrapConfig
from svd.config.sampling import PlacementConfig, SamplingConfig


class ProceduralSource(Section):
    """Our own objects: a few coloured solids each, written as GLB and OBJ and read like others."""

    kind: Literal["procedural"]
    num_objects: int = Field(ge=2)


class MeshSource(Section):
    """A folder of meshes: Objaverse (glbs/*/<uid>.glb) or Google Scanned Objects (<name>/meshes).

    Any other .glb or .obj below it is an object as well, named by its file.
    """

    kind: Literal["meshes"]
    folder: str = Field(min_length=1)
    up: Literal["y", "z"]  # glTF, so Objaverse: y; Google Scanned Objects: z


class MvImgNetSource(Section):
    """Filmed objects in MVImgNet's layout: <class>/<object>/images/*.jpg; no camera is known."""

    kind: Literal["mvimgnet"]
    folder: str = Field(min_length=1)


OrbitSource = Annotated[ProceduralSource | MeshSource | MvImgNetSource, Field(discriminator="kind")]


class OrbitCameraConfig(Section):
    """A circle around the object at one height, looking at its centre.

    The paper gives views, size and elevations (sections 4.5 and D.6); the lens is ours.
    """

    num_views: int = Field(default=21, ge=2)  # paper, section 4.5
    min_elevation_deg: float = Field(default=-5.0, ge=-89, le=89)  # paper, section 4.5
    max_elevation_deg: float = Field(default=30.0, ge=-89, le=89)  # likewise
    fov_deg: float = Field(default=40.0, gt=1, lt=120)  # of the picture's shorter side
    margin: float = Field(default=1.1, ge=1)  # the unit sphere fills 1 / margin of that side

    @model_validator(mode="after")
    def _elevations_are_ordered(self) -> Self:
        if self.min_elevation_deg > self.max_elevation_deg:
            raise ValueError(
                f"min_elevation_deg={self.min_elevation_deg:g} is above "
                f"max_elevation_deg={self.max_elevation_deg:g}"
            )
        return self


class OrbitsConfig(Section):
    """Stage orbits: which objects, seen how."""

    sources: tuple[OrbitSource, ...] = Field(min_length=1)
    size: PictureSize
    camera: OrbitCameraConfig = OrbitCameraConfig()
    orbits_per_object: int = Field(default=1, ge=1)  # each with its own height, start and light
    heldout_share: float = Field(default=0.1, gt=0, lt=1)  # of the objects, by the hash of the name
    samples_per_pixel: int = Field(default=32, ge=1)
    max_bounces: int = Field(default=3, ge=1)  # of a light path
    # Folder of panoramas (.exr, .hdr) to draw the light from; None draws skies with soft lamps.
    panoramas: str | None = Field(default=None, min_length=1)
    background: Literal["white", "alpha"] = "white"  # of rendered views
    max_faces: int = Field(default=2_000_000, ge=1)  # of an object; more is "huge"
    max_mesh_mib: int = Field(default=512, ge=1)  # of an object's file
    max_texture_side: int = Field(default=2048, ge=16)  # pixels; larger textures are shrunk
    num_workers: int = Field(default=2, ge=1)  # processes; the pictures do not depend on it
    timeout_s: float = Field(default=600.0, gt=0)  # for one orbit
    memory_mib: int = Field(default=8192, ge=256)  # that rendering one orbit may take


class EncodeOrbitsConfig(Section):
    """Stage encode-orbits: views become examples as clips do."""

    # What the model is told of all orbits, as the paper is silent; ours.
    fps: int = Field(default=7, ge=1)
    motion_bucket_id: int = Field(default=127, ge=0, le=255)
    examples_per_shard: int = Field(default=64, ge=1)
    frames_at_once: int = Field(default=21, ge=1)  # views in one pass of the encoders; memory only
    device: Literal["cpu", "cuda"] = "cpu"  # of the encoders


class EvaluateMultiviewConfig(Section):
    """Stage evaluate-multiview: unseen objects from each prior, against the renders."""

    seeds: tuple[int, ...] = Field(default=(1, 2, 3), min_length=1)  # of samples; all are averaged
    num_orbits: int = Field(ge=2)  # held-out orbits at most
    sampling: SamplingConfig
    lpips: Literal["alex", "vgg", "tiny"] = "alex"  # "tiny" is a stand-in for tests
    clip: str | None = Field(default=None, min_length=1)  # card of a CLIP; None: a stand-in
    bootstrap: BootstrapConfig = BootstrapConfig()
    placement: PlacementConfig = PlacementConfig()
    num_threads: int = Field(default=1, ge=1)  # of one tensor operation; part of the result's bits
