"""What the denoiser is told of a clip."""

from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from svd.config.training import DropoutConfig
from svd.errors import ConfigError
from svd.models.networks.conditioner import embed_added_time_ids
from svd.training.objective.noise import DrawKey, Purpose, draw_cond_aug
from svd.training.objective.objectives import (
    ImageToVideo,
    Interpolation,
    TextToVideo,
    sample_latents,
)
from svd.types.batch import LatentBatch
from tests.unit.training.world import HEIGHT, WIDTH, build_autoencoder, stage_config

ID_WIDTH = 8


def batch(num: int, *, num_frames: int = 3) -> LatentBatch:
    generator = torch.Generator().manual_seed(num)
    return LatentBatch(
        mean=torch.randn((num, num_frames, 4, 4, 8), generator=generator),
        logvar=torch.randn((num, num_frames, 4, 4, 8), generator=generator),
        cond_frame=torch.randint(
            0, 256, (num, 3, HEIGHT, WIDTH), generator=generator, dtype=torch.uint8
        ),
        image_embeds=torch.randn((num, 1, 16), generator=generator),
        fps=torch.full((num,), 7.0),
        motion_bucket_id=torch.arange(num),
        captions=tuple(f"caption {i}" for i in range(num)),
        clip_ids=tuple(f"clip{i}" for i in range(num)),
        start_frames=(0,) * num,
        positions=tuple(range(100, 100 + num)),
        image_only=num_frames == 1,
    )


def key(clips: LatentBatch) -> DrawKey:
    return DrawKey(1, 0, clips.positions)


def image_to_video(**dropout: float) -> ImageToVideo:
    phase = stage_config().phases[0].model_copy(update={"dropout": DropoutConfig(**dropout)})
    return ImageToVideo(phase, autoencoder=build_autoencoder(), id_width=ID_WIDTH)


class Tower:
    """Encodes a text as its length, so that a test can read what was encoded."""

    def encode(self, texts: Sequence[str]) -> Tensor:
        return torch.tensor([float(len(text)) for text in texts])[:, None, None].expand(-1, 5, 16)


def text_to_video(**dropout: float) -> TextToVideo:
    phase = stage_config().phases[0].model_copy(update={"dropout": DropoutConfig(**dropout)})
    return TextToVideo(phase, text_encoder=Tower(), id_width=ID_WIDTH)


def test_cond_latents_are_the_mode_of_the_noised_frame_unscaled_on_every_frame() -> None:
    clips = batch(2)
    condition = image_to_video().condition(clips, key(clips), dropout=False)
    pixels = clips.cond_frame.float() / 127.5 - 1
    cond_aug = draw_cond_aug(stage_config().phases[0].cond_aug, key(clips))
    noise = key(clips).normal(Purpose.COND_NOISE, tuple(pixels.shape[1:]))
    expected = build_autoencoder().encode(pixels + cond_aug[:, None, None, None] * noise).mean
    assert condition.cond_latents is not None
    for frame in range(3):
        assert torch.allclose(condition.cond_latents[:, frame], expected, atol=1e-6)


def test_the_embedding_is_of_the_clean_frame() -> None:
    clips = batch(2)
    condition = image_to_video().condition(clips, key(clips), dropout=False)
    assert torch.equal(condition.context, clips.image_embeds)


def test_the_vector_is_fps_minus_one_motion_and_cond_aug_in_this_order() -> None:
    clips = batch(2)
    condition = image_to_video().condition(clips, key(clips), dropout=False)
    cond_aug = draw_cond_aug(stage_config().phases[0].cond_aug, key(clips))
    ids = torch.stack([torch.tensor([6.0, 6.0]), torch.tensor([0.0, 1.0]), cond_aug], dim=1)
    assert torch.equal(condition.vector, embed_added_time_ids(ids, width=ID_WIDTH))


def test_text_to_video_says_zero_for_cond_aug_and_stills_say_zero_for_all() -> None:
    clips = batch(2)
    vector = text_to_video().condition(clips, key(clips), dropout=False).vector
    ids = torch.tensor([[6.0, 0.0, 0.0], [6.0, 1.0, 0.0]])
    assert torch.equal(vector, embed_added_time_ids(ids, width=ID_WIDTH))
    stills = batch(2, num_frames=1)
    vector = text_to_video().condition(stills, key(stills), dropout=False).vector
    assert torch.equal(vector, embed_added_time_ids(torch.zeros(2, 3), width=ID_WIDTH))


def test_dropout_takes_context_and_latents_apart_and_together_at_their_shares() -> None:
    clips = batch(600)
    shares = {"context": 0.2, "cond_latents": 0.1, "both": 0.3}
    condition = image_to_video(**shares).condition(clips, key(clips), dropout=True)
    assert condition.cond_latents is not None
    no_context = (condition.context == 0).all(dim=(1, 2))
    no_latents = (condition.cond_latents == 0).all(dim=(1, 2, 3, 4))
    found = {
        "context": (no_context & ~no_latents).float().mean().item(),
        "cond_latents": (no_latents & ~no_context).float().mean().item(),
        "both": (no_context & no_latents).float().mean().item(),
    }
    assert found == pytest.approx(shares, abs=0.06)


def test_validation_drops_nothing() -> None:
    clips = batch(20)
    condition = image_to_video(both=1.0).condition(clips, key(clips), dropout=False)
    assert torch.equal(condition.context, clips.image_embeds)
    texts = text_to_video(context=1.0).condition(clips, key(clips), dropout=False).context
    assert (texts > 0).all()


def test_a_dropped_caption_is_the_empty_text() -> None:
    clips = batch(400)
    texts = text_to_video(context=0.15).condition(clips, key(clips), dropout=True).context
    assert (texts == 0).all(dim=(1, 2)).float().mean().item() == pytest.approx(0.15, abs=0.05)


def test_latents_are_drawn_from_the_posterior_and_scaled() -> None:
    clips = batch(400, num_frames=2)
    drawn = sample_latents(clips, key(clips), latent_scale=0.5) / 0.5
    standard = (drawn - clips.mean) / (0.5 * clips.logvar).exp()
    assert standard.mean().item() == pytest.approx(0, abs=0.02)
    assert standard.std().item() == pytest.approx(1, abs=0.02)


def interpolation(**dropout: float) -> Interpolation:
    phase = stage_config().phases[0].model_copy(update={"dropout": DropoutConfig(**dropout)})
    return Interpolation(phase, latent_scale=0.5, id_width=ID_WIDTH)


def with_last_embeds(clips: LatentBatch) -> LatentBatch:
    return replace(clips, last_embeds=clips.image_embeds + 1)


def test_interpolation_knows_both_noised_ends_their_tokens_and_a_mask() -> None:
    clips = with_last_embeds(batch(2, num_frames=5))
    condition = interpolation().condition(clips, key(clips), dropout=False)
    assert torch.equal(
        condition.context, torch.cat([clips.image_embeds, clips.image_embeds + 1], 1)
    )
    known = condition.cond_latents
    assert known is not None
    assert known.shape == (2, 5, 5, 4, 8)
    assert known[0, :, 4].mean(dim=(1, 2)).tolist() == [1, 0, 0, 0, 1]
    assert (known[:, 1:4] == 0).all()
    cond_aug = draw_cond_aug(stage_config().phases[0].cond_aug, key(clips))
    noise = key(clips).normal(Purpose.COND_NOISE, (2, 4, 4, 8))
    ends = 0.5 * clips.mean[:, [0, -1]] + cond_aug[:, None, None, None, None] * noise
    assert torch.allclose(known[:, [0, -1], :4], ends)


def test_interpolation_drops_ends_and_mask_together() -> None:
    clips = with_last_embeds(batch(300, num_frames=5))
    condition = interpolation(both=0.3).condition(clips, key(clips), dropout=True)
    assert condition.cond_latents is not None
    dropped = (condition.cond_latents == 0).all(dim=(1, 2, 3, 4))
    assert dropped.float().mean().item() == pytest.approx(0.3, abs=0.08)
    assert torch.equal(dropped, (condition.context == 0).all(dim=(1, 2)))


def test_interpolation_needs_the_last_frames_embedding() -> None:
    clips = batch(2, num_frames=5)
    with pytest.raises(ConfigError, match="embedding of each window's last frame"):
        interpolation().condition(clips, key(clips), dropout=False)
