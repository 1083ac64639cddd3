import os
import signal
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import yaml
from clip_workspace import AUTOENCODER, make_workspace, read_params
from safetensors.torch import save_file

from svd.config.autoencoder import AutoencoderTraining
from svd.config.model import AutoencoderConfig
from svd.data.latents import load_autoencoder
from svd.errors import CheckpointError, ConfigError, MissingInputError, TrainingDivergedError
from svd.models.checkpoints.key_maps import autoencoder_to_diffusers
from svd.models.networks.autoencoder import Autoencoder
from svd.runtime.tracking import NullTracker
from svd.runtime.workspace import Workspace
from svd.training.pixels import autoencoder as stage
from svd.training.pixels import solo_fit
from svd.training.pixels.autoencoder_fit import AutoencoderPupil, AutoencoderRow
from svd.training.pixels.autoencoder_init import load_initial, new_autoencoder
from svd.training.pixels.crops import draw_windows
from svd.training.pixels.muon import Muon, orthogonalize
from svd.training.pixels.solo_fit import SoloFit, rate_factor
from svd.types.artifact import StageReport
from svd.types.base import read_records

CONFIG = AutoencoderConfig(
    base_channels=4, channel_mult=(1, 2, 2, 2), num_res_blocks=1, norm_groups=2
)


def run(workspace: Workspace) -> StageReport:
    return stage.run(read_params(workspace), workspace, tracker=NullTracker())  # type: ignore[arg-type]


def change(workspace: Workspace, **changes: object) -> None:
    tree = yaml.safe_load(workspace.params_file.read_text())
    for key, value in changes.items():
        *path, last = key.split("__")
        node = tree["autoencoder"]
        for part in path:
            node = node[part]
        node[last] = value
    workspace.params_file.write_text(yaml.safe_dump(tree))


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Workspace, StageReport]:
    workspace = make_workspace(tmp_path_factory.mktemp("trained"))
    return workspace, run(workspace)


def training(**changes: object) -> AutoencoderTraining:
    return AutoencoderTraining.model_validate(AUTOENCODER["training"] | changes)  # type: ignore[operator]


def fit(
    autoencoder: Autoencoder, config: AutoencoderTraining, checkpoint: Path
) -> SoloFit[AutoencoderRow]:
    pupil = AutoencoderPupil(autoencoder, gradients(), config, seed=0)
    course = SoloFit(pupil, config, checkpoint)
    course.run(description="training the autoencoder", tracker=NullTracker())
    return course


def gradients(num_frames: int = 12) -> np.ndarray:
    """Frames (t, 3, 32, 32) whose colours change smoothly."""
    y, x = np.mgrid[0:32, 0:32]
    planes = [
        [np.sin((x + 3 * i) / 9), np.cos((y - 2 * i) / 7), np.sin((x + y + i) / 11)]
        for i in range(num_frames)
    ]
    return (127.5 + 120 * np.array(planes)).astype(np.uint8)


def test_output_is_complete_and_loads(trained: tuple[Workspace, StageReport]) -> None:
    workspace, report = trained
    folder = workspace.model("autoencoder")
    assert sorted(path.name for path in folder.iterdir()) == [
        "history.jsonl",
        "model.json",
        "preview.jpg",
        "weights.safetensors",
    ]
    autoencoder, record = load_autoencoder(folder)
    assert record.weights_sha256 == report.summary["weights"]
    assert record.num_parameters == sum(p.numel() for p in autoencoder.parameters())
    assert (record.step, record.examples_seen, record.init_sha256) == (6, 12, None)
    assert [row.step for row in read_records(folder / "history.jsonl", AutoencoderRow)] == [3, 6]
    assert list(workspace.runs.iterdir()) == []


def test_latents_have_unit_variance_at_the_measured_scale(
    trained: tuple[Workspace, StageReport],
) -> None:
    workspace, report = trained
    autoencoder, record = load_autoencoder(workspace.model("autoencoder"))
    assert record.extras["latent_scale"] == autoencoder.config.latent_scale
    std = float(report.summary["latent std"])
    assert autoencoder.config.latent_scale * std == pytest.approx(1, rel=1e-3)


def test_measure_gives_the_psnr_and_std_of_their_definitions() -> None:
    frames = gradients()
    autoencoder = new_autoencoder(CONFIG, seed=0, initial_logvar=-5.0)
    quality = stage.measure(autoencoder, frames, frames[:3])
    with torch.no_grad():
        pixels = torch.from_numpy(frames).float() / 127.5 - 1
        mean, logvar = autoencoder.encode(pixels)
        decoded = autoencoder.decode(mean[:3]).clamp(-1, 1)
    psnr = [
        cv2.PSNR(one.numpy() * 127.5, two.numpy() * 127.5)
        for one, two in zip(pixels[:3], decoded, strict=True)
    ]
    assert quality.heldout_psnr_db == pytest.approx(np.mean(psnr), abs=0.02)
    noise = torch.randn(200, *mean.shape, generator=torch.Generator().manual_seed(0))
    samples = mean + (logvar / 2).exp() * noise
    assert quality.latent_std == pytest.approx(float(samples.std()), rel=1e-2)


def test_preview_shows_originals_above_reconstructions(
    trained: tuple[Workspace, StageReport],
) -> None:
    picture = cv2.imread(str(trained[0].model("autoencoder") / "preview.jpg"))
    assert picture.shape == (2 * 16, 4 * 32, 3)  # the one held-out clip gives four frames


def test_training_lowers_the_loss(tmp_path: Path) -> None:
    wider = AutoencoderConfig(
        base_channels=8, channel_mult=(1, 1, 2, 2), num_res_blocks=1, norm_groups=1
    )
    autoencoder = new_autoencoder(wider, seed=0, initial_logvar=-5.0)
    config = training(num_steps=60, batch_size=4, kernel_lr=0.02, log_every_steps=10)
    course = fit(autoencoder, config, tmp_path / "fit")
    assert course.rows[-1].l1 < 0.75 * course.rows[0].l1


@pytest.mark.parametrize("kill_at", [1, 2, 3, 5])
def test_killed_run_ends_in_the_bytes_of_an_unbroken_one(
    trained: tuple[Workspace, StageReport],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    kill_at: int,
) -> None:
    workspace = make_workspace(tmp_path)
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
    asked.append(-1)
    report = run(workspace)
    resumed = asked[asked.index(-1) + 1 :]
    assert resumed[0] == kill_at // 2 * 2  # the last checkpoint, not zero
    asked.clear()
    assert report == trained[1]
    ours, theirs = (one.model("autoencoder") for one in (workspace, trained[0]))
    for name in ("weights.safetensors", "history.jsonl", "preview.jpg"):
        assert (ours / name).read_bytes() == (theirs / name).read_bytes()


_CHILD = """
import sys
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
sys.path[:0] = {paths!r}
from clip_workspace import read_params
from svd.runtime.tracking import NullTracker
from svd.runtime.workspace import Workspace
from svd.training.pixels.autoencoder import run
workspace = Workspace(Path({root!r}))
run(read_params(workspace), workspace, tracker=NullTracker())
"""


@pytest.mark.faults
def test_sigkill_costs_steps_but_no_bits(tmp_path: Path) -> None:
    changes = {"training__num_steps": 60, "training__checkpoint_every_steps": 5}
    workspaces = [make_workspace(tmp_path / name) for name in ("broken", "unbroken")]
    for workspace in workspaces:
        change(workspace, **changes)
    broken, unbroken = workspaces
    code = _CHILD.format(paths=[str(Path(__file__).parents[1])], root=str(broken.root))
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    child = subprocess.Popen([sys.executable, "-c", code], env=environment)
    deadline = time.monotonic() + 120
    while not list(broken.runs.glob("*/checkpoint.safetensors")):
        assert child.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.01)
    child.send_signal(signal.SIGKILL)
    child.wait()
    assert not broken.model("autoencoder").exists()
    run(broken)
    run(unbroken)
    first, second = (one.model("autoencoder") / "weights.safetensors" for one in workspaces)
    assert first.read_bytes() == second.read_bytes()


def test_another_seed_gives_other_weights(
    trained: tuple[Workspace, StageReport], tmp_path: Path
) -> None:
    workspace = make_workspace(tmp_path)
    params = read_params(workspace)
    params.seed = 2
    report = stage.run(params, workspace, tracker=NullTracker())  # type: ignore[arg-type]
    assert report.summary["weights"] != trained[1].summary["weights"]


def test_crops_are_parts_of_frames_and_mirrors_of_them() -> None:
    frames = gradients(3)
    generator = torch.Generator().manual_seed(0)
    windows = draw_windows(
        frames, range(3), batch_size=40, num_frames=1, crop=16, grid=8, generator=generator
    )
    crops = windows.squeeze(1)
    places = [
        frames[i, :, top : top + 16, left : left + 16]
        for i in range(3)
        for top in (0, 8, 16)
        for left in (0, 8, 16)
    ]
    plain = sum(any(np.array_equal(c, p) for p in places) for c in crops.numpy())
    mirrored = sum(any(np.array_equal(c[:, :, ::-1], p) for p in places) for c in crops.numpy())
    assert plain + mirrored == 40
    assert 10 < plain < 30


def test_rate_rises_then_falls_to_zero() -> None:
    config = training(num_steps=100, lr_warmup_steps=10)
    rates = [
        rate_factor(step, num_steps=config.num_steps, warmup=config.lr_warmup_steps)
        for step in range(101)
    ]
    assert rates[:10] == pytest.approx([0.1 * i for i in range(1, 11)])
    assert all(later <= sooner for sooner, later in pairwise(rates[9:]))
    assert rates[55] == pytest.approx(0.5)
    assert rates[100] == pytest.approx(0)


def test_loss_that_is_not_finite_stops_before_the_update(tmp_path: Path) -> None:
    autoencoder = new_autoencoder(CONFIG, seed=0, initial_logvar=-5.0)
    with torch.no_grad():
        autoencoder.decoder.conv_out.weight.fill_(float("inf"))
    before = autoencoder.encoder.conv_in.weight.clone()
    with pytest.raises(TrainingDivergedError, match="at step 1"):
        fit(autoencoder, training(), tmp_path / "fit")
    assert autoencoder.encoder.conv_in.weight.equal(before)


def _layouts(autoencoder: Autoencoder) -> dict[str, dict[str, torch.Tensor]]:
    ours = {name: tensor.contiguous() for name, tensor in autoencoder.state_dict().items()}
    diffusers = {}
    for name, tensor in ours.items():
        is_matrix = ".attn_1." in name and tensor.dim() == 4
        foreign = autoencoder_to_diffusers(name)
        diffusers[foreign] = tensor[:, :, 0, 0].contiguous() if is_matrix else tensor
    sd = {f"first_stage_model.{name}": tensor for name, tensor in ours.items()}
    sd["model.diffusion_model.out.2.weight"] = torch.zeros(4)
    return {"ours": ours, "stable-diffusion": sd, "diffusers": diffusers}


@pytest.mark.parametrize("layout", ["ours", "stable-diffusion", "diffusers"])
def test_weights_are_imported_from_every_known_layout(tmp_path: Path, layout: str) -> None:
    source = new_autoencoder(CONFIG, seed=5, initial_logvar=-5.0)
    save_file(_layouts(source)[layout], tmp_path / "vae.safetensors")
    target = new_autoencoder(CONFIG, seed=6, initial_logvar=-5.0)
    load_initial(target, tmp_path / "vae.safetensors")
    for name, tensor in target.state_dict().items():
        assert tensor.equal(source.state_dict()[name]), name


def test_imported_weights_with_no_steps_are_kept_as_they_are(tmp_path: Path) -> None:
    workspace = make_workspace(tmp_path)
    source = new_autoencoder(CONFIG, seed=5, initial_logvar=-5.0)
    save_file(_layouts(source)["stable-diffusion"], tmp_path / "vae.safetensors")
    change(workspace, init="vae.safetensors", training__num_steps=0, latent_scale="given")
    run(workspace)
    autoencoder, record = load_autoencoder(workspace.model("autoencoder"))
    assert autoencoder.config.latent_scale == 0.18215
    assert record.init_sha256 is not None
    for name, tensor in autoencoder.state_dict().items():
        assert tensor.equal(source.state_dict()[name]), name


def test_weights_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    tensors = _layouts(new_autoencoder(CONFIG, seed=5, initial_logvar=-5.0))["ours"]
    tensors.pop("decoder.conv_in.bias")
    save_file(tensors, tmp_path / "vae.safetensors")
    with pytest.raises(CheckpointError, match=r"1 missing: decoder\.conv_in\.bias"):
        load_initial(
            new_autoencoder(CONFIG, seed=6, initial_logvar=-5.0), tmp_path / "vae.safetensors"
        )


def test_missing_initial_weights_name_the_key(tmp_path: Path) -> None:
    workspace = make_workspace(tmp_path)
    change(workspace, init="nowhere.safetensors")
    with pytest.raises(MissingInputError, match=r"autoencoder\.init=nowhere\.safetensors"):
        run(workspace)


def test_no_heldout_clip_is_a_sentence(tmp_path: Path) -> None:
    workspace = make_workspace(tmp_path, heldout=0)
    with pytest.raises(ConfigError, match="held out none"):
        run(workspace)


@pytest.mark.parametrize("shape", [(8, 72), (72, 8), (16, 16)], ids=["wide", "tall", "square"])
def test_orthogonalized_matrix_keeps_its_directions_and_equalizes_their_strength(
    shape: tuple[int, int],
) -> None:
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    update = orthogonalize(matrix)
    strengths = torch.linalg.svdvals(update)
    assert strengths.min() > 0.6
    assert strengths.max() < 1.3
    u, _, v = torch.linalg.svd(matrix, full_matrices=False)
    aligned = torch.diagonal(u.mT @ update @ v.mT)
    assert aligned.min() > 0.6  # each singular direction of the matrix is still there, upright
    assert update.shape == matrix.shape


def test_scale_of_the_gradient_does_not_matter_to_kernels() -> None:
    results = []
    for scale in (1.0, 100.0):
        conv = torch.nn.Conv2d(6, 8, 3)
        with torch.no_grad():
            conv.weight.fill_(0.1)
        muon = Muon(conv.named_parameters())
        for seed in range(3):
            generator = torch.Generator().manual_seed(seed)
            conv.weight.grad = scale * torch.randn(conv.weight.shape, generator=generator)
            conv.bias.grad = torch.zeros_like(conv.bias)
            muon.step(lr=0.1, kernel_lr=0.02)
        results.append(conv.weight.detach().clone())
    torch.testing.assert_close(results[0], results[1], atol=1e-5, rtol=1e-4)
