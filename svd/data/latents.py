"""Frames in, latents and embeddings out: what an example holds of a clip."""

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

import torch
from jaxtyping import Float, UInt8
from pydantic import ValidationError
from torch import Tensor

from svd.config.model import AutoencoderConfig, ImageEncoderConfig
from svd.data.stream.examples import EncodedClip
from svd.errors import CheckpointError, IntegrityError, MissingInputError
from svd.models.checkpoints.weights import load_weights
from svd.models.networks.autoencoder import Autoencoder
from svd.models.networks.image_encoder import ImageEncoder
from svd.runtime.fingerprint import file_sha256
from svd.types.artifact import ModelRecord
from svd.types.shard import EncoderIdentity, ExampleMeta


class ClipEncoder:
    """The two frozen networks that see every clip once.

    What it returns depends on the number of threads a tensor operation uses, in the last bits;
    callers that promise equal bytes fix it.
    """

    def __init__(
        self,
        autoencoder: Autoencoder,
        image_encoder: ImageEncoder,
        *,
        block_frames: int,
        frames_at_once: int,
        device: str,
    ) -> None:
        """Take the networks.

        Args:
            autoencoder: Its posterior is stored.
            image_encoder: Embeds the first frame of each block.
            block_frames: Frames per block.
            frames_at_once: Frames in one pass; memory only.
            device: Where to compute, "cpu" or "cuda".
        """
        self._autoencoder = autoencoder.to(device).eval().requires_grad_(requires_grad=False)
        self._image_encoder = image_encoder.to(device)
        self._block_frames = block_frames
        self._frames_at_once = frames_at_once
        self._device = device
        self.embed_dim: int = image_encoder.token_dim  # size of an image embedding

    @torch.inference_mode()
    def encode(self, meta: ExampleMeta, frames: UInt8[Tensor, "t 3 H W"]) -> EncodedClip:
        """Return the clip as it is stored; latents are NOT multiplied by the latent scale."""
        moments = []
        for part in self._parts(frames):
            mean, logvar = self._autoencoder.encode(part)
            moments.append(torch.stack([mean, logvar], dim=1).to(torch.float16).cpu())
        firsts = frames[:: self._block_frames]
        embeds = [self._image_encoder.encode(part)[:, 0].cpu() for part in self._parts(firsts)]
        return EncodedClip(
            meta=meta,
            moments=torch.cat(moments).contiguous(),
            cond_frames=firsts,
            image_embeds=torch.cat(embeds),
        )

    def _parts(self, frames: UInt8[Tensor, "t 3 H W"]) -> Iterator[Float[Tensor, "n 3 H W"]]:
        for start in range(0, len(frames), self._frames_at_once):
            part = frames[start : start + self._frames_at_once]
            yield part.to(self._device).float() / 127.5 - 1


def load_autoencoder(folder: Path) -> tuple[Autoencoder, ModelRecord]:
    """Load what stage autoencoder left in a folder.

    Raises:
        MissingInputError: The stage has not run.
        IntegrityError: The weights are not those that model.json names.
        CheckpointError: They do not fit the architecture.
    """
    path, weights = folder / "model.json", folder / "weights.safetensors"
    if not (path.is_file() and weights.is_file()):
        raise MissingInputError(f"{folder} holds no autoencoder: run `svd autoencoder` first")
    record = ModelRecord.parse(path.read_text(encoding="utf-8"), origin=str(path))
    found = file_sha256(weights)
    if found != record.weights_sha256:
        raise IntegrityError(
            f"{weights} has sha256 {found}, model.json names {record.weights_sha256}"
        )
    try:
        config = AutoencoderConfig.model_validate_json(json.dumps(record.architecture))
    except ValidationError as err:
        raise CheckpointError(f"{path}: architecture is not an autoencoder's: {err}") from err
    autoencoder = Autoencoder(config)
    load_weights(autoencoder, weights)
    return autoencoder, record


def identify_autoencoder(record: ModelRecord) -> EncoderIdentity:
    """Return the manifest's entry for the autoencoder."""
    return EncoderIdentity(
        role="autoencoder",
        name=f"{record.stage}, {record.num_parameters:,} parameters",
        sha256=record.weights_sha256,
        config=record.architecture,
    )


def identify_image_encoder(config: ImageEncoderConfig) -> EncoderIdentity:
    """Return the manifest's entry for the image encoder.

    Its hash is that of its weights file; of a seeded one, of the section that seeds it.
    """
    section = config.model_dump(mode="json")
    if config.weights is not None:
        sha256 = file_sha256(Path(config.weights))
    else:
        sha256 = hashlib.sha256(json.dumps(section, sort_keys=True).encode()).hexdigest()
    is_tiny = config.kind == "tiny"
    name = f"tiny, seed {config.seed}" if is_tiny else f"open_clip {config.architecture}"
    return EncoderIdentity(role="image-encoder", name=name, sha256=sha256, config=section)
