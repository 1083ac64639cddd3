"""`svd sample` from the outside: files, and one clear error for each bad input."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from svd.commands import sample
from svd.errors import ConfigError, MediaError, MissingInputError, SvdError
from svd.media.encode import write_video
from svd.media.picture import read_picture
from svd.models.networks.denoiser import Denoiser
from svd.sampling.publish import SampleRecord
from svd.sampling.watermark import agreement, embed_watermark
from tests.unit.sampling.conftest import (
    IMAGE,
    LATENT_SCALE,
    denoiser_config,
    drawn,
    save_model,
)

QUICK = ("--steps", "2", "--decode-chunk-size", "2")


def run(root: Path, *arguments: str, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    return invoke(root, "sample", *arguments, monkeypatch=monkeypatch)


def invoke(root: Path, *arguments: str, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Run a command in a folder; return the lines it prints, or raise its error."""
    app = typer.Typer()
    app.callback()(lambda: None)
    sample.add_commands(app)
    monkeypatch.chdir(root)
    result = CliRunner().invoke(app, list(arguments))
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.stdout.splitlines()


def put_picture(path: Path, *, height: int = 60, width: int = 60, seed: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    coarse = np.random.default_rng(seed).integers(0, 256, (4, 4, 3)).astype(np.uint8)
    cv2.imwrite(str(path), cv2.resize(coarse, (width, height)))
    return path


def read_video(path: Path) -> np.ndarray:
    with av.open(str(path)) as container:
        return np.stack([f.to_ndarray(format="rgb24") for f in container.decode(video=0)])


def test_a_picture_becomes_files_of_every_kind(
    project: Callable[[], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    root = project()
    put_picture(root / "cat.png")
    formats = [word for name in ("mp4", "gif", "png", "sheet") for word in ("--format", name)]
    lines = run(
        root, "--image", "cat.png", *QUICK, *formats, "--seed", "5", monkeypatch=monkeypatch
    )
    assert lines == [
        "samples/cat-seed5.mp4",
        "samples/cat-seed5.gif",
        "samples/cat-seed5",
        "samples/cat-seed5.json",
        "samples/sheet.png",
    ]
    frames = read_video(root / "samples/cat-seed5.mp4")
    assert frames.shape == (3, 32, 48, 3)  # what the model was trained on
    assert len(list((root / "samples/cat-seed5").glob("*.png"))) == 3
    record = SampleRecord.parse(
        (root / "samples/cat-seed5.json").read_text(), origin="cat-seed5.json"
    )
    assert (record.seed, record.picture, record.stage) == (5, "cat.png", "finetune-i2v")
    assert record.sampling.schedule.num_steps == 2
    assert record.sampling.fps == 8


def test_a_second_run_writes_the_same_bytes(
    project: Callable[[], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    root = project()
    put_picture(root / "cat.png")
    for out in ("one", "two"):
        run(root, "--image", "cat.png", *QUICK, "--out", out, monkeypatch=monkeypatch)
    for name in ("cat-seed23.mp4", "cat-seed23.json"):
        assert (root / "one" / name).read_bytes() == (root / "two" / name).read_bytes()


def test_a_folder_is_sampled_and_its_bad_files_are_left_out(
    project: Callable[[], Path], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    root = project()
    put_picture(root / "in/a.png")
    put_picture(root / "in/b.jpg", seed=1)
    (root / "in/bad.png").write_bytes(b"no picture")
    (root / "in/notes.txt").write_text("not looked at")
    lines = run(
        root,
        "--image",
        "in",
        *QUICK,
        "--num-samples",
        "2",
        "--batch-size",
        "3",
        monkeypatch=monkeypatch,
    )
    videos = [line for line in lines if line.endswith(".mp4")]
    assert videos == [f"samples/{name}-seed{seed}.mp4" for name in "ab" for seed in (23, 24)]
    left_out = [record for record in caplog.records if record.message == "left out a file"]
    assert [record.reason for record in left_out] == ["not-a-picture"]


def test_prompts_go_to_the_text_model(
    project: Callable[[], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    root = project()
    lines = run(
        root, "--prompt", "A red ball!", "--prompt", "a red ball", *QUICK, monkeypatch=monkeypatch
    )
    assert [line for line in lines if line.endswith("mp4")] == [
        "samples/a-red-ball-seed23.mp4",
        "samples/a-red-ball-2-seed23.mp4",
    ]
    tree = json.loads((root / "samples/a-red-ball-seed23.json").read_text())
    assert (tree["prompt"], tree["stage"]) == ("A red ball!", "pretrain-video")


def test_segments_make_a_longer_video(
    project: Callable[[], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    root = project()
    put_picture(root / "cat.png")
    run(root, "--image", "cat.png", *QUICK, "--segments", "3", monkeypatch=monkeypatch)
    assert len(read_video(root / "samples/cat-seed23.mp4")) == 7


def test_frames_are_marked_unless_told_otherwise(
    project: Callable[[], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    root = project()
    put_picture(root / "cat.png")
    size = ("--height", "80", "--width", "80", "--format", "png")
    run(root, "--image", "cat.png", *QUICK, *size, monkeypatch=monkeypatch)
    run(
        root,
        "--image",
        "cat.png",
        *QUICK,
        *size,
        "--no-watermark",
        "--out",
        "plain",
        monkeypatch=monkeypatch,
    )

    def frames(folder: str) -> np.ndarray:
        paths = sorted((root / folder / "cat-seed23").glob("*.png"))
        return np.stack([cv2.imread(str(path))[..., ::-1] for path in paths])

    assert agreement(frames("samples")) > 0.9
    assert agreement(frames("plain")) < 0.8
    folders = [f"{name}/cat-seed23" for name in ("samples", "plain")]
    marked, plain = invoke(root, "watermark", *folders, monkeypatch=monkeypatch)
    assert re.fullmatch(r"samples/cat-seed23: marked \(4\d of 48 bits agree\)", marked)
    assert plain.startswith("plain/cat-seed23: not marked")


def test_settings_come_from_the_model_then_a_file_then_options(
    project: Callable[[], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    root = project()
    (root / "look.yaml").write_text(
        "fps: 12\nschedule: {num_steps: 9, rho: 5.0}\nguidance: {kind: triangular}\n"
    )
    lines = run(
        root,
        "--image",
        "x.png",
        "--config",
        "look.yaml",
        "--steps",
        "4",
        "--dry-run",
        "--set",
        "solver.name=heun",
        "--set",
        "guidance.max_scale=3.5",
        monkeypatch=monkeypatch,
    )
    tree = json.loads("\n".join(lines))
    assert (tree["num_frames"], tree["height"], tree["fps"]) == (3, 32, 12)
    assert (tree["schedule"]["num_steps"], tree["schedule"]["rho"]) == (4, 5.0)
    assert (tree["guidance"]["kind"], tree["guidance"]["max_scale"]) == ("triangular", 3.5)
    assert tree["solver"]["name"] == "heun"


def test_the_mark_is_looked_for_in_videos_and_pictures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    frames = np.stack([read_picture(put_picture(tmp_path / "a.png", height=128, width=192))] * 3)
    write_video(tmp_path / "marked.mp4", embed_watermark(frames), 7)
    write_video(tmp_path / "plain.mp4", frames, 7)
    put_picture(tmp_path / "tiny.png", height=20, width=20)
    names = ("marked.mp4", "plain.mp4", "a.png", "tiny.png")
    lines = invoke(tmp_path, "watermark", *names, monkeypatch=monkeypatch)
    assert [": marked (" in line for line in lines] == [True, False, False, False]
    assert "not marked" in lines[1]
    assert lines[3] == "tiny.png: 20x20 is too small to carry the mark"
    with pytest.raises(MissingInputError, match="no such file"):
        invoke(tmp_path, "watermark", "none.mp4", monkeypatch=monkeypatch)


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ((), ConfigError, "one kind"),
        (("--image", "cat.png", "--prompt", "a"), ConfigError, "one kind"),
        (("--prompt", "a", "--segments", "2"), ConfigError, "it needs --image"),
        (("--image", "none.png"), MissingInputError, "none.png: no such file"),
        (("--image", "bad.png"), MediaError, "not-a-picture"),
        (("--image", "empty"), ConfigError, "no picture to start from in empty"),
        (("--image", "cat.png", "--height", "30"), ConfigError, "try 28 or 32"),
        (("--image", "cat.png", "--fps", "0"), ConfigError, "fps"),
        (("--image", "cat.png", "--set", "schedule.rhoo=5"), ConfigError, "rhoo"),
        (("--image", "cat.png", "--set", "schedule"), ConfigError, "KEY=VALUE"),
        (("--image", "cat.png", "--set", "fps=["), ConfigError, "is not YAML"),
        (("--image", "cat.png", "--config", "none.yaml"), MissingInputError, "none.yaml"),
        (("--image", "cat.png", "--model", "empty"), MissingInputError, "holds no denoiser"),
        (("--image", "cat.png", "--model", "models/pretrain-video"), ConfigError, "takes a prompt"),
        (("--image", "cat.png", "--device", "quantum"), ConfigError, "device=quantum"),
        (("--image", "cat.png", "--safety-clip", "a"), ConfigError, "needs both"),
    ],
)
def test_bad_input_is_one_clear_error_and_writes_nothing(
    project: Callable[[], Path],
    monkeypatch: pytest.MonkeyPatch,
    arguments: tuple[str, ...],
    error: type[SvdError],
    words: str,
) -> None:
    root = project()
    put_picture(root / "cat.png")
    (root / "bad.png").write_bytes(b"no picture")
    (root / "empty").mkdir()
    with pytest.raises(error, match=words):
        run(root, *arguments, *QUICK, monkeypatch=monkeypatch)
    assert not (root / "samples").exists()


def orbit_model(root: Path) -> None:
    """Lay out a multi-view model that is told the elevation."""
    config = denoiser_config(8)
    unet = config.unet.model_copy(update={"added_cond_dim": 32})
    denoiser = drawn(Denoiser(config.model_copy(update={"unet": unet})), 5)
    save_model(
        root / "models" / "finetune-multiview@video-prior",
        denoiser.unet,
        kind="denoiser",
        config=denoiser.config,
        extras={
            "objective": "orbit", "pose": ["elevation"], "latent_scale": LATENT_SCALE,
            "num_frames": 3, "height": 32, "width": 32, "fps": "7/1",
            "image_encoder": IMAGE.model_dump(mode="json"),
        },
    )  # fmt: skip


def test_an_orbit_is_seen_from_the_height_that_is_asked_for(
    project: Callable[[], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    root = project()
    orbit_model(root)
    picture = np.zeros((20, 50, 4), np.uint8)
    picture[5:15, 10:40] = 255, 0, 0, 255
    cv2.imwrite(str(root / "toy.png"), picture)
    arguments = ["--orbit", "toy.png", "--steps", "2", "--no-watermark", "--format", "png"]
    seen = []
    for elevation in ("-5", "-5", "30"):
        place = ("--elevation", elevation, "--out", f"at{len(seen)}")
        run(root, *arguments, *place, monkeypatch=monkeypatch)
        frames = sorted((root / f"at{len(seen)}").rglob("*.png"))
        assert len(frames) == 3
        seen.append([frame.read_bytes() for frame in frames])
    assert seen[0] == seen[1]
    assert seen[0] != seen[2]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--image", "cat.png", "--elevation", "3"), "--elevation is where"),
        (("--orbit", "cat.png", "--model", "models/finetune-i2v"), "needs a multi-view model"),
        (("--orbit", "cat.png", "--elevation", "95"), "elevation_deg=95"),
    ],
)
def test_an_orbit_that_cannot_be_says_why(
    project: Callable[[], Path],
    monkeypatch: pytest.MonkeyPatch,
    arguments: tuple[str, ...],
    words: str,
) -> None:
    root = project()
    orbit_model(root)
    put_picture(root / "cat.png")
    with pytest.raises(ConfigError, match=words):
        run(root, *arguments, monkeypatch=monkeypatch)
