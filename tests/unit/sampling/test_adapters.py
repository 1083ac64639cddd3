"""`svd sample --lora`: adapters by name, scale and frames, and one clear error for each bad one."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from svd.config.lora import LoraConfig
from svd.errors import CheckpointError, ConfigError, IntegrityError, MissingInputError, SvdError
from svd.models.adapters.lora import Adapter, Factors, new_adapter
from svd.models.adapters.lora_file import save_adapter
from svd.models.networks.denoiser import Denoiser
from svd.models.networks.unet import SpatioTemporalUNet
from svd.runtime.fingerprint import file_sha256
from svd.sampling.samplers.adapters import AdapterUse, attach, parse_use, set_frames
from svd.sampling.samplers.components import Components
from svd.types.artifact import ModelRecord
from tests.unit.sampling.conftest import denoiser_config
from tests.unit.sampling.test_sample_command import put_picture, run

QUICK = ("--image", "cat.png", "--steps", "2", "--decode-chunk-size", "2")


def put_adapter(path: Path, unet: SpatioTemporalUNet, *, size: float = 1.0, seed: int = 0) -> Path:
    generator = torch.Generator().manual_seed(seed)
    fresh = new_adapter(unet, LoraConfig(rank=2, alpha=2), generator)
    factors = {
        place: Factors(down, size * torch.randn(up.shape, generator=generator))
        for place, (down, up) in fresh.factors.items()
    }
    save_adapter(path, Adapter(alpha=fresh.alpha, factors=factors), unet.config)
    return path


def put_stage(root: Path, name: str, unet: SpatioTemporalUNet, *, seed: int) -> Path:
    """Lay out what stage lora leaves."""
    folder = root / "models" / f"lora@{name}"
    weights = put_adapter(folder / "weights.safetensors", unet, seed=seed)
    record = ModelRecord(
        stage=f"lora@{name}",
        kind="lora",
        architecture={},
        weights_sha256=file_sha256(weights),
        num_parameters=1,
        step=1,
        examples_seen=1,
        params_fingerprint="p",
        dataset_fingerprint="d",
        init_sha256="i",
        run_fingerprint="r",
    )
    (folder / "model.json").write_text(record.canonical_json())
    return folder


def test_an_adapter_changes_the_video_and_scale_zero_is_the_base(
    project: Callable[[], Path], image_model: Components, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = project()
    put_picture(root / "cat.png")
    unet = image_model.denoiser.unet
    put_stage(root, "zoom", unet, seed=0)
    file = put_adapter(root / "mine.safetensors", unet, seed=1)

    def sample(out: str, *uses: str) -> bytes:
        loras = [word for use in uses for word in ("--lora", use)]
        run(root, *QUICK, "--format", "png", "--out", out, *loras, monkeypatch=monkeypatch)
        files = sorted((root / out / "cat-seed23").glob("*.png"))
        assert len(files) == 3
        return b"".join(path.read_bytes() for path in files)

    base = sample("base")
    assert sample("zero", "zoom:0") == base
    assert sample("beyond", "zoom@3-9") == base  # the video has frames 0 to 2
    zoomed, mixed = sample("zoom", "zoom"), sample("mixed", "zoom:0.5", f"{file}:0.5")
    switched = sample("switched", "zoom@0-1", f"{file}@2-")
    assert len({base, zoomed, mixed, switched}) == 4
    assert sample("twice", "zoom:0.25", "zoom:0.75") == zoomed
    told = json.loads((root / "switched/cat-seed23.json").read_text())["adapters"]
    assert [(use["first_frame"], use["last_frame"], use["scale"]) for use in told] == [
        (0, 1, 1.0),
        (2, None, 1.0),
    ]
    assert told[1]["sha256"] == file_sha256(file)


def test_ranges_count_frames_over_the_whole_video(image_model: Components, tmp_path: Path) -> None:
    unet = Denoiser(denoiser_config(8)).unet
    path = put_adapter(tmp_path / "a.safetensors", unet)
    uses = (AdapterUse(path, 0.5, 2, 4),)
    attach(unet, uses)

    def strengths() -> tuple[float, ...]:
        return next(m.strengths for m in unet.modules() if hasattr(m, "strengths"))

    set_frames(unet, uses, first_frame=0, num_frames=3)
    assert strengths() == (0, 0, 0.5)
    set_frames(unet, uses, first_frame=2, num_frames=3)
    assert strengths() == (0.5,)
    set_frames(unet, uses, first_frame=4, num_frames=3)
    assert strengths() == (0.5, 0, 0)


@pytest.mark.parametrize(
    ("text", "kind", "said"),
    [
        ("zoom:fast", ConfigError, r"--lora zoom:fast: write it as NAME\[:SCALE\]"),
        ("zoom@6-2", ConfigError, "ends before it begins"),
        ("spin", MissingInputError, "there is no adapter spin: .* trained here: zoom"),
        ("damaged", IntegrityError, "is not the adapter that its model.json names"),
        ("wide.safetensors", CheckpointError, "wide.safetensors: .* another width"),
    ],
)
def test_a_bad_adapter_is_one_clear_error(
    project: Callable[[], Path],
    image_model: Components,
    monkeypatch: pytest.MonkeyPatch,
    text: str,
    kind: type[SvdError],
    said: str,
) -> None:
    root = project()
    put_picture(root / "cat.png")
    put_stage(root, "zoom", image_model.denoiser.unet, seed=0)
    if text == "damaged":
        folder = put_stage(root, "damaged", image_model.denoiser.unet, seed=0)
        put_adapter(folder / "weights.safetensors", image_model.denoiser.unet, seed=9)
    config = denoiser_config(8).unet.model_copy(update={"model_channels": 32})
    put_adapter(root / "wide.safetensors", SpatioTemporalUNet(config))
    with pytest.raises(kind, match=said):
        run(root, *QUICK, "--lora", text, monkeypatch=monkeypatch)


def test_a_use_is_read_from_words(tmp_path: Path, image_model: Components) -> None:
    unet = image_model.denoiser.unet
    folder = put_stage(tmp_path, "zoom", unet, seed=0)
    file = folder / "weights.safetensors"
    models = tmp_path / "models"
    assert parse_use("zoom", models=models) == AdapterUse(file)
    assert parse_use("zoom:-0.5@2-6", models=models) == AdapterUse(file, -0.5, 2, 6)
    assert parse_use("zoom@4-", models=models) == AdapterUse(file, 1.0, 4, None)
    assert parse_use(str(folder), models=models) == AdapterUse(file)
    assert parse_use(f"{file}:2", models=models) == AdapterUse(file, 2.0)
