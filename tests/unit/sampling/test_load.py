"""Components from folders, and what is said when a folder is not right."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from svd.config.sampling import PlacementConfig, SamplingConfig, ScheduleConfig
from svd.errors import CheckpointError, ConfigError, IntegrityError, MissingInputError
from svd.models.checkpoints.convert import convert
from svd.models.checkpoints.weights import save_weights
from svd.sampling.load import load_components
from svd.sampling.samplers.components import Components, pick_device
from svd.sampling.samplers.sampler import image_to_video

CONFIG = SamplingConfig(num_frames=3, height=16, width=24, schedule=ScheduleConfig(num_steps=2))
PICTURE = torch.full((1, 16, 24, 3), 90, dtype=torch.uint8)


def load(root: Path, **placement) -> Components:
    models = root / "models"
    return load_components(
        models / "finetune-i2v",
        models / "autoencoder",
        placement=PlacementConfig(device="cpu", **placement),
    )


def edit_record(folder: Path, **changes) -> None:
    path = folder / "model.json"
    tree = json.loads(path.read_text())
    path.write_text(json.dumps({**tree, **changes}))


def test_a_loaded_model_samples_as_the_one_that_was_saved(
    project: Callable[[], Path], image_model: Components
) -> None:
    root = project()
    assert image_model.temporal_decoder is not None
    save_weights(
        image_model.temporal_decoder, root / "models/autoencoder/temporal_decoder.safetensors"
    )
    loaded = load(root)
    expected = image_to_video(image_model, PICTURE, config=CONFIG, seeds=[1])
    assert torch.equal(image_to_video(loaded, PICTURE, config=CONFIG, seeds=[1]), expected)
    offloaded = load(root, offload=True)
    assert torch.equal(image_to_video(offloaded, PICTURE, config=CONFIG, seeds=[1]), expected)


def test_a_converted_model_samples_as_its_source_from_any_folder(
    project: Callable[[], Path], image_model: Components, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = project()
    assert image_model.temporal_decoder is not None
    models = root / "models"
    save_weights(image_model.temporal_decoder, models / "autoencoder/temporal_decoder.safetensors")
    convert(
        models / "finetune-i2v", root / "new", layout="ours", autoencoder=models / "autoencoder"
    )
    monkeypatch.chdir(models)
    loaded = load_components(root / "new/denoiser", root / "new/autoencoder")
    expected = image_to_video(image_model, PICTURE, config=CONFIG, seeds=[1])
    assert torch.equal(image_to_video(loaded, PICTURE, config=CONFIG, seeds=[1]), expected)


def test_the_decoder_is_the_one_that_is_asked_for(
    project: Callable[[], Path], image_model: Components
) -> None:
    models = project() / "models"
    places = (models / "finetune-i2v", models / "autoencoder")
    with pytest.raises(MissingInputError, match="svd finetune-decoder trains one"):
        load_components(*places, decoder="temporal")
    assert image_model.temporal_decoder is not None
    save_weights(image_model.temporal_decoder, places[1] / "temporal_decoder.safetensors")
    assert load_components(*places).temporal_decoder is not None
    assert load_components(*places, decoder="temporal").temporal_decoder is not None
    assert load_components(*places, decoder="image").temporal_decoder is None


def test_precision_is_that_of_the_placement(project: Callable[[], Path]) -> None:
    loaded = load(project(), precision="bf16", autoencoder_precision="fp16")
    assert next(loaded.denoiser.parameters()).dtype == torch.bfloat16
    assert next(loaded.autoencoder.parameters()).dtype == torch.float16
    assert loaded.image_encoder is not None
    assert next(loaded.image_encoder.parameters()).dtype == torch.bfloat16
    assert not any(weight.requires_grad for weight in loaded.denoiser.parameters())


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_half_precision_stays_near_full(project: Callable[[], Path], precision: str) -> None:
    root = project()
    half = load(root, precision=precision, autoencoder_precision=precision)
    full = image_to_video(load(root), PICTURE, config=CONFIG, seeds=[1])
    got = image_to_video(half, PICTURE, config=CONFIG, seeds=[1])
    assert full.float().std() > 10
    assert (full.float() - got.float()).abs().mean() < 6


def test_a_folder_without_a_model_says_how_to_get_one(tmp_path: Path) -> None:
    with pytest.raises(MissingInputError, match=r"holds no denoiser .* svd convert"):
        load(tmp_path)


def test_weights_that_are_not_those_of_the_record_stop(project: Callable[[], Path]) -> None:
    root = project()
    edit_record(root / "models/finetune-i2v", weights_sha256="0" * 64)
    with pytest.raises(IntegrityError, match="names 0000"):
        load(root)


def test_missing_weights_are_named(project: Callable[[], Path]) -> None:
    root = project()
    (root / "models/finetune-i2v/weights.safetensors").unlink()
    with pytest.raises(MissingInputError, match="run stage finetune-i2v"):
        load(root)


def test_another_kind_of_model_is_refused(project: Callable[[], Path]) -> None:
    root = project()
    with pytest.raises(CheckpointError, match="holds a model of kind autoencoder, not denoiser"):
        load_components(root / "models/autoencoder", root / "models/autoencoder")


def test_an_architecture_that_is_none_is_refused(project: Callable[[], Path]) -> None:
    root = project()
    edit_record(root / "models/finetune-i2v", architecture={"unet": {"in_channels": 8}})
    with pytest.raises(CheckpointError, match="not a DenoiserConfig"):
        load(root)


def test_a_scale_that_is_none_is_refused(project: Callable[[], Path]) -> None:
    root = project()
    edit_record(root / "models/finetune-i2v", extras={"latent_scale": "big"})
    with pytest.raises(CheckpointError, match="latent_scale='big'"):
        load(root)


@pytest.mark.parametrize(
    ("name", "words"),
    [("quantum", "device=quantum is not a torch device"), ("cuda:97", "this machine has")],
)
def test_a_device_that_is_not_there_is_named(name: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        pick_device(name)
