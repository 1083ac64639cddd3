"""Stage lora: real ranks train an adapter on the clips of one camera class, and nothing else."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from svd.config.lora import LoraConfig
from svd.config.model import DenoiserConfig
from svd.errors import ConfigError, MissingInputError
from svd.models.adapters.lora import add_adapter, remove_adapter
from svd.models.adapters.lora_file import load_adapter
from svd.models.checkpoints.weights import load_weights, save_weights
from svd.models.networks.denoiser import Denoiser
from svd.runtime.fingerprint import file_sha256
from svd.runtime.tracking import NullTracker
from svd.runtime.workspace import Workspace
from svd.training.live import export_checkpoint, find_jobs, pick_checkpoint
from svd.training.loop.pace import Shapes, Work
from svd.training.stage import stages
from svd.types.artifact import ModelRecord
from svd.types.base import write_records
from svd.types.camera import CameraLabel
from tests.unit.training.conftest import drawn_unet
from tests.unit.training.world import DENOISER, NUM_FRAMES, Recipe, make_world, stage_config

ADAPTER = LoraConfig(rank=2, alpha=2)


def recipe(*, num_phases: int = 1) -> Recipe:
    config = stage_config(phase={"num_steps": 4, "lr": 1.0e-2}, init="finetune-i2v")
    second = config.phases[0].model_copy(update={"name": "more", "num_steps": 2})
    phases = (config.phases[0], second)[:num_phases]
    lora = config.model_copy(update={"adapter": ADAPTER, "phases": phases})
    return Recipe(seed=1, denoiser=DENOISER, lora=lora)


def image_to_video() -> DenoiserConfig:
    unet = DENOISER.unet.model_copy(update={"in_channels": 8})
    return DENOISER.model_copy(update={"unet": unet})


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    """A data set of twelve clips, six of them zooms, and an image-to-video model."""
    found = make_world(tmp_path)
    labels = [
        CameraLabel(
            clip_id=f"clip{number:03d}", camera="zoom" if number % 2 else "static", reading=None
        )
        for number in range(12)
    ]
    write_records(found.camera_motion / "labels.jsonl", labels)
    base = Denoiser(image_to_video())
    drawn_unet(base.unet)
    save_weights(base.unet, found.model("finetune-i2v") / "weights.safetensors")
    return found


@pytest.mark.parametrize("num_phases", [1, 2], ids=["one-phase", "two-phases"])
def test_an_adapter_is_trained_on_its_class_and_the_base_stays(
    workspace: Workspace, num_phases: int
) -> None:
    base = workspace.model("finetune-i2v") / "weights.safetensors"
    before = base.read_bytes()
    stages.run("lora@zoom", recipe(num_phases=num_phases), workspace, tracker=NullTracker())
    out = workspace.model("lora@zoom")
    record = ModelRecord.parse((out / "model.json").read_text(), origin="model.json")
    assert (record.kind, record.stage) == ("lora", "lora@zoom")
    assert record.architecture == ADAPTER.model_dump(mode="json")
    assert record.init_sha256 == file_sha256(base)
    assert base.read_bytes() == before
    unet = Denoiser(image_to_video()).unet
    load_weights(unet, base)
    adapter = load_adapter(out / "weights.safetensors", unet)
    assert record.num_parameters == sum(d.numel() + u.numel() for d, u in adapter.factors.values())
    assert all(factors.up.abs().max() > 0 for factors in adapter.factors.values())
    inputs = (
        torch.randn(1, NUM_FRAMES, 8, 4, 8, generator=torch.Generator().manual_seed(0)),
        torch.zeros(1),
        torch.ones(1, 1, 16),
        torch.ones(1, 24),
    )
    with torch.no_grad():
        plain = unet(*inputs)
        add_adapter(unet, "zoom", adapter, origin="test")
        assert not torch.equal(unet(*inputs), plain)
        remove_adapter(unet, "zoom")
        assert torch.equal(unet(*inputs), plain)


def test_a_checkpoint_of_an_adapter_is_exported_as_an_adapter(
    workspace: Workspace, tmp_path: Path
) -> None:
    lora = recipe().lora
    assert lora is not None
    kept = lora.checkpoint.model_copy(update={"keep_every_steps": 4})
    params = Recipe(seed=1, denoiser=DENOISER, lora=lora.model_copy(update={"checkpoint": kept}))
    stages.run("lora@zoom", params, workspace, tracker=NullTracker())
    found = pick_checkpoint(find_jobs(workspace, "lora@zoom"), step=4, phase=None)
    record = export_checkpoint(found, tmp_path / "export", averaged=True)
    assert record.kind == "lora"
    exported = load_file(tmp_path / "export" / "weights.safetensors")
    published = load_file(workspace.model("lora@zoom") / "weights.safetensors")
    assert exported.keys() == published.keys()
    assert all(torch.equal(exported[name], published[name]) for name in exported)


def test_the_work_of_an_adapter_is_less_than_that_of_all_weights() -> None:
    shapes = Shapes(
        torch.Size((1, NUM_FRAMES, 4, 4, 8)),
        torch.Size((1, 1, 16)),
        torch.Size((1, 24)),
        torch.Size((1, NUM_FRAMES, 4, 4, 8)),
    )
    adapter = Work(image_to_video(), "adapter", adapter=ADAPTER, peak=1.0).flops(shapes)
    whole = Work(image_to_video(), "all", peak=1.0).flops(shapes)
    assert 0 < adapter < whole


def test_a_class_without_clips_and_clips_without_labels_are_one_clear_error(
    workspace: Workspace,
) -> None:
    with pytest.raises(ConfigError, match="none of the 8 training clips has a horizontal camera"):
        stages.run("lora@horizontal", recipe(), workspace, tracker=NullTracker())
    (workspace.camera_motion / "labels.jsonl").unlink()
    with pytest.raises(MissingInputError, match="run `svd curate camera-motion` first"):
        stages.run("lora@zoom", recipe(), workspace, tracker=NullTracker())
