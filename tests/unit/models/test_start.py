"""A UNet begins as the model that it starts from, and says what it took."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from svd.config.model import UNetConfig
from svd.errors import CheckpointError, MissingInputError
from svd.models.checkpoints.start import start_unet
from svd.models.checkpoints.weights import save_weights
from svd.models.networks.unet import SpatioTemporalUNet, is_temporal
from tests.unit.models.conftest import draw_weights

IMAGE = UNetConfig(
    in_channels=4,
    model_channels=64,
    channel_mult=(1, 2),
    attention_factors=(1,),
    head_dim=64,
    context_dim=24,
    added_cond_dim=48,
    added_id_dim=16,
)
VIDEO = IMAGE.model_copy(update={"in_channels": 8, "temporal_init": "identity"})


def drawn(config: UNetConfig) -> SpatioTemporalUNet:
    unet = SpatioTemporalUNet(config)
    draw_weights(unet)
    return unet


def write_image_model(path: Path, unet: SpatioTemporalUNet) -> Path:
    """Write the spatial part in Stable Diffusion 2.1's layout, which has no added ids."""
    state = {
        f"model.diffusion_model.{name}": tensor
        for name, tensor in unet.state_dict().items()
        if not is_temporal(name) and not name.startswith("label_emb.")
    }
    if path.suffix == ".ckpt":
        torch.save({"state_dict": state, "global_step": 5}, path)
    else:
        save_file({name: tensor.contiguous() for name, tensor in state.items()}, path)
    return path


def inputs(channels: int, num_frames: int) -> tuple[Tensor, ...]:
    generator = torch.Generator().manual_seed(5)
    latents = torch.randn(1, num_frames, 4, 8, 8, generator=generator)
    extra = torch.zeros(1, num_frames, channels - 4, 8, 8)
    context = torch.randn(1, 7, IMAGE.context_dim, generator=generator)
    vector = torch.randn(1, IMAGE.added_cond_dim, generator=generator)
    return torch.cat([latents, extra], dim=2), torch.tensor([0.4]), context, vector


@pytest.mark.parametrize("suffix", [".safetensors", ".ckpt"])
def test_stable_diffusion_gains_time_and_a_condition_and_is_still_itself(
    tmp_path: Path, suffix: str
) -> None:
    image = drawn(IMAGE)
    source = write_image_model(tmp_path / f"sd21{suffix}", image)
    video = SpatioTemporalUNet(VIDEO)
    report = start_unet(video, source)
    assert report.widened == ("input_blocks.0.0.weight",)
    assert all(is_temporal(name) or name.startswith("label_emb.") for name in report.fresh)
    torch.nn.init.zeros_(image.label_emb[0][2].weight)
    torch.nn.init.zeros_(image.label_emb[0][2].bias)
    image.spatial_only = True
    with torch.no_grad():
        expected = image(*inputs(4, 3))
        assert torch.allclose(video(*inputs(8, 3)), expected, rtol=0, atol=1e-5)
    assert expected.std() > 0.1


def test_a_later_stage_starts_as_the_earlier_one(tmp_path: Path) -> None:
    earlier = drawn(IMAGE)
    save_weights(earlier, tmp_path / "weights.safetensors")
    later = SpatioTemporalUNet(VIDEO)
    report = start_unet(later, tmp_path / "weights.safetensors")
    assert report.fresh == ()
    with torch.no_grad():
        assert torch.allclose(later(*inputs(8, 3)), earlier(*inputs(4, 3)), rtol=0, atol=1e-5)


def test_half_a_temporal_part_is_not_taken_for_none(tmp_path: Path) -> None:
    state = drawn(IMAGE).state_dict()
    name = next(name for name in state if is_temporal(name))
    del state[name]
    save_file({k: v.contiguous() for k, v in state.items()}, tmp_path / "weights.safetensors")
    with pytest.raises(CheckpointError, match=f"1 missing: {name}"):
        start_unet(SpatioTemporalUNet(VIDEO), tmp_path / "weights.safetensors")


def test_other_widths_and_no_file_are_one_clear_error(tmp_path: Path) -> None:
    source = write_image_model(tmp_path / "sd21.safetensors", drawn(IMAGE))
    wider = IMAGE.model_copy(update={"context_dim": 32})
    with pytest.raises(CheckpointError, match=r"mis-shaped: .*attn2.to_k.weight is \(64, 24\)"):
        start_unet(SpatioTemporalUNet(wider), source)
    with pytest.raises(MissingInputError, match=r"none\.safetensors"):
        start_unet(SpatioTemporalUNet(IMAGE), tmp_path / "none.safetensors")
