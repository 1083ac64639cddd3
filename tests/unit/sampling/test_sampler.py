"""What a sample depends on, and what it does not."""

import pytest
import torch
from torch import Tensor

from svd.config.sampling import GuidanceConfig, SamplingConfig, ScheduleConfig, SolverConfig
from svd.errors import ConfigError
from svd.models.networks.conditioner import embed_added_time_ids
from svd.sampling.samplers.components import Components
from svd.sampling.samplers.condition import condition_on_image, condition_on_text
from svd.sampling.samplers.noise import NoiseSource
from svd.sampling.samplers.sampler import image_to_video, text_to_video

CONFIG = SamplingConfig(
    num_frames=3,
    height=16,
    width=24,
    schedule=ScheduleConfig(num_steps=2),
    decode_chunk_size=3,
    decode_overlap=1,
)


def changed(**changes) -> SamplingConfig:
    return SamplingConfig.model_validate({**CONFIG.model_dump(), **changes})


def pictures(count: int = 2, height: int = 16, width: int = 24) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (count, height, width, 3), generator=generator, dtype=torch.uint8)


def test_a_video_is_decided_by_its_seed(image_model: Components) -> None:
    first = image_to_video(image_model, pictures(), config=CONFIG, seeds=[1, 2])
    again = image_to_video(image_model, pictures(), config=CONFIG, seeds=[1, 2])
    other = image_to_video(image_model, pictures(), config=CONFIG, seeds=[1, 3])
    assert first.shape == (2, 3, 16, 24, 3)
    assert first.dtype == torch.uint8
    assert torch.equal(first, again)
    assert torch.equal(first[0], other[0])
    assert not torch.equal(first[1], other[1])


@pytest.mark.parametrize("solver", ["euler", "euler-ancestral", "heun", "dpmpp-2m"])
def test_a_video_does_not_depend_on_the_batch(image_model: Components, solver: str) -> None:
    batches = [
        image_to_video(
            image_model,
            pictures(3),
            config=changed(batch_size=size, solver=SolverConfig(name=solver)),
            seeds=[4, 5, 6],
        )
        for size in (1, 2, 3)
    ]
    for batch in batches[1:]:
        assert (batch.int() - batches[0].int()).abs().max() <= 1  # last bit of a byte


def test_two_passes_give_the_video_of_one_batch(image_model: Components) -> None:
    def sample(passes: str) -> Tensor:
        config = changed(guidance=GuidanceConfig(max_scale=3.0, passes=passes))
        return image_to_video(image_model, pictures(1), config=config, seeds=[1])

    assert (sample("one-batch").int() - sample("two-passes").int()).abs().max() <= 1


@pytest.mark.parametrize(
    "change",
    [{"fps": 24}, {"motion_bucket_id": 3}, {"cond_aug": 0.5}, {"num_frames": 4}],
    ids=["fps", "motion", "cond_aug", "frames"],
)
def test_every_knob_changes_the_video(image_model: Components, change) -> None:
    plain = image_to_video(image_model, pictures(1), config=CONFIG, seeds=[1])
    other = image_to_video(image_model, pictures(1), config=changed(**change), seeds=[1])
    assert other.shape[1] == change.get("num_frames", 3)
    assert not torch.equal(plain[:, :3], other[:, :3])


def test_the_model_is_told_fps_minus_one_motion_and_noise(image_model: Components) -> None:
    conditioning = condition_on_image(
        image_model, pictures(1), config=changed(fps=7), noise=NoiseSource.from_seeds([1])
    )
    expected = embed_added_time_ids(torch.tensor([[6.0, 127.0, 0.02]]), width=8)
    torch.testing.assert_close(conditioning.vector, expected)


def test_cond_latents_are_the_unscaled_mode_of_the_noised_frame(image_model: Components) -> None:
    conditioning = condition_on_image(
        image_model, pictures(1), config=changed(cond_aug=0.0), noise=NoiseSource.from_seeds([1])
    )
    pixels = pictures(1).permute(0, 3, 1, 2).float() / 127.5 - 1
    expected = image_model.autoencoder.encode(pixels).mean
    assert conditioning.cond_latents is not None
    for frame in range(3):
        torch.testing.assert_close(conditioning.cond_latents[:, frame], expected)
    noised = condition_on_image(
        image_model, pictures(1), config=changed(cond_aug=0.3), noise=NoiseSource.from_seeds([1])
    )
    assert torch.equal(noised.context, conditioning.context)  # the embedding sees a clean frame
    assert noised.cond_latents is not None
    assert not torch.allclose(noised.cond_latents, conditioning.cond_latents)


def test_a_long_video_goes_on_from_its_last_frame(image_model: Components) -> None:
    long = image_to_video(image_model, pictures(), config=CONFIG, seeds=[1, 2], num_segments=3)
    short = image_to_video(image_model, pictures(), config=CONFIG, seeds=[1, 2])
    assert long.shape[1] == 3 * (3 - 1) + 1
    assert torch.equal(long[:, :3], short)
    next_part = image_to_video(
        image_model,
        short[:, -1],
        config=CONFIG,
        seeds=[1, 2],
        make_noise=lambda seeds, _: NoiseSource.from_seeds(seeds, segment=1),
    )
    assert (long[:, 3:5].int() - next_part[:, 1:].int()).abs().max() <= 1


def test_prompts_decide_a_text_video(text_model: Components) -> None:
    config = changed(guidance=GuidanceConfig(kind="constant", max_scale=7.0))
    red, blue = text_to_video(text_model, ["red", "blue"], config=config, seeds=[1, 1])
    assert red.shape == (3, 16, 24, 3)
    assert not torch.equal(red, blue)
    against = text_to_video(text_model, ["red"], config=config, seeds=[1], negative_prompt="blue")
    assert not torch.equal(against[0], red)


def test_a_still_has_neither_rate_nor_motion_nor_temporal_layers(text_model: Components) -> None:
    still = condition_on_text(text_model, ["red"], config=changed(num_frames=1))
    assert still.image_only is not None
    assert still.image_only.tolist() == [True]
    assert condition_on_text(text_model, ["red"], config=CONFIG).image_only is None
    torch.testing.assert_close(still.vector, embed_added_time_ids(torch.zeros(1, 3), width=8))


def test_sampling_leaves_the_global_generator_alone(image_model: Components) -> None:
    before = torch.random.get_rng_state()
    image_to_video(image_model, pictures(1), config=CONFIG, seeds=[1])
    assert torch.equal(torch.random.get_rng_state(), before)


def test_steps_of_all_batches_and_segments_are_reported(image_model: Components) -> None:
    ticks: list[int] = []
    image_to_video(
        image_model,
        pictures(3),
        config=changed(batch_size=2),
        seeds=[1, 2, 3],
        num_segments=2,
        on_step=lambda: ticks.append(1),
    )
    assert len(ticks) == 2 * 2 * 2


@pytest.mark.parametrize(
    ("height", "width", "words"),
    [
        (18, 24, "height=18 is not a multiple of 4 .* by 2, the UNet by 2.; try 16 or 20"),
        (16, 23, "width=23 is not a multiple of 4 .* try 20 or 24"),
    ],
    ids=["height", "width"],
)
def test_sizes_that_do_not_divide_are_explained(
    image_model: Components, height: int, width: int, words: str
) -> None:
    with pytest.raises(ConfigError, match=words):
        image_to_video(
            image_model,
            pictures(1, height, width),
            config=changed(height=height, width=width),
            seeds=[1],
        )


def test_a_model_is_not_sampled_from_what_it_does_not_take(
    image_model: Components, text_model: Components
) -> None:
    with pytest.raises(ConfigError, match="takes a prompt, not a picture"):
        image_to_video(text_model, pictures(1), config=CONFIG, seeds=[1])
    with pytest.raises(ConfigError, match="takes a picture, not a prompt"):
        text_to_video(image_model, ["red"], config=CONFIG, seeds=[1])


def test_pictures_and_seeds_must_match(image_model: Components) -> None:
    with pytest.raises(ConfigError, match="2 conditioning frames for 1 seeds"):
        image_to_video(image_model, pictures(), config=CONFIG, seeds=[1])
    with pytest.raises(ConfigError, match="of 48x32 pixels for width=24, height=16"):
        image_to_video(image_model, pictures(1, 32, 48), config=CONFIG, seeds=[1])


def test_a_sample_that_is_not_finite_is_an_error(image_model: Components) -> None:
    config = changed(guidance=GuidanceConfig(kind="constant", max_scale=1e38))
    with pytest.raises(ConfigError, match="the sample is not finite"):
        image_to_video(image_model, pictures(1), config=config, seeds=[1])
