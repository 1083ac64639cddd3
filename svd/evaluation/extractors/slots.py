"""Networks a user brings (VideoMAE, DINO, C3D, CLIP): a file by local path, and its card.

A card is JSON beside the file. ONNX files and OpenCLIP towers in safetensors are read; neither
can hold code. Their numbers never bear an official metric's name, whatever the card says: that
takes weights on the list in `svd.evaluation.extractors.base`.
"""

from pathlib import Path
from typing import Literal, Self

import numpy as np
import torch
from jaxtyping import Float, UInt8
from pydantic import Field, model_validator
from torch import Tensor

from svd.config.model import ImageEncoderConfig
from svd.errors import CheckpointError, ConfigError, IntegrityError, MissingInputError
from svd.evaluation.extractors.base import ExtractorCard, PictureEmbedder, VideoExtractor
from svd.evaluation.extractors.prepare import VideoInput, prepare_video
from svd.evaluation.geometry import cover, stretch
from svd.models.networks.image_encoder import ImageEncoder
from svd.runtime.fingerprint import file_sha256
from svd.types.base import Record

_Triple = tuple[float, float, float]


class SlotCard(Record):
    """What a user says of a network; its hash is checked, the rest is taken at their word."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9.-]*$")  # e.g. "dino-vitb16"
    sees: Literal["pictures", "videos"]
    format: Literal["onnx", "open-clip"]
    file: str  # beside the card, or an absolute path
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")  # of the file
    kind: Literal["official", "port", "proxy"]
    source: str
    licence: str
    layer: str = "features"  # what comes out, e.g. "logits101", "cls768"
    dim: int = Field(gt=0)  # of that
    size: int = Field(default=224, ge=8)  # pixels, side of the square it is fed
    resize: Literal["stretch", "crop"] = "stretch"
    antialias: bool = True
    mean: _Triple = (0.5, 0.5, 0.5)  # subtracted from RGB in 0..1
    std: _Triple = (0.5, 0.5, 0.5)  # divided by after that
    num_frames: int = Field(default=16, ge=1)  # videos only: an input is n 3 t H W
    architecture: str = ""  # open-clip only: OpenCLIP's name, e.g. "ViT-B-32-quickgelu"

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.format == "open-clip" and (not self.architecture or self.sees != "pictures"):
            raise ValueError("an open-clip tower needs `architecture` and sees pictures")
        return self

    @property
    def described(self) -> str:
        """Return the part of a variant id that tells how pictures are made fit."""
        filtered = "aa" if self.antialias else "noaa"
        return f"{self.name}/{self.layer}/{self.resize}{self.size}-{filtered}"

    def extractor_card(self) -> ExtractorCard:
        """Return the card that travels with its numbers."""
        return ExtractorCard(
            name=self.name,
            kind=self.kind,
            weights_sha256=self.sha256,
            source=self.source,
            licence=self.licence,
            input=f"{self.sees}, {self.resize} {self.size}, (RGB - {self.mean}) / {self.std}",
            dim=self.dim,
            code_version="1",
        )


class LoadedSlot:
    """A user's network, ready: float32 pixels in, vectors out."""

    def __init__(self, card: SlotCard, folder: Path) -> None:
        """Load and check the file that a card names.

        Raises:
            MissingInputError: It is not there.
            IntegrityError: It is not the file of the card.
            CheckpointError: Its format's reader refuses it.
        """
        self.card = card
        path = folder / card.file
        if not path.is_file():
            raise MissingInputError(f"{path}: the file that the card of {card.name} names")
        found = file_sha256(path)
        if found != card.sha256:
            raise IntegrityError(f"{path} has sha256 {found}, its card says {card.sha256}")
        self._run = _Onnx(path) if card.format == "onnx" else _Tower(path, card)

    def __call__(self, pixels: Float[Tensor, "n 3 ..."]) -> Float[Tensor, "n d"]:
        """Return one vector an input.

        Raises:
            ConfigError: The network's answer is not what the card says.
        """
        shape = (1, 3, *(1,) * (pixels.ndim - 2))
        mean = torch.tensor(self.card.mean).view(shape)
        std = torch.tensor(self.card.std).view(shape)
        vectors = self._run((pixels - mean) / std)
        if vectors.shape != (pixels.shape[0], self.card.dim):
            raise ConfigError(
                f"{self.card.name} answers {tuple(vectors.shape)}, its card says {self.card.dim}"
            )
        return vectors


class SlotPictureEmbedder:
    """A user's picture network."""

    def __init__(self, slot: LoadedSlot) -> None:
        self._slot = slot

    @property
    def card(self) -> ExtractorCard:
        """Who measures."""
        return self._slot.card.extractor_card()

    @property
    def variant(self) -> str:
        """Network and input, as in a variant id."""
        return self._slot.card.described

    @torch.inference_mode()
    def embed(self, pictures: UInt8[Tensor, "n c H W"]) -> Float[Tensor, "n d"]:
        """Return one vector a picture."""
        card = self._slot.card
        resize = stretch if card.resize == "stretch" else cover
        sized = resize(pictures.float(), card.size, card.size, antialias=card.antialias)
        return self._slot(sized / 255)


class SlotVideoExtractor:
    """A user's video network."""

    def __init__(self, slot: LoadedSlot, *, source_frames: int) -> None:
        card = slot.card
        self._slot = slot
        self.video_input = VideoInput(
            num_frames=card.num_frames,
            source_frames=source_frames,
            size=card.size,
            resize=card.resize,
            antialias=card.antialias,
        )

    @property
    def card(self) -> ExtractorCard:
        """Who measures."""
        return self._slot.card.extractor_card()

    @property
    def variant(self) -> str:
        """Network and input, as in a variant id."""
        return f"{self._slot.card.name}/{self._slot.card.layer}/{self.video_input.describe()}"

    @torch.inference_mode()
    def extract(self, frames: UInt8[Tensor, "b t c H W"]) -> Float[Tensor, "b d"]:
        """Return one vector a video."""
        return self._slot((prepare_video(frames, self.video_input) + 1) / 2)


def load_slot(card_path: Path) -> LoadedSlot:
    """Return the network of a card.

    Raises:
        MissingInputError: Card or file are not there.
        IntegrityError: The card is none, or the file is not the card's.
        CheckpointError: The file's format is refused by its reader.
    """
    if not card_path.is_file():
        raise MissingInputError(f"{card_path}: no such card; see docs/evaluation.md, Networks")
    card = SlotCard.parse(card_path.read_text(encoding="utf-8"), origin=str(card_path))
    return LoadedSlot(card, card_path.parent)


def load_picture_slot(card_path: Path) -> PictureEmbedder:
    """Return a user's picture network; see `load_slot`."""
    slot = load_slot(card_path)
    if slot.card.sees != "pictures":
        raise ConfigError(f"{card_path}: {slot.card.name} sees {slot.card.sees}, not pictures")
    return SlotPictureEmbedder(slot)


def load_video_slot(card_path: Path, *, source_frames: int) -> VideoExtractor:
    """Return a user's video network; see `load_slot`."""
    slot = load_slot(card_path)
    if slot.card.sees != "videos":
        raise ConfigError(f"{card_path}: {slot.card.name} sees {slot.card.sees}, not videos")
    return SlotVideoExtractor(slot, source_frames=source_frames)


class _Onnx:
    """An ONNX graph of one input and one output."""

    def __init__(self, path: Path) -> None:
        import onnxruntime

        try:
            self._session = onnxruntime.InferenceSession(
                str(path), providers=onnxruntime.get_available_providers()
            )
        except Exception as err:
            raise CheckpointError(f"{path}: not an ONNX graph: {err}") from err
        self._input = self._session.get_inputs()[0].name

    def __call__(self, pixels: Tensor) -> Tensor:
        answer = self._session.run(None, {self._input: pixels.float().contiguous().numpy()})[0]
        return torch.from_numpy(np.asarray(answer, dtype=np.float32))


class _Tower:
    """An OpenCLIP vision tower."""

    def __init__(self, path: Path, card: SlotCard) -> None:
        self._tower = ImageEncoder(
            ImageEncoderConfig(
                kind="open-clip",
                architecture=card.architecture,
                weights=str(path),
                image_size=card.size,
            )
        )

    def __call__(self, pixels: Tensor) -> Tensor:
        embeds: Tensor = self._tower.visual(pixels)
        return embeds.float()
