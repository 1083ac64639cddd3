"""Where videos under test come from: a model, an autoencoder, somebody's files, the truth."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

import torch
from einops import rearrange
from jaxtyping import UInt8
from torch import Tensor

from svd.config.sampling import PlacementConfig, SamplingConfig
from svd.errors import ConfigError, MissingInputError
from svd.evaluation.reading import read_window
from svd.models.networks.autoencoder import Autoencoder
from svd.models.networks.temporal_decoder import TemporalDecoder
from svd.sampling.load import load_autoencoder, load_components
from svd.sampling.samplers.components import Components, dtype_of, pick_device
from svd.sampling.samplers.decode import to_frames, to_pixels
from svd.sampling.samplers.record import read_model_record
from svd.sampling.samplers.sampler import image_to_video, text_to_video
from svd.types.protocol import PlannedClip

Frames = UInt8[Tensor, "t c H W"]
ENCODE_CHUNK = 8  # frames encoded at once


@runtime_checkable
class VideoSource(Protocol):
    """Gives one video for each clip of a plan."""

    @property
    def kind(self) -> str:
        """One of SourceKind."""

    @property
    def checkpoint_sha256(self) -> str:
        """Of the weights, or of the files."""

    @property
    def step(self) -> int | None:
        """Of the checkpoint, if it has one."""

    @property
    def settings(self) -> Mapping[str, object]:
        """Of the sampler; empty if nothing is sampled."""

    @property
    def size(self) -> tuple[int, int] | None:
        """Height and width that are sampled; None if real videos set the size."""

    def video(self, clip: PlannedClip, real: Frames | None) -> Frames:
        """Return the video of a clip.

        Args:
            clip: What is asked for.
            real: The real video, framed as the protocol says; frame 0 is the condition. None if
                there is only a prompt.
        """


@dataclass(frozen=True, slots=True)
class ModelSource:
    """Samples a denoiser: from the first real frame, or from the prompt.

    Attributes:
        components: The loaded model.
        sampling: How to sample.
        precision: Of the placement; it moves the last digits.
        checkpoint_sha256: Of the weights.
        step: Of the checkpoint.
    """

    components: Components
    sampling: SamplingConfig
    precision: str
    checkpoint_sha256: str
    step: int | None

    @property
    def kind(self) -> str:
        """What the model is conditioned on."""
        is_text = self.components.text_encoder is not None
        return "text-to-video" if is_text else "image-to-video"

    @property
    def settings(self) -> Mapping[str, object]:
        """The sampling section and the precision."""
        return {**self.sampling.model_dump(mode="json"), "precision": self.precision}

    @property
    def size(self) -> tuple[int, int] | None:
        """Height and width that are sampled."""
        return self.sampling.height, self.sampling.width

    def video(self, clip: PlannedClip, real: Frames | None) -> Frames:
        """Sample one video with the clip's seed."""
        if self.kind == "text-to-video":
            videos = text_to_video(
                self.components, [clip.prompt], config=self.sampling, seeds=[clip.seed]
            )
        elif real is None:
            raise ConfigError(f"{clip.clip_id}: this model animates a picture, and there is none")
        else:
            segment = max(1, self.sampling.num_frames - 1)
            known = clip.elevation_deg
            told = {} if known is None else {"elevation_deg": known}
            videos = image_to_video(
                self.components,
                rearrange(real[:1], "b c H W -> b H W c"),
                config=self.sampling.model_copy(update=told),
                seeds=[clip.seed],
                num_segments=max(1, -(-(clip.num_frames - 1) // segment)),
            )
        return rearrange(videos[0], "t H W c -> t c H W").cpu().contiguous()


@dataclass(frozen=True, slots=True)
class ReconstructionSource:
    """An autoencoder: encodes the real video (mode of the posterior) and decodes it as one clip.

    Attributes:
        autoencoder: Encodes, and decodes frame by frame where there is no temporal decoder.
        temporal_decoder: Decodes whole clips, or None.
        device: Where it runs.
        precision: "fp32" or "bf16".
        checkpoint_sha256: Of the weights.
        step: Of the checkpoint.
    """

    autoencoder: Autoencoder
    temporal_decoder: TemporalDecoder | None
    device: torch.device
    precision: str
    checkpoint_sha256: str
    step: int | None

    kind = "reconstruction"
    size = None

    @property
    def settings(self) -> Mapping[str, object]:
        """The precision."""
        return {"precision": self.precision, "decoder": self._decoder}

    @property
    def _decoder(self) -> str:
        return "frame by frame" if self.temporal_decoder is None else "temporal, one clip"

    @torch.no_grad()
    def video(self, clip: PlannedClip, real: Frames | None) -> Frames:
        """Return the real video after the autoencoder."""
        if real is None:
            raise ConfigError(f"{clip.clip_id}: there is no video to reconstruct")
        pixels = to_pixels(rearrange(real, "t c H W -> t H W c"))
        dtype = self.autoencoder.quant_conv.weight.dtype
        parts = [
            self.autoencoder.encode(part.to(self.device, dtype)).mean
            for part in torch.split(pixels, ENCODE_CHUNK)
        ]
        latents = torch.cat(parts)
        if self.temporal_decoder is None:
            decoded = torch.cat(
                [self.autoencoder.decode(part) for part in torch.split(latents, ENCODE_CHUNK)]
            )
        else:
            decoded = self.temporal_decoder.decode(latents, num_frames=len(latents))
        frames = to_frames(decoded.float().cpu()[None])[0]
        return rearrange(frames, "t H W c -> t c H W").contiguous()


class FileSource:
    """Videos somebody made with any model, one file a clip.

    A file is named as the protocol's authors name it, or `<clip id>.mp4`.
    """

    kind = "files"
    step = None
    settings: Mapping[str, object] = {}

    def __init__(self, folder: Path) -> None:
        """List a folder; the first video's size is taken for all.

        Raises:
            MissingInputError: It holds no videos.
        """
        files = sorted(folder.glob("*.mp4")) if folder.is_dir() else []
        if not files:
            raise MissingInputError(f"{folder} holds no .mp4 files")
        self._files = {path.stem: path for path in files}
        first = read_window(files[0], num_frames=1)
        self.size: tuple[int, int] | None = (first.shape[-2], first.shape[-1])
        lines = [f"{path.name} {path.stat().st_size}" for path in files]
        self.checkpoint_sha256 = hashlib.sha256("\n".join(lines).encode()).hexdigest()

    def video(self, clip: PlannedClip, real: Frames | None) -> Frames:  # noqa: ARG002
        """Read a clip's video."""
        for name in (clip.facts.get("file"), clip.clip_id):
            if name is not None and name in self._files:
                return read_window(self._files[name])
        raise MissingInputError(
            f"no video for {clip.clip_id}: expected {clip.facts.get('file', clip.clip_id)}.mp4"
        )


class TruthSource:
    """The real videos themselves: what a perfect model would score."""

    kind = "truth"
    checkpoint_sha256 = "0" * 64
    step = None
    settings: Mapping[str, object] = {}

    def __init__(self, size: tuple[int, int] | None = None) -> None:
        """Take the size that real videos are framed at; None is the protocol's own."""
        self.size = size

    def video(self, clip: PlannedClip, real: Frames | None) -> Frames:
        """Return the real video."""
        if real is None:
            raise ConfigError(f"{clip.clip_id}: there is no real video")
        return real


def open_model(
    folder: Path,
    autoencoder_dir: Path,
    *,
    sampling: SamplingConfig,
    placement: PlacementConfig,
) -> ModelSource:
    """Load a denoiser as a source.

    Raises:
        MissingInputError: A folder or file is not there.
        CheckpointError: It is no denoiser, or its weights do not fit.
    """
    record = read_model_record(folder, kind="denoiser")
    components = load_components(folder, autoencoder_dir, placement=placement)
    components.check_size(sampling.height, sampling.width)
    return ModelSource(
        components, sampling, placement.precision, record.weights_sha256, record.step
    )


def open_autoencoder(folder: Path, *, placement: PlacementConfig) -> ReconstructionSource:
    """Load an autoencoder as a source.

    Raises:
        MissingInputError: A folder or file is not there.
        CheckpointError: It is no autoencoder, or its weights do not fit.
    """
    record = read_model_record(folder, kind="autoencoder")
    autoencoder, decoder, _ = load_autoencoder(folder)
    device, dtype = pick_device(placement.device), dtype_of(placement.autoencoder_precision)
    for module in (autoencoder, decoder):
        if module is not None:
            module.eval().requires_grad_(requires_grad=False).to(device, dtype)
    return ReconstructionSource(
        autoencoder,
        decoder,
        device,
        placement.autoencoder_precision,
        record.weights_sha256,
        record.step,
    )
