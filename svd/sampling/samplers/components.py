"""The networks a sampler needs, on the device when they work."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from svd.config.sampling import Precision
from svd.errors import ConfigError
from svd.models.networks.autoencoder import Autoencoder
from svd.models.networks.denoiser import Denoiser
from svd.models.networks.image_encoder import ImageEncoder
from svd.models.networks.temporal_decoder import TemporalDecoder
from svd.models.networks.text_encoder import TextEncoder
from svd.sampling.samplers.adapters import AdapterUse
from svd.types.orbit import PoseAngle

_DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


@dataclass(frozen=True, slots=True, kw_only=True)
class Components:
    """Loaded networks, frozen and in evaluation mode.

    Attributes:
        denoiser: The model that is sampled.
        autoencoder: Encodes the conditioning frame; decodes where there is no temporal decoder.
        temporal_decoder: Decodes clips; None decodes frame by frame.
        image_encoder: Gives image-to-video its context; None for text-to-video.
        text_encoder: Gives text-to-video its context; None for image-to-video.
        adapters: Of the denoiser, attached to it already.
        pose: Camera angles that the denoiser is told per frame; orbits only.
        latent_scale: The denoiser works on latents times this.
        device: Where the component at work runs.
        offload: Whether components leave the device when their work is done.
    """

    denoiser: Denoiser
    autoencoder: Autoencoder
    temporal_decoder: TemporalDecoder | None = None
    image_encoder: ImageEncoder | None = None
    text_encoder: TextEncoder | None = None
    adapters: tuple[AdapterUse, ...] = ()
    pose: tuple[PoseAngle, ...] = ()
    latent_scale: float
    device: torch.device
    offload: bool = False

    def freeze(self) -> None:
        """Take every network out of training, and move them to the device unless offloading."""
        for module in (
            self.denoiser,
            self.autoencoder,
            self.temporal_decoder,
            self.image_encoder,
            self.text_encoder,
        ):
            if module is not None:
                module.eval().requires_grad_(requires_grad=False)
                module.to("cpu" if self.offload else self.device)

    @property
    def size_multiple(self) -> int:
        """Pixels that height and width must be multiples of."""
        unet = self.denoiser.config.unet
        return self.autoencoder.config.downsampling * unet.downsampling

    @property
    def latent_channels(self) -> int:
        """Channels of the latents that are sampled."""
        return self.denoiser.config.unet.out_channels

    def check_size(self, height: int, width: int) -> None:
        """Raise a ConfigError that names the nearest sizes that work."""
        multiple = self.size_multiple
        for name, side in (("height", height), ("width", width)):
            if side % multiple:
                below = max(multiple, side // multiple * multiple)
                raise ConfigError(
                    f"{name}={side} is not a multiple of {multiple} (the autoencoder shrinks "
                    f"pictures by {self.autoencoder.config.downsampling}, the UNet by "
                    f"{self.denoiser.config.unet.downsampling}); try {below} or {below + multiple}"
                )

    @contextmanager
    def at_work(self, *modules: nn.Module | None) -> Iterator[None]:
        """Have modules on the device for the time of a block."""
        present = [module for module in modules if module is not None]
        for module in present:
            module.to(self.device)
        try:
            yield
        finally:
            if self.offload:
                for module in present:
                    module.to("cpu")
                if self.device.type == "cuda":
                    torch.cuda.empty_cache()

    def encode_frame(self, pixels: Float[Tensor, "b 3 H W"]) -> Float[Tensor, "b c h w"]:
        """Return the mode of the latents of one frame, NOT multiplied by latent_scale."""
        weight = self.autoencoder.quant_conv.weight
        with self.at_work(self.autoencoder):
            return self.autoencoder.encode(pixels.to(self.device, weight.dtype)).mean.float()

    def decode_clip(self, latents: Float[Tensor, "1 t c h w"]) -> Float[Tensor, "1 t 3 H W"]:
        """Return pixels, about -1..1, of latents that are NOT multiplied by latent_scale."""
        dtype = self.autoencoder.quant_conv.weight.dtype
        frames = latents[0].to(self.device, dtype)
        if self.temporal_decoder is None:
            return self.autoencoder.decode(frames)[None]
        return self.temporal_decoder.decode(frames, num_frames=len(frames))[None]

    @property
    def decoder(self) -> nn.Module:
        """The module that decode_clip runs."""
        return self.autoencoder if self.temporal_decoder is None else self.temporal_decoder


def pick_device(name: str) -> torch.device:
    """Return a torch device; "auto" is the GPU if there is one.

    Raises:
        ConfigError: Not a device, or a GPU that is not there.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as err:
        raise ConfigError(f"device={name} is not a torch device such as cpu or cuda:0") from err
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ConfigError(f"device={name}: this machine has {torch.cuda.device_count()} GPUs")
    return device


def dtype_of(precision: Precision) -> torch.dtype:
    """Return the torch dtype of a precision."""
    return _DTYPES[precision]
