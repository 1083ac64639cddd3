"""Videos of held-out clips while training goes on: what the numbers do not show.

The averaged weights are sampled where they lie, through the engine, so that a sharded model needs
no copy; ranks call the network together and share the clips out.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import torch
import torch.distributed as dist
from jaxtyping import Float, UInt8
from numpy import ndarray
from torch import Tensor

from svd.config.model import DenoiserConfig
from svd.config.training import SamplesConfig
from svd.media.encode import write_video
from svd.media.gallery import write_contact_sheet
from svd.models.networks.autoencoder import Autoencoder
from svd.models.networks.precond import build_preconditioner
from svd.sampling.samplers.decode import to_frames
from svd.sampling.samplers.noise import NoiseSource
from svd.sampling.samplers.sampler import sample_latents
from svd.training.loop.engine import Engine
from svd.training.loop.ranks import share_of
from svd.training.objective.noise import DrawKey
from svd.training.objective.objectives import Objective
from svd.types.batch import Conditioning, LatentBatch

_SAMPLES = 1_000_001  # stands where the number of a phase stands in the keys of training draws


class EngineDenoiser:
    """The network that is being trained, as samplers call one."""

    def __init__(self, engine: Engine, config: DenoiserConfig) -> None:
        self._engine = engine
        self._scalings = build_preconditioner(config)

    def __call__(
        self,
        noisy_latents: Float[Tensor, "b t c h w"],
        sigma: Float[Tensor, " b"],
        conditioning: Conditioning,
    ) -> Float[Tensor, "b t c h w"]:
        """Return the denoised latents."""
        output: Tensor = self._engine(noisy_latents, sigma, conditioning)
        scalings = self._scalings(sigma.float())
        per_clip = (slice(None), None, None, None, None)
        return scalings.c_skip[per_clip] * noisy_latents + scalings.c_out[per_clip] * output


class Sampler:
    """Samples the same held-out clips with the same noise whenever it is asked."""

    def __init__(
        self,
        batches: Sequence[LatentBatch],
        *,
        config: SamplesConfig,
        denoiser: DenoiserConfig,
        autoencoder: Autoencoder,
        latent_scale: float,
        seed: int,
    ) -> None:
        """Take this rank's share of the clips; every rank takes equally many.

        Args:
            batches: Held-out clips, one per batch, in the same order on every rank.
            config: How to sample.
            denoiser: The architecture.
            autoencoder: Decodes the latents.
            latent_scale: Of the diffused latents.
            seed: Of the noise.
        """
        share = share_of(len(batches))
        self._mine = [(index, batches[index]) for index in share]
        self._first_own = dist.get_rank() * len(share)  # before it are clips of other ranks
        self._config = config
        self._denoiser = denoiser
        self._autoencoder = autoencoder
        self._latent_scale = latent_scale
        self._seed = seed

    def writes(self, index: int) -> bool:
        """Say whether it is this rank that writes a clip's video: some are sampled by several."""
        return index >= self._first_own

    def run(self, engine: Engine, objective: Objective, folder: Path) -> None:
        """Write `<clip>.mp4` for every clip and a contact sheet of all, `<folder>.png`.

        All ranks call this. A row of the sheet is a video; stills are videos of one frame.
        """
        denoise = EngineDenoiser(engine, self._denoiser)
        mine: dict[int, UInt8[ndarray, "t H W 3"]] = {}
        with engine.inference():
            for index, batch in self._mine:
                frames = self._sample(denoise, batch.to(engine.device), objective)
                mine[index] = frames.numpy()
                if len(frames) > 1 and self.writes(index):
                    path = folder / f"{batch.clip_ids[0]}.mp4"
                    path.parent.mkdir(parents=True, exist_ok=True)
                    write_video(path, frames.numpy(), max(1, round(float(batch.fps[0]))))
        parts: list[dict[int, UInt8[ndarray, "t H W 3"]]] = [{}] * dist.get_world_size()
        dist.all_gather_object(parts, mine)
        if dist.get_rank() == 0:
            everything = {index: frames for part in parts for index, frames in part.items()}
            folder.parent.mkdir(parents=True, exist_ok=True)
            sheet = folder.with_name(folder.name + ".png")
            write_contact_sheet(sheet, [everything[index] for index in sorted(everything)])

    def _sample(
        self,
        denoise: Callable[..., Tensor],
        batch: LatentBatch,
        objective: Objective,
    ) -> UInt8[Tensor, "t H W 3"]:
        key = DrawKey(self._seed, _SAMPLES, batch.positions)
        conditioning = objective.condition(batch, key, dropout=False)
        unconditional = conditioning.unconditional()
        if conditioning.cond_latents is None:  # a dropped caption is the empty text
            silent = replace(batch, captions=("",) * len(batch))
            unconditional = objective.condition(silent, key, dropout=False)
        _, frames, channels, height, width = batch.mean.shape
        latents = sample_latents(
            denoise,
            conditioning,
            unconditional,
            shape=(frames, channels, height, width),
            schedule=self._config.schedule,
            solver=self._config.solver,
            guidance=self._config.guidance,
            noise=NoiseSource.from_seeds(batch.positions),
        )
        pixels = [self._autoencoder.decode(one[None]) for one in latents[0] / self._latent_scale]
        return to_frames(torch.cat(pixels)[None]).cpu()[0]
