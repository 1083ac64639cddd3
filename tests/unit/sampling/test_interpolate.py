"""`svd sample --interpolate`: n frames become 4 (n - 1) + 1, and those that were there stay."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor

from svd.config.sampling import SamplingConfig
from svd.errors import ConfigError, MediaError, MissingInputError, SvdError
from svd.media.encode import write_video
from svd.media.footage import read_footage
from svd.models.networks.denoiser import Denoiser
from svd.sampling.interpolate import Interpolator
from svd.sampling.samplers.components import Components
from svd.sampling.samplers.sampler import image_to_video
from tests.unit.sampling.conftest import (
    IMAGE,
    LATENT_SCALE,
    denoiser_config,
    drawn,
    save_model,
)
from tests.unit.sampling.test_sample_command import put_picture, read_video, run

HEIGHT, WIDTH = 32, 48
CONFIG = SamplingConfig.model_validate_json(
    json.dumps(
        {
            "num_frames": 5,
            "height": HEIGHT,
            "width": WIDTH,
            "schedule": {"num_steps": 2},
            "guidance": {"kind": "constant", "max_scale": 1.0},
            "decode_chunk_size": 5,
        }
    )
)
QUICK = ("--interpolation-set", "schedule.num_steps=2")


@pytest.fixture(scope="module")
def between(image_model: Components) -> Components:
    """An interpolation model with drawn weights."""
    config = denoiser_config(9)
    unet = config.unet.model_copy(update={"mask_embedding": (4, 1, 1)})
    components = Components(
        denoiser=drawn(Denoiser(config.model_copy(update={"unet": unet})), 5),
        autoencoder=image_model.autoencoder,
        image_encoder=image_model.image_encoder,
        latent_scale=LATENT_SCALE,
        device=torch.device("cpu"),
    )
    components.freeze()
    return components


@pytest.fixture
def with_interpolation(project: Callable[[], Path], between: Components) -> Path:
    """A checkout that has an interpolation model too."""
    root = project()
    save_model(
        root / "models" / "finetune-interpolation",
        between.denoiser.unet,
        kind="denoiser",
        config=between.denoiser.config,
        extras={
            "objective": "interpolation",
            "num_frames": 5,
            "height": HEIGHT,
            "width": WIDTH,
            "fps": "8/1",
            "image_encoder": IMAGE.model_dump(mode="json"),
            "latent_scale": LATENT_SCALE,
        },
    )
    return root


def frames(num: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (num, HEIGHT, WIDTH, 3), generator=generator).to(torch.uint8)


def put_frames(folder: Path, sizes: Sequence[tuple[int, int]]) -> Path:
    for number, (width, height) in enumerate(sizes):
        put_picture(folder / f"{number:03d}.png", height=height, width=width, seed=number)
    return folder


@pytest.mark.parametrize("num", [2, 3, 5], ids=["one-pair", "two-pairs", "four-pairs"])
def test_known_frames_are_reproduced_in_place(between: Components, num: int) -> None:
    known = frames(num)
    steps = []
    made = Interpolator(between, CONFIG)(known, seed=1, on_step=lambda: steps.append(1))
    assert made.shape == (4 * (num - 1) + 1, HEIGHT, WIDTH, 3)
    assert torch.equal(made[::4], known)
    assert len(steps) == Interpolator(between, CONFIG).num_steps(num)


def test_new_frames_depend_on_both_ends_and_not_on_the_batch(between: Components) -> None:
    known = frames(4)
    one = Interpolator(between, CONFIG)(known, seed=1, on_step=lambda: None)
    many = CONFIG.model_copy(update={"batch_size": 3})
    close = (
        one.int() - Interpolator(between, many)(known, seed=1, on_step=lambda: None).int()
    ).abs()
    assert close.max() <= 1  # rounding, where a batch sums in another order
    changed = known.clone()
    changed[1] = 255 - changed[1]
    other = Interpolator(between, CONFIG)(changed, seed=1, on_step=lambda: None)
    assert not torch.equal(one[1:4], other[1:4])
    assert not torch.equal(one[5:8], other[5:8])
    assert torch.equal(one[9:], other[9:])


def test_a_video_becomes_four_times_as_fast(
    with_interpolation: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = with_interpolation
    write_video(root / "clip.mp4", list(frames(3).numpy()), 6)
    lines = run(
        root, "--interpolate", "--video", "clip.mp4", "--steps", "2", monkeypatch=monkeypatch
    )
    assert lines == ["samples/clip-seed23.mp4", "samples/clip-seed23.json"]
    assert len(read_video(root / "samples/clip-seed23.mp4")) == 9
    assert read_footage(root / "samples/clip-seed23.mp4", height=32, width=48).fps == 24
    record = json.loads((root / "samples/clip-seed23.json").read_text())
    assert record["stage"] == "finetune-interpolation"
    assert record["interpolation"]["guidance"]["kind"] == "constant"
    assert record["picture"] == "clip.mp4"


def test_image_to_video_and_interpolation_chain(
    with_interpolation: Path, image_model: Components, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = with_interpolation
    put_picture(root / "cat.png", height=HEIGHT, width=WIDTH)
    plain = ("--image", "cat.png", "--steps", "2", "--format", "png")
    run(root, *plain, "--out", "plain", monkeypatch=monkeypatch)
    run(root, *plain, "--out", "chain", "--interpolate", *QUICK, monkeypatch=monkeypatch)
    sampled = sorted((root / "plain/cat-seed23").glob("*.png"))
    chained = sorted((root / "chain/cat-seed23").glob("*.png"))
    assert (len(sampled), len(chained)) == (3, 9)
    for own, theirs in zip(sampled, chained[::4], strict=True):
        assert np.array_equal(cv2.imread(str(own)), cv2.imread(str(theirs)))


@pytest.mark.parametrize(
    ("arguments", "kind", "said"),
    [
        (["--video", "sizes", "--interpolate"], MediaError, "frame 1 is 40x60 and the first 60x60"),
        (["--video", "one", "--interpolate"], MediaError, "it has 1 frames, not 2 or more"),
        (["--video", "none.mp4", "--interpolate"], MissingInputError, "none.mp4: no such file"),
        (["--video", "text.mp4", "--interpolate"], MediaError, "text.mp4"),
        (["--video", "sizes"], ConfigError, "--video is for --interpolate"),
        (["--video", "sizes", "--image", "cat.png"], ConfigError, "give pictures"),
        (
            ["--image", "cat.png", "--interpolate", "--interpolation-model", "models/finetune-i2v"],
            ConfigError,
            "has no mask embedding",
        ),
        (
            ["--image", "cat.png", "--model", "models/finetune-interpolation"],
            ConfigError,
            "puts frames between others: give it a video",
        ),
        (["--image", "cat.png", "--interpolate", "--interpolation-set", "a"], ConfigError, "KEY="),
    ],
)
def test_bad_input_is_one_clear_error(
    with_interpolation: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    kind: type[SvdError],
    said: str,
) -> None:
    root = with_interpolation
    put_picture(root / "cat.png", height=HEIGHT, width=WIDTH)
    put_frames(root / "sizes", [(60, 60), (40, 60)])
    put_frames(root / "one", [(60, 60)])
    (root / "text.mp4").write_text("no video")
    with pytest.raises(kind, match=said):
        run(root, *arguments, "--steps", "2", monkeypatch=monkeypatch)


def test_a_picture_model_says_that_it_interpolates_nothing(image_model: Components) -> None:
    with pytest.raises(ConfigError, match="svd finetune-interpolation"):
        Interpolator(image_model, CONFIG)(frames(2), seed=0, on_step=lambda: None)


def test_an_interpolation_model_takes_no_picture(between: Components) -> None:
    with pytest.raises(ConfigError, match="give it a video"):
        image_to_video(between, frames(1), config=CONFIG, seeds=[0])
