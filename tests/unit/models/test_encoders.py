"""The CLIP towers against transformers and the release's preprocessing against diffusers."""

import pytest
import torch
from einops import rearrange
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import Tensor

from svd.config.model import ImageEncoderConfig, TextEncoderConfig
from svd.errors import CheckpointError, ConfigError, MissingInputError
from svd.models.networks.image_encoder import ImageEncoder, resize_antialiased
from svd.models.networks.text_encoder import TextEncoder

TEXT = TextEncoderConfig(kind="tiny", width=32, heads=2, layers=3)
IMAGE = ImageEncoderConfig(
    kind="tiny", width=32, heads=2, layers=2, image_size=28, patch_size=7, seed=5
)


def pictures(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(shape, generator=generator) * 2 - 1


def block_to_transformers(state: dict[str, Tensor], prefix: str, new: str) -> dict[str, Tensor]:
    """Rename one open_clip residual block to transformers' names."""
    out: dict[str, Tensor] = {}
    for kind in ("weight", "bias"):
        parts = state[f"{prefix}attn.in_proj_{kind}"].chunk(3)
        for letter, part in zip("qkv", parts, strict=True):
            out[f"{new}self_attn.{letter}_proj.{kind}"] = part
        out[f"{new}self_attn.out_proj.{kind}"] = state[f"{prefix}attn.out_proj.{kind}"]
        for ours, theirs in (
            ("ln_1", "layer_norm1"),
            ("ln_2", "layer_norm2"),
            ("mlp.c_fc", "mlp.fc1"),
            ("mlp.c_proj", "mlp.fc2"),
        ):
            out[f"{new}{theirs}.{kind}"] = state[f"{prefix}{ours}.{kind}"]
    return out


def transformers_vision(encoder: ImageEncoder, config: ImageEncoderConfig) -> torch.nn.Module:
    transformers = pytest.importorskip("transformers")
    model = transformers.CLIPVisionModelWithProjection(
        transformers.CLIPVisionConfig(
            hidden_size=config.width,
            intermediate_size=4 * config.width,
            projection_dim=config.width,
            num_hidden_layers=config.layers,
            num_attention_heads=config.heads,
            image_size=config.image_size,
            patch_size=config.patch_size,
            hidden_act="gelu",
        )
    )
    state = encoder.visual.state_dict()
    root = "vision_model."
    new = {
        f"{root}embeddings.class_embedding": state["class_embedding"],
        f"{root}embeddings.patch_embedding.weight": state["conv1.weight"],
        f"{root}embeddings.position_embedding.weight": state["positional_embedding"],
        "visual_projection.weight": state["proj"].T,
    }
    for kind in ("weight", "bias"):
        new[f"{root}pre_layrnorm.{kind}"] = state[f"ln_pre.{kind}"]
        new[f"{root}post_layernorm.{kind}"] = state[f"ln_post.{kind}"]
    for i in range(config.layers):
        new |= block_to_transformers(
            state, f"transformer.resblocks.{i}.", f"{root}encoder.layers.{i}."
        )
    model.load_state_dict(new)
    return model.eval()


@pytest.mark.parametrize("size", [(28, 28), (64, 96), (40, 30)], ids=["equal", "wide", "tall"])
def test_image_embedding_equals_that_of_transformers(size: tuple[int, int]) -> None:
    encoder = ImageEncoder(IMAGE).double()
    model = transformers_vision(encoder, IMAGE).double()
    pixels = encoder.preprocess(pictures(2, 3, *size)).double()
    with torch.no_grad():
        expected = model(pixels).image_embeds
    got = encoder.encode(pictures(2, 3, *size))
    assert got.shape == (2, 1, 32)
    torch.testing.assert_close(got[:, 0], expected, atol=1e-12, rtol=1e-12)


@given(height=st.integers(8, 90), width=st.integers(8, 90), size=st.integers(8, 40))
@settings(max_examples=40, deadline=None)
def test_resize_equals_that_of_the_release(height: int, width: int, size: int) -> None:
    pipeline = pytest.importorskip(
        "diffusers.pipelines.stable_video_diffusion.pipeline_stable_video_diffusion"
    )
    pixels = pictures(1, 3, height, width)
    expected = pipeline._resize_with_antialiasing(pixels, (size, size))
    torch.testing.assert_close(resize_antialiased(pixels, size=size), expected, atol=2e-6, rtol=0.0)


def test_preprocessing_applies_clips_mean_and_deviation() -> None:
    encoder = ImageEncoder(IMAGE)
    white = encoder.preprocess(torch.ones(1, 3, 28, 28))
    expected = [(1 - 0.48145466) / 0.26862954, (1 - 0.4578275) / 0.26130258]
    torch.testing.assert_close(white[0, :2, 3, 3], torch.tensor(expected), atol=1e-5, rtol=0.0)


def transformers_text(encoder: TextEncoder, config: TextEncoderConfig) -> torch.nn.Module:
    transformers = pytest.importorskip("transformers")
    model = transformers.CLIPTextModel(
        transformers.CLIPTextConfig(
            hidden_size=config.width,
            intermediate_size=4 * config.width,
            num_hidden_layers=config.layers - 1,
            num_attention_heads=config.heads,
            hidden_act="gelu",
        )
    )
    state = encoder.text.state_dict()
    new = {
        "embeddings.token_embedding.weight": state["token_embedding.weight"],
        "embeddings.position_embedding.weight": state["positional_embedding"],
        "final_layer_norm.weight": state["ln_final.weight"],
        "final_layer_norm.bias": state["ln_final.bias"],
    }
    for i in range(config.layers - 1):
        new |= block_to_transformers(state, f"transformer.resblocks.{i}.", f"encoder.layers.{i}.")
    root = "text_model." if hasattr(model, "text_model") else ""
    model.load_state_dict({root + name: tensor for name, tensor in new.items()})
    return model.eval()


def test_text_tokens_equal_the_penultimate_layer_of_transformers() -> None:
    encoder = TextEncoder(TEXT).double()
    model = transformers_text(encoder, TEXT).double()
    texts = ["a red ball rolls to the left", "", "snow " * 200]
    with torch.no_grad():
        expected = model(encoder.tokenize(texts)).last_hidden_state
    got = encoder.encode(texts)
    assert got.shape == (3, 77, 32)
    torch.testing.assert_close(got, expected, atol=1e-12, rtol=1e-12)


def test_tokens_are_those_of_clip() -> None:
    ids = TextEncoder(TEXT).tokenize(["a photo of a cat"])
    assert ids[0, :7].tolist() == [49406, 320, 1125, 539, 320, 2368, 49407]
    assert not ids[0, 7:].any()


def test_a_long_prompt_is_cut_and_still_ends() -> None:
    ids = TextEncoder(TEXT).tokenize(["snow " * 200])
    assert ids.shape == (1, 77)
    assert ids[0, -1] == 49407


def test_towers_depend_on_their_seed_and_leave_the_global_state_alone() -> None:
    torch.manual_seed(11)
    before = torch.random.get_rng_state()
    first = ImageEncoder(IMAGE).encode(pictures(1, 3, 28, 28))
    second = ImageEncoder(IMAGE).encode(pictures(1, 3, 28, 28))
    other = ImageEncoder(IMAGE.model_copy(update={"seed": 6})).encode(pictures(1, 3, 28, 28))
    assert torch.equal(torch.random.get_rng_state(), before)
    assert torch.equal(first, second)
    assert not torch.allclose(first, other)


def test_towers_are_frozen() -> None:
    for tower in (ImageEncoder(IMAGE), TextEncoder(TEXT)):
        assert not tower.training
        assert not any(weight.requires_grad for weight in tower.parameters())


def test_different_prompts_and_pictures_get_different_tokens() -> None:
    texts = TextEncoder(TEXT).encode(["a red ball", "a blue ball"])
    images = ImageEncoder(IMAGE).encode(pictures(2, 3, 28, 28))
    assert (texts[0] - texts[1]).abs().max() > 1e-3
    assert (images[0] - images[1]).abs().max() > 1e-3


CLIP_EXTRAS = {"logit_scale": torch.zeros(()), "text_projection": torch.zeros(32, 32)}


@pytest.mark.parametrize(
    "prefix",
    ["", "text.", "cond_stage_model.model."],
    ids=["open_clip", "ours", "sd21"],
)
def test_text_weights_load_from_each_known_layout(tmp_path, prefix: str) -> None:
    source = TextEncoder(TEXT.model_copy(update={"seed": 3}))
    last = {
        f"transformer.resblocks.2.{name}": tensor.clone()
        for name, tensor in source.text.transformer.resblocks[1].state_dict().items()
    }
    state = {**source.text.state_dict(), **last, **CLIP_EXTRAS}
    file = {prefix + name: tensor for name, tensor in state.items()}
    save_file({**file, "visual.proj": torch.zeros(2, 2)}, tmp_path / "clip.safetensors")
    loaded = TextEncoder(TEXT.model_copy(update={"weights": str(tmp_path / "clip.safetensors")}))
    assert torch.equal(loaded.encode(["a dog"]), source.encode(["a dog"]))


@pytest.mark.parametrize(
    "prefix",
    ["visual.", "conditioner.embedders.0.open_clip.model.visual."],
    ids=["open_clip", "released"],
)
def test_image_weights_load_from_each_known_layout(tmp_path, prefix: str) -> None:
    source = ImageEncoder(IMAGE.model_copy(update={"seed": 3}))
    state = {prefix + name: tensor for name, tensor in source.visual.state_dict().items()}
    save_file({**state, "model.other": torch.zeros(2)}, tmp_path / "clip.safetensors")
    loaded = ImageEncoder(IMAGE.model_copy(update={"weights": str(tmp_path / "clip.safetensors")}))
    assert torch.equal(loaded.encode(pictures(1, 3, 28, 28)), source.encode(pictures(1, 3, 28, 28)))


def with_weights(path) -> ImageEncoderConfig:
    return IMAGE.model_copy(update={"weights": str(path)})


def test_weights_that_do_not_fit_are_listed(tmp_path) -> None:
    state = {f"visual.{k}": v for k, v in ImageEncoder(IMAGE).visual.state_dict().items()}
    del state["visual.proj"]
    state["visual.surplus"] = torch.zeros(1)
    state["visual.ln_pre.bias"] = torch.zeros(7)
    save_file(state, tmp_path / "clip.safetensors")
    with pytest.raises(CheckpointError) as caught:
        ImageEncoder(with_weights(tmp_path / "clip.safetensors"))
    text = str(caught.value)
    assert "1 missing: proj" in text
    assert "1 extra: surplus" in text
    assert "1 mis-shaped: ln_pre.bias is (7,), needs (32,)" in text


def test_a_missing_or_broken_file_is_one_clear_error(tmp_path) -> None:
    with pytest.raises(MissingInputError, match="no weights at"):
        ImageEncoder(with_weights(tmp_path / "none.safetensors"))
    (tmp_path / "bad.safetensors").write_bytes(b"not a safetensors file")
    with pytest.raises(CheckpointError, match="not a whole safetensors file"):
        ImageEncoder(with_weights(tmp_path / "bad.safetensors"))


def test_an_unknown_architecture_is_named() -> None:
    with pytest.raises(ConfigError, match="architecture=ViT-Z-99"):
        ImageEncoder(ImageEncoderConfig(kind="open-clip", architecture="ViT-Z-99"))


def test_the_towers_of_the_release_have_its_tensors() -> None:
    with torch.device("meta"):
        image = ImageEncoder(ImageEncoderConfig(kind="open-clip"))
    assert len(image.visual.state_dict()) == 392
    assert sum(p.numel() for p in image.parameters()) == 632_076_800
    assert image.token_dim == 1024


def test_encoding_does_not_depend_on_the_batch() -> None:
    encoder = ImageEncoder(IMAGE)
    batch = pictures(3, 3, 40, 56)
    alone = torch.cat([encoder.encode(one) for one in rearrange(batch, "b c h w -> b 1 c h w")])
    torch.testing.assert_close(encoder.encode(batch), alone, atol=2e-6, rtol=0.0)
