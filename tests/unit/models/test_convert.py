"""`svd convert`: every way between the layouts keeps every bit, and bad files stop with a list."""

import json
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from svd.config.lora import LoraConfig
from svd.config.model import (
    AutoencoderConfig,
    DenoiserConfig,
    ImageEncoderConfig,
    UNetConfig,
)
from svd.errors import CheckpointError, ConfigError, MissingInputError
from svd.models.adapters.lora import (
    Adapter,
    Factors,
    add_adapter,
    merge_adapters,
    new_adapter,
    set_strengths,
)
from svd.models.adapters.lora_file import save_adapter
from svd.models.checkpoints.checkpoint import Checkpoint, Part
from svd.models.checkpoints.convert import Layout, convert
from svd.models.checkpoints.layout import TensorFile
from svd.models.checkpoints.merge import AdapterFile
from svd.models.checkpoints.own_folder import own_files, write_own_records
from svd.models.checkpoints.start import start_unet
from svd.models.checkpoints.tensor_file import from_tensor, write_safetensors
from svd.models.checkpoints.weights import load_weights
from svd.models.networks.autoencoder import Autoencoder
from svd.models.networks.image_encoder import ImageEncoder
from svd.models.networks.temporal_decoder import TemporalDecoder
from svd.models.networks.unet import SpatioTemporalUNet, is_temporal

UNET = UNetConfig(
    in_channels=8,
    model_channels=32,
    channel_mult=(1, 2),
    attention_factors=(1,),
    head_dim=16,
    context_dim=32,
    added_cond_dim=48,
    added_id_dim=16,
)
AUTOENCODER = AutoencoderConfig(base_channels=32, channel_mult=(1, 1), num_res_blocks=1)
VISION = ImageEncoderConfig(kind="tiny", width=32, heads=2, layers=2, image_size=28, patch_size=7)


def lazy(module: nn.Module) -> dict[str, object]:
    return {name: from_tensor(tensor) for name, tensor in module.state_dict().items()}


def write_own(folder: Path, checkpoint: Checkpoint) -> Path:
    for name, file in own_files(checkpoint).items():
        assert isinstance(file, TensorFile)
        write_safetensors(folder / name, file.tensors, origin=folder, description="writing")
    write_own_records(folder, checkpoint, num_frames=14)
    return folder


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny image-to-video model with random weights, in our layout."""
    torch.manual_seed(3)
    unet, autoencoder, decoder = (
        SpatioTemporalUNet(UNET),
        Autoencoder(AUTOENCODER),
        TemporalDecoder(AUTOENCODER),
    )
    for module in (unet, autoencoder, decoder):
        for parameter in module.parameters():
            nn.init.normal_(parameter, std=0.1)
    checkpoint = Checkpoint(
        unet=Part(DenoiserConfig(unet=UNET), lazy(unet)),
        autoencoder=Part(AUTOENCODER, lazy(autoencoder)),
        temporal_decoder=Part(AUTOENCODER, lazy(decoder)),
        image_encoder=Part(VISION, lazy(ImageEncoder(VISION).visual)),
    )
    return write_own(tmp_path_factory.mktemp("models") / "ours", checkpoint)


def tensors_below(folder: Path) -> dict[str, Tensor]:
    return {
        f"{path.relative_to(folder)}:{name}": tensor
        for path in sorted(folder.rglob("*.safetensors"))
        for name, tensor in load_file(path).items()
    }


def assert_same_bits(left: dict[str, Tensor], right: dict[str, Tensor]) -> None:
    assert set(left) == set(right)
    different = [name for name, tensor in left.items() if not torch.equal(tensor, right[name])]
    assert not different


@pytest.mark.parametrize(
    "route",
    [("released",), ("diffusers",), ("released", "ours", "diffusers")],
    ids=["released", "diffusers", "released-and-diffusers"],
)
def test_round_trip_keeps_every_bit(ours: Path, tmp_path: Path, route: tuple[str, ...]) -> None:
    source = ours
    for index, layout in enumerate((*route, "ours")):
        name = f"{index}-{layout}" + (".safetensors" if layout == "released" else "")
        convert(source, tmp_path / name, layout=layout, num_frames=14)
        source = tmp_path / name
    assert_same_bits(tensors_below(ours), tensors_below(source))
    for part in ("denoiser", "autoencoder"):
        record = (source / part / "model.json").read_text()
        assert json.loads(record) == json.loads((ours / part / "model.json").read_text())


def test_converting_twice_gives_the_same_bytes(ours: Path, tmp_path: Path) -> None:
    for name in ("a.safetensors", "b.safetensors"):
        convert(ours, tmp_path / name, layout="released")
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()


def test_released_layout_has_the_prefixes_and_the_folded_encoder(
    ours: Path, tmp_path: Path
) -> None:
    path = tmp_path / "svd.safetensors"
    convert(ours, path, layout="released")
    tensors = load_file(path)
    assert "model.diffusion_model.time_embed.0.weight" in tensors
    assert "first_stage_model.decoder.conv_out.time_mix_conv.weight" in tensors
    assert "conditioner.embedders.0.open_clip.model.visual.proj" in tensors
    assert not any(name.startswith("first_stage_model.quant_conv") for name in tensors)
    folded = Autoencoder(AUTOENCODER).double()
    state = {
        name.removeprefix("first_stage_model."): tensor.double()
        for name, tensor in tensors.items()
        if name.startswith("first_stage_model.encoder.")
    }
    folded.load_state_dict(state, strict=False)
    whole = Autoencoder(AUTOENCODER).double()
    weights = load_file(ours / "autoencoder" / "weights.safetensors")
    whole.load_state_dict({name: tensor.double() for name, tensor in weights.items()})
    pixels = torch.rand(1, 3, 16, 16, dtype=torch.float64)
    expected = whole.quant_conv(whole.encoder(pixels))
    assert torch.allclose(folded.encoder(pixels), expected, rtol=0, atol=1e-6)


def test_leftover_text_tower_of_the_release_is_known(ours: Path, tmp_path: Path) -> None:
    path = tmp_path / "svd.safetensors"
    convert(ours, path, layout="released")
    tensors = load_file(path)
    prefix = "conditioner.embedders.0.open_clip.model."
    for name in ("token_embedding.weight", "logit_scale", "ln_final.weight"):
        tensors[prefix + name] = torch.zeros(2)
    with_leftovers = tmp_path / "leftovers.safetensors"
    save_file(tensors, with_leftovers, metadata=metadata_of(path))
    convert(with_leftovers, tmp_path / "back", layout="ours")
    assert_same_bits(tensors_below(ours), tensors_below(tmp_path / "back"))


def metadata_of(path: Path) -> dict[str, str]:
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        return dict(file.metadata())


def broken(path: Path, ours: Path, change: Callable[[dict[str, Tensor]], None]) -> Path:
    whole = path.with_name("whole.safetensors")
    convert(ours, whole, layout="released")
    tensors = load_file(whole)
    change(tensors)
    save_file(tensors, path, metadata=metadata_of(whole))
    return path


def remove(tensors: dict[str, Tensor]) -> None:
    del tensors["model.diffusion_model.out.2.bias"]


def add(tensors: dict[str, Tensor]) -> None:
    tensors["model.diffusion_model.surplus"] = torch.zeros(1)


def add_elsewhere(tensors: dict[str, Tensor]) -> None:
    tensors["optimizer.state"] = torch.zeros(1)


def reshape(tensors: dict[str, Tensor]) -> None:
    tensors["model.diffusion_model.out.2.bias"] = torch.zeros(7)


def spoil(tensors: dict[str, Tensor]) -> None:
    tensors["model.diffusion_model.out.2.bias"] = torch.full((4,), float("nan"))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (remove, ["1 missing", "out.2.bias"]),
        (add, ["1 extra", "surplus"]),
        (add_elsewhere, ["belong to no part", "optimizer.state"]),
        (reshape, ["1 mis-shaped", "out.2.bias is (7,), needs (4,)"]),
        (spoil, ["broken.safetensors: out.2.bias", "not finite"]),
    ],
    ids=["missing", "extra", "unknown-part", "mis-shaped", "nan"],
)
def test_a_file_that_does_not_fit_stops_with_a_list_and_leaves_nothing(
    ours: Path,
    tmp_path: Path,
    change: Callable[[dict[str, Tensor]], None],
    words: list[str],
) -> None:
    source = broken(tmp_path / "broken.safetensors", ours, change)
    with pytest.raises(CheckpointError) as raised:
        convert(source, tmp_path / "out", layout="ours")
    assert all(word in str(raised.value) for word in words)
    assert not list(tmp_path.glob("out*"))


def test_a_truncated_file_is_one_clear_error(ours: Path, tmp_path: Path) -> None:
    whole = tmp_path / "whole.safetensors"
    convert(ours, whole, layout="released")
    cut = tmp_path / "cut.safetensors"
    cut.write_bytes(whole.read_bytes()[:-100])
    with pytest.raises(CheckpointError, match="not a whole safetensors file"):
        convert(cut, tmp_path / "out", layout="ours")


class Payload:
    """Runs a command when it is unpickled by a reader that lets it."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self.mark,)


def test_a_pickle_with_a_payload_is_refused_and_never_run(tmp_path: Path) -> None:
    mark = tmp_path / "ran"
    source = tmp_path / "evil.ckpt"
    torch.save({"state_dict": {"a": torch.zeros(1)}, "payload": Payload(mark)}, source)
    with pytest.raises(CheckpointError, match="never runs code: Unsupported global") as raised:
        convert(source, tmp_path / "out", layout="ours")
    assert "add_safe_globals" not in str(raised.value)
    plain = tmp_path / "plain.ckpt"
    plain.write_bytes(pickle.dumps(Payload(mark)))
    with pytest.raises(CheckpointError):
        convert(plain, tmp_path / "out", layout="ours")
    assert not mark.exists()


def image_model(unet: UNetConfig) -> dict[str, Tensor]:
    """A tiny image model in Stable Diffusion's single-file layout, with its usual ballast."""
    torch.manual_seed(4)
    state = {
        f"model.diffusion_model.{name}": torch.randn(tensor.shape)
        for name, tensor in SpatioTemporalUNet(unet).state_dict().items()
        if not is_temporal(name) and not name.startswith("label_emb.")
    }
    state |= {
        "model_ema." + name.removeprefix("model.").replace(".", ""): tensor + 1
        for name, tensor in state.items()
    }
    state |= {
        f"first_stage_model.{name}": torch.randn(tensor.shape)
        for name, tensor in Autoencoder(AUTOENCODER).state_dict().items()
    }
    return state | {"betas": torch.zeros(3), "model_ema.decay": torch.ones(())}


T2V = UNET.model_copy(update={"in_channels": 4, "head_dim": 64, "model_channels": 64})


@pytest.mark.parametrize("suffix", [".safetensors", ".ckpt"])
@pytest.mark.parametrize("use_ema", [False, True], ids=["weights", "averages"])
def test_an_image_model_becomes_ours_and_a_video_model_starts_from_it(
    tmp_path: Path, suffix: str, use_ema: bool
) -> None:
    state = image_model(T2V)
    source = tmp_path / f"sd21{suffix}"
    if suffix == ".ckpt":
        torch.save({"state_dict": state, "global_step": 5}, source)
    else:
        save_file(state, source)
    conversion = convert(source, tmp_path / "out", layout="ours", use_ema=use_ema)
    assert conversion.source_layout == "sd21"
    record = json.loads((tmp_path / "out/denoiser/model.json").read_text())
    assert record["architecture"]["preconditioning"] == "sd-v"
    video = SpatioTemporalUNet(T2V.model_copy(update={"in_channels": 8, "context_dim": 32}))
    report = start_unet(video, tmp_path / "out/denoiser/weights.safetensors")
    assert report.widened == ("input_blocks.0.0.weight",)
    assert all(is_temporal(name) or name.startswith("label_emb.") for name in report.fresh)
    first = video.state_dict()["input_blocks.0.0.weight"]
    key = "model.diffusion_model.input_blocks.0.0.weight"
    assert torch.equal(first[:, :4], state[key] + (1 if use_ema else 0))
    assert not first[:, 4:].any()


def test_the_image_part_of_a_text_to_video_model_goes_back_to_the_image_layout(
    tmp_path: Path,
) -> None:
    state = image_model(T2V)
    save_file(state, tmp_path / "sd21.safetensors")
    convert(tmp_path / "sd21.safetensors", tmp_path / "ours", layout="ours")
    convert(tmp_path / "ours", tmp_path / "back.safetensors", layout="sd21")
    kept = {n: t for n, t in state.items() if not n.startswith("model_ema.") and n != "betas"}
    assert_same_bits(kept, load_file(tmp_path / "back.safetensors"))


def test_an_image_to_video_model_does_not_fit_the_image_layout(ours: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no conditioning latents"):
        convert(ours, tmp_path / "sd21.safetensors", layout="sd21")


def test_an_existing_target_is_never_overwritten(ours: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    with pytest.raises(ConfigError, match="exists already"):
        convert(ours, tmp_path / "out", layout="ours")


def test_a_source_that_is_not_there_or_no_model_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(MissingInputError, match="is not there"):
        convert(tmp_path / "nothing", tmp_path / "out", layout="ours")
    (tmp_path / "empty").mkdir()
    with pytest.raises(CheckpointError, match="is no model"):
        convert(tmp_path / "empty", tmp_path / "out", layout="ours")


def test_norm_groups_that_diffusers_cannot_build_are_refused(ours: Path, tmp_path: Path) -> None:
    config = AutoencoderConfig(base_channels=16, channel_mult=(1, 1), norm_groups=8)
    unet = SpatioTemporalUNet(UNET)
    checkpoint = Checkpoint(
        unet=Part(DenoiserConfig(unet=UNET), lazy(unet)),
        autoencoder=Part(config, lazy(Autoencoder(config))),
        temporal_decoder=Part(config, lazy(TemporalDecoder(config))),
        image_encoder=Part(VISION, lazy(ImageEncoder(VISION).visual)),
    )
    source = write_own(tmp_path / "groups", checkpoint)
    with pytest.raises(CheckpointError, match="norm_groups=8"):
        convert(source, tmp_path / "out", layout="diffusers")


def test_converting_needs_memory_for_single_tensors_only(tmp_path: Path) -> None:
    """The memory needed is measured in a process of its own, on a file of 0.1 GB."""
    config = AutoencoderConfig(base_channels=32, channel_mult=(1, 1), num_res_blocks=1)
    wide = UNET.model_copy(
        update={"model_channels": 128, "head_dim": 64, "context_dim": 32, "in_channels": 8}
    )
    with torch.device("meta"):
        unet = SpatioTemporalUNet(wide)
    tensors = {
        name: from_tensor(torch.zeros(1).expand(tensor.shape))
        for name, tensor in unet.state_dict().items()
    }
    checkpoint = Checkpoint(
        unet=Part(DenoiserConfig(unet=wide), tensors),
        autoencoder=Part(config, lazy(Autoencoder(config))),
        temporal_decoder=Part(config, lazy(TemporalDecoder(config))),
        image_encoder=Part(VISION, lazy(ImageEncoder(VISION).visual)),
    )
    source = write_own(tmp_path / "wide", checkpoint)
    size = (source / "denoiser" / "weights.safetensors").stat().st_size
    script = (
        "import resource, sys; from pathlib import Path;"
        "import svd.models.checkpoints.convert as c;"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss;"
        "c.convert(Path(sys.argv[1]), Path(sys.argv[2]), layout='released');"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)"
    )
    command = [sys.executable, "-c", script, str(source), str(tmp_path / "out.safetensors")]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    grown = int(run.stdout) * 1024
    assert size > 100e6
    assert grown < size / 3


def random_adapter_file(path: Path, config: UNetConfig, seed: int) -> Adapter:
    generator = torch.Generator().manual_seed(seed)
    unet = SpatioTemporalUNet(config)
    fresh = new_adapter(unet, LoraConfig(rank=3, alpha=6.0), generator)
    factors = {
        place: Factors(down, 0.3 * torch.randn(up.shape, generator=generator))
        for place, (down, up) in fresh.factors.items()
    }
    adapter = Adapter(fresh.alpha, factors)
    save_adapter(path, adapter, config)
    return adapter


@pytest.mark.parametrize("layout", ["ours", "diffusers"])
def test_merged_adapters_are_in_the_weights_bit_for_bit(
    ours: Path, tmp_path: Path, layout: Layout
) -> None:
    files = [
        AdapterFile(tmp_path / f"{name}.safetensors", s) for name, s in (("a", 0.7), ("b", -2))
    ]
    unet = SpatioTemporalUNet(UNET)
    load_weights(unet, ours / "denoiser/weights.safetensors")
    for seed, file in enumerate(files):
        add_adapter(unet, f"a{seed}", random_adapter_file(file.path, UNET, seed), origin="t")
        set_strengths(unet, f"a{seed}", [file.scale])
    merge_adapters(unet)
    expected = {
        n.partition(".adapters.")[0]: t for n, t in unet.state_dict().items() if "lora_" not in n
    }
    target = tmp_path / "merged"
    convert(ours, target, layout=layout, adapters=files)
    if layout == "diffusers":
        convert(target, tmp_path / "back", layout="ours")
        target = tmp_path / "back"
    assert_same_bits(load_file(target / "denoiser/weights.safetensors"), expected)
    before = load_file(ours / "denoiser/weights.safetensors")
    assert any(not torch.equal(tensor, before[name]) for name, tensor in expected.items())


def test_an_adapter_of_another_width_is_said_and_nothing_is_left(
    ours: Path, tmp_path: Path
) -> None:
    wider = UNET.model_copy(update={"model_channels": 64})
    random_adapter_file(tmp_path / "wide.safetensors", wider, 0)
    files = [AdapterFile(tmp_path / "wide.safetensors", 1.0)]
    with pytest.raises(CheckpointError, match="model of another width"):
        convert(ours, tmp_path / "merged", layout="ours", adapters=files)
    assert [path.name for path in tmp_path.iterdir()] == ["wide.safetensors"]
