import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from clip_workspace import make_workspace, read_params

from svd.config.decoder import DecoderTraining
from svd.config.model import AutoencoderConfig
from svd.data.latents import load_autoencoder
from svd.errors import ConfigError, IntegrityError, TrainingDivergedError
from svd.models.critics.discriminator import hinge_loss, new_discriminator
from svd.models.networks.autoencoder import Autoencoder
from svd.models.networks.temporal_decoder import (
    TemporalDecoder,
    from_image_decoder,
    is_temporal_decoder_layer,
)
from svd.runtime.seed import torch_generator
from svd.runtime.tracking import NullTracker
from svd.runtime.workspace import Workspace
from svd.sampling.load import load_autoencoder as load_both
from svd.training.pixels import autoencoder as autoencoder_stage
from svd.training.pixels import decoder as stage
from svd.training.pixels import solo_fit
from svd.training.pixels.autoencoder_init import new_autoencoder
from svd.training.pixels.crops import draw_windows, window_starts
from svd.training.pixels.decoder_fit import DecoderPupil, DecoderRow, Teachers
from svd.training.pixels.decoder_objective import adaptive_weight, decoder_loss
from svd.training.pixels.learner import Learner
from svd.training.pixels.solo_fit import SoloFit
from svd.types.artifact import StageReport
from svd.types.base import read_records

CONFIG = AutoencoderConfig(
    base_channels=4, channel_mult=(1, 2, 2, 2), num_res_blocks=1, norm_groups=2
)


def run(workspace: Workspace) -> StageReport:
    return stage.run(read_params(workspace), workspace, tracker=NullTracker())  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def encoded(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """A workspace whose autoencoder is trained."""
    workspace = make_workspace(tmp_path_factory.mktemp("encoded"))
    autoencoder_stage.run(read_params(workspace), workspace, tracker=NullTracker())  # type: ignore[arg-type]
    return workspace


def copy_of(workspace: Workspace, root: Path) -> Workspace:
    shutil.copytree(workspace.root, root)
    shutil.rmtree(root / "models/finetune-decoder", ignore_errors=True)
    return Workspace(root)


@pytest.fixture(scope="module")
def trained(
    encoded: Workspace, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Workspace, StageReport]:
    workspace = copy_of(encoded, tmp_path_factory.mktemp("trained") / "root")
    return workspace, run(workspace)


def drawn_autoencoder() -> Autoencoder:
    """An autoencoder all of whose weights matter, the 1x1 convolution before the decoder too."""
    torch.manual_seed(0)
    autoencoder = Autoencoder(CONFIG)
    with torch.no_grad():
        for parameter in autoencoder.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return autoencoder.requires_grad_(requires_grad=False)


def training(**changes: object) -> DecoderTraining:
    base = {
        "num_steps": 40,
        "batch_size": 2,
        "num_frames": 4,
        "crop": 16,
        "trainable": "temporal",
        "lr": 5e-3,
        "perceptual": None,
        "adversary": None,
        "ema_decay": 0.9,
        "checkpoint_every_steps": 100,
        "log_every_steps": 10,
    }
    return DecoderTraining.model_validate(base | changes)


def noisy_frames(num: int = 16) -> np.ndarray:
    """Frames (t, 3, 32, 32) that drift, each with noise of its own: what only time can remove."""
    y, x = np.mgrid[0:32, 0:32]
    waves = [[np.sin((x + i) / 5), np.cos((y - i) / 4), np.sin((x + y) / 6)] for i in range(num)]
    noise = np.random.default_rng(0).normal(0, 12, (num, 3, 32, 32))
    return np.clip(127.5 + 100 * np.array(waves) + noise, 0, 255).astype(np.uint8)


def fit(
    autoencoder: Autoencoder, frames: np.ndarray, config: DecoderTraining, checkpoint: Path
) -> tuple[SoloFit[DecoderRow], TemporalDecoder]:
    """Fit a decoder to two clips of eight frames."""
    pupil = DecoderPupil(Teachers(autoencoder, None, 1.0), frames, (8, 8), config, seed=0)
    course = SoloFit(pupil, config, checkpoint)
    course.run(description="training the temporal decoder", tracker=NullTracker())
    return course, pupil.decoder


@torch.no_grad()
def test_it_starts_as_the_image_decoder_and_knows_no_time_away_from_the_rim() -> None:
    autoencoder = drawn_autoencoder()
    latents = torch.randn(6, 4, 4, 4, generator=torch.Generator().manual_seed(1))
    autoencoder.post_quant_conv.bias.zero_()  # with a bias the outermost pixels differ, see there
    decoder = from_image_decoder(autoencoder, torch.Generator())
    torch.testing.assert_close(
        decoder.decode(latents, num_frames=6), autoencoder.decode(latents), atol=1e-5, rtol=1e-5
    )
    torch.testing.assert_close(
        decoder.decode(latents.flip(0), num_frames=3).flip(0),
        decoder.decode(latents, num_frames=1),
        atol=1e-5,
        rtol=1e-5,
    )


def test_output_is_an_autoencoders_folder_with_the_decoder_that_its_record_names(
    trained: tuple[Workspace, StageReport],
) -> None:
    workspace, report = trained
    folder = workspace.model("finetune-decoder")
    autoencoder, decoder, scale = load_both(folder)
    base, record = load_autoencoder(workspace.model("autoencoder"))
    assert decoder is not None
    assert scale == record.extras["latent_scale"]
    for name, tensor in base.state_dict().items():
        assert torch.equal(autoencoder.state_dict()[name], tensor)
    assert [row.step for row in read_records(folder / "history.jsonl", DecoderRow)] == [3, 6]
    assert report.summary["steps"] == 6
    assert list(workspace.runs.iterdir()) == []
    picture = cv2.imread(str(folder / "preview.jpg"))
    assert picture.shape == (3 * 16, 4 * 32, 3)


def test_only_what_looks_over_time_is_trained(trained: tuple[Workspace, StageReport]) -> None:
    autoencoder, decoder, _ = load_both(trained[0].model("finetune-decoder"))
    assert decoder is not None
    before = from_image_decoder(autoencoder, torch_generator(1, 35)).state_dict()
    changed = {n for n, t in decoder.state_dict().items() if not torch.equal(t, before[n])}
    assert changed
    assert all(is_temporal_decoder_layer(name) for name in changed)


@pytest.mark.parametrize("kill_at", [1, 3, 5], ids=["alone", "with adversary", "late"])
def test_killed_run_ends_in_the_bytes_of_an_unbroken_one(
    encoded: Workspace,
    trained: tuple[Workspace, StageReport],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    kill_at: int,
) -> None:
    workspace = copy_of(encoded, tmp_path / "root")
    real = solo_fit.rate_factor
    asked: list[int] = []

    def die(step: int, *, num_steps: int, warmup: int) -> float:
        asked.append(step)
        if step == kill_at and asked.count(step) == 1:
            raise KeyboardInterrupt
        return real(step, num_steps=num_steps, warmup=warmup)

    monkeypatch.setattr(solo_fit, "rate_factor", die)
    with pytest.raises(KeyboardInterrupt):
        run(workspace)
    assert not workspace.model("finetune-decoder").exists()
    asked.append(-1)
    report = run(workspace)
    assert asked[asked.index(-1) + 1] == kill_at // 2 * 2  # the last checkpoint, not zero
    assert report == trained[1]
    ours, theirs = (one.model("finetune-decoder") for one in (workspace, trained[0]))
    for name in ("temporal_decoder.safetensors", "history.jsonl", "preview.jpg", "model.json"):
        assert (ours / name).read_bytes() == (theirs / name).read_bytes()


def test_training_lowers_the_loss_and_leaves_the_encoder_alone(tmp_path: Path) -> None:
    autoencoder = drawn_autoencoder()
    before = {name: tensor.clone() for name, tensor in autoencoder.state_dict().items()}
    config = training(trainable="all", num_steps=40, crop=32, lr=1e-2)
    course, _ = fit(autoencoder, noisy_frames(), config, tmp_path / "fit")
    assert course.rows[-1].l1 < 0.95 * course.rows[0].l1
    assert all(torch.equal(before[n], t) for n, t in autoencoder.state_dict().items())


def test_trained_on_noisy_latents_it_flickers_less_than_the_image_decoder(tmp_path: Path) -> None:
    autoencoder = new_autoencoder(CONFIG, seed=0, initial_logvar=-10.0)
    config = training(num_steps=60, lr=1e-2, latent_noise=0.5)
    still = np.repeat(noisy_frames(2), 8, axis=0)
    _, decoder = fit(autoencoder, still, config, tmp_path / "fit")
    with torch.no_grad():
        pixels = torch.from_numpy(still[:8]).float() / 127.5 - 1
        latents = autoencoder.encode(pixels).mean
        latents += 0.5 * torch.randn(latents.shape, generator=torch.Generator().manual_seed(9))
        image = autoencoder.decode(latents)
        temporal = decoder.decode(latents, num_frames=8)
    assert temporal.diff(dim=0).abs().mean() < 0.8 * image.diff(dim=0).abs().mean()
    assert (temporal - pixels).square().mean() < (image - pixels).square().mean()


def test_windows_are_neighbouring_frames_of_one_clip_and_mirrors_of_them() -> None:
    assert window_starts((3, 5, 1), 3) == [0, 3, 4, 5]
    frames = np.arange(9, dtype=np.uint8)[:, None, None, None] + np.zeros((1, 3, 16, 16), np.uint8)
    frames[:, :, :, :8] += 100
    windows = draw_windows(
        frames,
        window_starts((3, 5, 1), 3),
        batch_size=50,
        num_frames=3,
        crop=16,
        grid=8,
        generator=torch.Generator().manual_seed(0),
    )
    firsts = windows[:, 0, 0, 0].amin(dim=1)
    assert set(firsts.tolist()) == {0, 3, 4, 5}
    steps = windows[:, 1:].int() - windows[:, :-1].int()
    assert (steps == 1).all()
    assert 10 < int((windows[:, 0, 0, 0, 0] >= 100).sum()) < 40


def test_the_adaptive_weight_makes_both_gradients_equally_long() -> None:
    weight = torch.nn.Parameter(torch.tensor([1.0, 2.0]))
    first, second = (weight**2).sum(), 100 * weight.sum()
    ratio = adaptive_weight(first, second, weight)
    (a,), (b,) = (torch.autograd.grad(loss, weight, retain_graph=True) for loss in (first, second))
    assert float((ratio * b).norm()) == pytest.approx(float(a.norm()), rel=1e-4)


def test_the_loss_without_perception_and_adversary_is_l1() -> None:
    decoded, pixels = torch.rand(2, 1, 4, 3, 16, 16)
    terms = decoder_loss(
        decoded,
        pixels,
        training(),
        perceptual=None,
        discriminator=None,
        last_weight=torch.zeros(1),
    )
    assert float(terms.loss) == pytest.approx(float((decoded - pixels).abs().mean()), rel=1e-6)


def test_a_discriminator_learns_to_tell_flicker_from_motion_and_sees_all_frames() -> None:
    generator = torch.Generator().manual_seed(0)
    network = new_discriminator(channels=8, num_layers=1, generator=generator)
    still = torch.rand(8, 3, 1, 16, 16, generator=generator).expand(-1, -1, 6, -1, -1)
    flickers = still + 0.2 * torch.randn(8, 3, 6, 1, 1, generator=generator)
    adam = torch.optim.Adam(network.parameters(), lr=1e-3)
    for _ in range(40):
        loss = hinge_loss(network(still), network(flickers))
        adam.zero_grad()
        loss.backward()
        adam.step()
    assert loss.item() < 0.5  # a coin's is 1
    assert network(still).shape[2] == 6


def test_a_loss_that_is_not_finite_stops_before_the_update() -> None:
    decoder = from_image_decoder(drawn_autoencoder(), torch.Generator())
    learner = Learner(decoder)
    before = {name: p.clone() for name, p in learner.trained.items()}
    loss = sum((p**2).sum() for p in learner.trained.values()) * float("nan")
    with pytest.raises(TrainingDivergedError, match="TemporalDecoder"):
        learner.step(loss, lr=1.0, grad_clip=1.0)
    assert all(torch.equal(before[n], p) for n, p in learner.trained.items())


def test_clips_that_are_too_short_and_a_changed_file_are_said(
    trained: tuple[Workspace, StageReport], tmp_path: Path
) -> None:
    workspace = copy_of(trained[0], tmp_path / "root")
    params = read_params(workspace)
    frames = params.finetune_decoder.frames.model_copy(update={"fps": 1})
    changed = params.finetune_decoder.model_copy(update={"frames": frames})
    params.finetune_decoder = changed
    with pytest.raises(ConfigError, match="no training clip has more than 2 frames"):
        stage.run(params, workspace, tracker=NullTracker())  # type: ignore[arg-type]
    shutil.copytree(trained[0].model("finetune-decoder"), workspace.model("finetune-decoder"))
    path = workspace.model("finetune-decoder") / "temporal_decoder.safetensors"
    path.write_bytes(path.read_bytes() + b" ")
    with pytest.raises(IntegrityError, match="temporal decoder"):
        load_both(workspace.model("finetune-decoder"))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_gpu_trains_it_too(encoded: Workspace, tmp_path: Path) -> None:
    workspace = copy_of(encoded, tmp_path / "root")
    params = read_params(workspace)
    params.finetune_decoder = params.finetune_decoder.model_copy(update={"device": "cuda"})
    report = stage.run(params, workspace, tracker=NullTracker())  # type: ignore[arg-type]
    assert report.summary["steps"] == 6
