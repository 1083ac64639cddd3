"""The training loop of the temporal decoder: one process, resumable, bit for bit."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from einops import rearrange
from jaxtyping import Float, UInt8
from torch import Tensor

from svd.config.decoder import DecoderTraining
from svd.data.frames import Frames
from svd.models.autoencoder import Autoencoder
from svd.models.lpips import LPIPS
from svd.runtime.progress import track
from svd.runtime.seed import torch_generator
from svd.training.autoencoder_fit import rate_factor
from svd.training.decoder_objective import decoder_loss, discriminator_loss
from svd.training.decoder_state import DecoderRow, DecoderState, save_decoder_state

_STEP = 33  # what a draw decides; the second part of its key, after the seed


@dataclass(frozen=True, slots=True)
class Teachers:
    """Networks that do not learn.

    Attributes:
        autoencoder: Its encoder gives the latents.
        perceptual: LPIPS, where the objective has it.
        latent_scale: Latents times this have a std of about 1.
    """

    autoencoder: Autoencoder
    perceptual: LPIPS | None
    latent_scale: float


def fit(
    state: DecoderState,
    teachers: Teachers,
    frames: Frames,
    lengths: Sequence[int],
    config: DecoderTraining,
    *,
    seed: int,
    checkpoint: Path,
    on_row: Callable[[DecoderRow], None],
) -> None:
    """Train from the state's step to the last one.

    Every draw hangs on (seed, step), so a run resumed from `checkpoint` ends in the same bits.

    Args:
        state: Changed in place.
        teachers: The frozen encoder, and LPIPS where the objective has it.
        frames: Training frames (n, 3, H, W), clip after clip.
        lengths: Frames of each clip.
        config: How.
        seed: Of windows, crops, flips and posterior noise.
        checkpoint: Written at intervals, atomically.
        on_row: Told each new row of the history.

    Raises:
        TrainingDivergedError: Loss or gradient is not finite; raised before the update.
    """
    starts = window_starts(lengths, config.num_frames)
    steps = range(state.step, config.num_steps)
    for step in track(steps, total=len(steps), description="training the temporal decoder"):
        factor = rate_factor(step, num_steps=config.num_steps, warmup=config.lr_warmup_steps)
        generator = torch_generator(seed, _STEP, step)
        clips = draw_windows(
            frames,
            starts,
            config,
            grid=teachers.autoencoder.config.downsampling,
            generator=generator,
        )
        parts, grad_norm = _update(state, teachers, clips, config, factor, generator)
        state.add(parts, ema_decay=config.ema_decay)
        if state.step % config.log_every_steps == 0 or state.step == config.num_steps:
            row = _row(state, config, grad_norm=grad_norm, lr=config.lr * factor)
            state.rows.append(row)
            on_row(row)
            state.window.zero_()
        if state.step % config.checkpoint_every_steps == 0:
            save_decoder_state(state, checkpoint)


def window_starts(lengths: Sequence[int], num_frames: int) -> list[int]:
    """Return where windows of neighbouring frames may begin; none crosses from clip to clip."""
    starts: list[int] = []
    first = 0
    for length in lengths:
        starts += range(first, first + length - num_frames + 1)
        first += length
    return starts


def draw_windows(
    frames: Frames,
    starts: Sequence[int],
    config: DecoderTraining,
    *,
    grid: int,
    generator: torch.Generator,
) -> UInt8[Tensor, "b t 3 s s"]:
    """Draw square crops of neighbouring frames, each mirrored with probability one half."""
    height, width = frames.shape[2:]
    size = config.crop

    def draw(high: int) -> list[int]:
        drawn: list[int] = torch.randint(high, (config.batch_size,), generator=generator).tolist()
        return drawn

    picked, mirrored = draw(len(starts)), draw(2)
    tops, lefts = draw((height - size) // grid + 1), draw((width - size) // grid + 1)
    windows = []
    for index, top, left, mirror in zip(picked, tops, lefts, mirrored, strict=True):
        first = starts[index]
        rows = slice(grid * top, grid * top + size)
        columns = slice(grid * left, grid * left + size)
        cut = frames[first : first + config.num_frames, :, rows, columns]
        window = torch.from_numpy(cut.copy())
        windows.append(window.flip(3) if mirror else window)
    return torch.stack(windows)


def _update(
    state: DecoderState,
    teachers: Teachers,
    clips: UInt8[Tensor, "b t 3 s s"],
    config: DecoderTraining,
    factor: float,
    generator: torch.Generator,
) -> tuple[Float[Tensor, "5"], float]:
    """Make one step of both networks; return the five parts and the norm of the gradient."""
    pixels = clips.to(teachers.autoencoder.quant_conv.weight.device).float() / 127.5 - 1
    with torch.no_grad():
        latents = teachers.autoencoder.encode(pixels.flatten(0, 1)).sample(generator)
        latents = latents + _noise(latents, config, teachers.latent_scale, generator)
    decoded = rearrange(
        state.decoder.network.decode(latents, num_frames=config.num_frames),
        "(b t) c h w -> b t c h w",
        t=config.num_frames,
    )
    adversary, opponent = config.adversary, state.opponent
    plays = adversary is not None and state.step >= adversary.start_step
    terms = decoder_loss(
        decoded,
        pixels,
        config,
        perceptual=teachers.perceptual,
        discriminator=opponent.network if opponent is not None and plays else None,
        last_weight=state.decoder.network.last_layer.weight,
    )
    grad_norm = state.decoder.step(terms.loss, lr=config.lr * factor, grad_clip=config.grad_clip)
    told = torch.zeros_like(terms.loss)
    if adversary is not None and opponent is not None and plays:
        told = discriminator_loss(opponent.network, decoded, pixels)
        opponent.step(told, lr=adversary.lr * factor, grad_clip=config.grad_clip)
    parts = torch.stack([*terms, told]).detach().double().cpu()
    return parts, grad_norm


def _noise(
    latents: Float[Tensor, "bt c h w"],
    config: DecoderTraining,
    latent_scale: float,
    generator: torch.Generator,
) -> Float[Tensor, "bt c h w"]:
    """Return noise of one strength per clip, drawn from 0 to the largest."""
    strengths = torch.rand(config.batch_size, generator=generator) * config.latent_noise
    per_frame = strengths.repeat_interleave(config.num_frames)[:, None, None, None]
    noise = torch.randn(latents.shape, generator=generator)
    return (per_frame / latent_scale * noise).to(latents.device)


def _row(
    state: DecoderState, config: DecoderTraining, *, grad_norm: float, lr: float
) -> DecoderRow:
    count = (state.step - 1) % config.log_every_steps + 1
    loss, l1, perceptual, adversarial, discriminator = (state.window / count).tolist()
    return DecoderRow(
        step=state.step,
        examples_seen=state.step * config.batch_size,
        loss=loss,
        l1=l1,
        perceptual=perceptual,
        adversarial=adversarial,
        discriminator=discriminator,
        grad_norm=grad_norm,
        lr=lr,
    )
