"""Multi-view: what is told of the camera, on the way from a rendered orbit to a trained model."""

import json
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
import torch

from svd.config.data import StreamConfig
from svd.config.orbits import EncodeOrbitsConfig, EvaluateMultiviewConfig, OrbitsConfig
from svd.config.training import TrainingStageConfig
from svd.data.orbits import encode, stage
from svd.data.stream.shards import load_manifest
from svd.data.stream.stream import OrderedBatches, stream_batches
from svd.errors import ConfigError
from svd.evaluation import multiview
from svd.models.checkpoints.start import start_unet
from svd.models.checkpoints.weights import save_weights
from svd.models.networks.conditioner import add_pose, added_ids, embed_added_time_ids
from svd.models.networks.denoiser import Denoiser
from svd.runtime.storage import open_store
from svd.runtime.tracking import NullTracker
from svd.runtime.workspace import Workspace
from svd.training.objective.noise import DrawKey
from svd.training.objective.objectives import ImageToVideo, Orbit
from svd.training.stage import stages
from svd.training.stage.plan import stage_denoiser
from svd.types.base import read_records
from svd.types.batch import Conditioning, LatentBatch
from svd.types.orbit import OrbitMeta
from svd.types.shard import StreamPosition
from svd.types.stage import TrainingStage
from tests.unit.training.conftest import drawn_unet
from tests.unit.training.test_lora_stage import image_to_video
from tests.unit.training.world import DENOISER, Recipe, build_autoencoder, make_world, stage_config

ROOT = Path(__file__).parents[3]
NUM_VIEWS, SIDE = 4, 16
WIDTH = DENOISER.unet.added_id_dim


@dataclass(frozen=True)
class MultiviewRecipe(Recipe):
    """What the stages of multi-view read of Params."""

    orbits: OrbitsConfig | None = None
    encode_orbits: EncodeOrbitsConfig = field(default_factory=EncodeOrbitsConfig)
    finetune_multiview: TrainingStageConfig | None = None
    evaluate_multiview: EvaluateMultiviewConfig | None = None

    def training(self, stage: TrainingStage) -> TrainingStageConfig:
        """Return the section of a stage, from its prior."""
        section = super().training(stage)
        return section.starting_from("scratch") if stage.endswith("@scratch") else section


def recipe() -> MultiviewRecipe:
    orbits = {
        "sources": [{"kind": "procedural", "num_objects": 4}],
        "size": {"height": SIDE, "width": SIDE},
        "camera": {"num_views": NUM_VIEWS},
        "heldout_share": 0.25,
        "samples_per_pixel": 2,
        "num_workers": 1,
    }
    data = {"height": SIDE, "width": SIDE, "num_frames": NUM_VIEWS, "batch_size": 2}
    trained = stage_config(phase={"data": data, "num_steps": 4}, init="finetune-i2v")
    sampling = {
        "num_frames": NUM_VIEWS,
        "height": SIDE,
        "width": SIDE,
        "schedule": {"num_steps": 2},
        "guidance": {"kind": "constant", "max_scale": 1.0},
        "batch_size": 2,
    }
    trial = {"seeds": [1, 2], "num_orbits": 2, "sampling": sampling, "lpips": "tiny"}
    return MultiviewRecipe(
        seed=1,
        denoiser=DENOISER,
        orbits=OrbitsConfig.model_validate_json(json.dumps(orbits)),
        finetune_multiview=trained.model_copy(update={"pose": ("elevation",)}),
        evaluate_multiview=EvaluateMultiviewConfig.model_validate_json(json.dumps(trial)),
    )


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """Encoded orbits, an autoencoder and an image-to-video model."""
    found = make_world(tmp_path_factory.mktemp("multiview"))

    (found.root / "params.yaml").write_text("seed: 1\n")
    names = ("orbits", "encode-orbits", "finetune-multiview@video-prior",
             "finetune-multiview@image-prior", "finetune-multiview@scratch")  # fmt: skip
    graph = {"stages": {name: {"params": ["seed"]} for name in names}}
    (found.root / "dvc.yaml").write_text(json.dumps(graph))
    stage.run(recipe(), found, tracker=NullTracker())  # type: ignore[arg-type]
    encode.run(recipe(), found, tracker=NullTracker())  # type: ignore[arg-type]
    base = Denoiser(image_to_video())
    drawn_unet(base.unet)
    save_weights(base.unet, found.model("finetune-i2v") / "weights.safetensors")
    return found


def stream_config() -> StreamConfig:
    return recipe().training("finetune-multiview@video-prior").phases[0].data


def first_batch(workspace: Workspace) -> LatentBatch:
    store = open_store(str(workspace.orbit_latents))
    return OrderedBatches(load_manifest(store), stream_config(), source=store)[0]


def test_the_stream_tells_the_camera_that_the_renderer_had(workspace: Workspace) -> None:
    store = open_store(str(workspace.orbit_latents))
    manifest = load_manifest(store)
    known = {one.orbit_id: one for one in read_records(workspace.orbits / "index.jsonl", OrbitMeta)}
    stream = stream_batches(manifest, stream_config(), StreamPosition(), source=store, seed=0)
    for _ in range(2):
        batch = next(stream)[0]
        assert batch.poses is not None
        for clip, poses in zip(batch.clip_ids, batch.poses, strict=True):
            rendered = [(p.elevation_deg, p.azimuth_deg) for p in known[clip].poses]
            assert torch.allclose(poses, torch.tensor(rendered))
            assert poses[0, 1] == 0


def test_the_vector_of_every_frame_is_the_clips_and_then_the_angles() -> None:
    ids = added_ids(torch.tensor([6.0]), torch.tensor([127.0]), torch.tensor([0.02]))
    vector = embed_added_time_ids(ids, width=WIDTH)
    poses = torch.tensor([[[12.0, 0.0], [12.0, 90.0]]])
    both = add_pose(vector, poses, told=("elevation", "azimuth"), width=WIDTH)
    assert both.shape == (1, 2, 5 * WIDTH)
    assert torch.equal(both[:, 0, : 3 * WIDTH], vector)
    assert torch.equal(both[0, 0, 3 * WIDTH : 4 * WIDTH], both[0, 1, 3 * WIDTH : 4 * WIDTH])
    assert not torch.equal(both[0, 0, 4 * WIDTH :], both[0, 1, 4 * WIDTH :])
    one = add_pose(vector, poses, told=("elevation",), width=WIDTH)
    assert torch.equal(one, both[..., : 4 * WIDTH])


def test_the_orbit_objective_is_image_to_video_with_the_camera(workspace: Workspace) -> None:
    batch, key = first_batch(workspace), DrawKey(0, 1, (0,))
    phase = recipe().training("finetune-multiview@video-prior").phases[0]
    parts = {"autoencoder": build_autoencoder(), "id_width": WIDTH}
    plain = ImageToVideo(phase, **parts).condition(batch, key, dropout=True)
    told = Orbit(phase, pose=("elevation",), **parts).condition(batch, key, dropout=True)
    assert torch.equal(told.context, plain.context)
    assert torch.equal(told.cond_latents, plain.cond_latents)
    assert torch.equal(told.vector[:, 0, : plain.vector.shape[-1]], plain.vector)
    untold = Orbit(phase, pose=(), **parts).condition(batch, key, dropout=True)
    assert torch.equal(untold.vector, plain.vector)
    with pytest.raises(ConfigError, match=r"finetune-multiview.pose: \[\]"):
        Orbit(phase, pose=("elevation",), **parts).condition(
            replace(batch, poses=None), key, dropout=False
        )


def test_a_model_from_the_video_prior_begins_as_it_whatever_the_elevation(
    workspace: Workspace,
) -> None:
    config = stage_denoiser(
        "finetune-multiview@video-prior", recipe(), latent_channels=4, latent_downscale=4
    )  # type: ignore[arg-type]
    base, told = Denoiser(image_to_video()), Denoiser(config)
    weights = workspace.model("finetune-i2v") / "weights.safetensors"
    start_unet(base.unet, weights)
    report = start_unet(told.unet, weights)
    assert report.widened == ("label_emb.0.0.weight",)
    noisy, sigma = torch.randn(1, 3, 4, 4, 4), torch.ones(1)
    plain = Conditioning(
        context=torch.randn(1, 1, 16),
        vector=torch.randn(1, 3 * WIDTH),
        cond_latents=torch.randn(1, 3, 4, 4, 4),
    )
    expected = base(noisy, sigma, plain)
    for elevation in (-5.0, 30.0):
        poses = torch.tensor([[[elevation, 0.0]] * 3])
        vector = add_pose(plain.vector, poses, told=("elevation",), width=WIDTH)
        assert torch.allclose(
            told(noisy, sigma, replace(plain, vector=vector)), expected, atol=1e-5
        )


@pytest.mark.slow
def test_orbits_are_trained_on_sampled_and_compared_from_every_prior(workspace: Workspace) -> None:
    priors = ("video-prior", "image-prior", "scratch")
    for prior in priors:
        report = stages.run(
            f"finetune-multiview@{prior}", recipe(), workspace, tracker=NullTracker()
        )  # type: ignore[arg-type]
        assert report.summary["clips trained on"] == 8
    report = multiview.run(recipe(), workspace, tracker=NullTracker())  # type: ignore[arg-type]
    for prior in priors:
        assert f"PSNR of unseen views, {prior}" in report.summary
    assert "PSNR of unseen views, video-prior better than image-prior by" in report.summary
    out = workspace.multiview_evaluation
    assert (out / "sheet.png").is_file()
    assert len(list((out / "videos").glob("*.mp4"))) == 1
