"""The paper's text area: boxes of CRAFT on the first, middle and last frame.

Source: SVD, appendix C.5; boxes as in CRAFT's own code (Baek 2019, section 3.3): connected pixels
of region or affinity score, grown to undo the shrinking of the score, in their least rectangle.
Its weights must be brought; `text.area` is what runs without them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import cv2
import numpy as np
from jaxtyping import Float32

from svd.config.annotation_models import CraftConfig
from svd.curation.annotate.network_file import load_published
from svd.curation.annotate.overlay_text import boxes_area
from svd.curation.annotate.scoring import Measured
from svd.curation.annotate.weights import Weights
from svd.types.annotation import Scorer

if TYPE_CHECKING:
    import torch

NAME = "craft"
_STEP_PX = 32  # sides of what the network sees are multiples of it
_MIN_PIXELS = 10  # of a box on the score map
_MEAN = np.array([0.485, 0.456, 0.406], dtype=np.float32) * 255  # ImageNet's, RGB
_STD = np.array([0.229, 0.224, 0.225], dtype=np.float32) * 255


@dataclass(frozen=True)
class CraftScorer:
    """Scores area: the largest share of a frame covered by text boxes; loads at the first clip."""

    config: CraftConfig
    weights: Weights
    device: str

    @cached_property
    def scorer(self) -> Scorer:
        """Name, version and settings; the version is the hash of the weights."""
        return Scorer(name=NAME, version=self.weights.version, settings=self.config.model_dump())

    def measure(self, clips: Sequence[Sequence[np.ndarray]]) -> list[Measured]:
        """Return the text area of clips, each given as some of its BGR frames."""
        return [self._measure(pictures) for pictures in clips]

    def _measure(self, pictures: Sequence[np.ndarray]) -> Measured:
        if not pictures:
            return Measured(missing={"area": "no sampled frame"})
        boxes = self.detect(pictures)
        areas = (
            boxes_area(found, picture.shape[:2])
            for found, picture in zip(boxes, pictures, strict=True)
        )
        return Measured(scores={"area": max(areas)})

    def detect(self, pictures: Sequence[np.ndarray]) -> list[list[np.ndarray]]:
        """Return the text boxes of BGR pictures of one size, (4, 2) corners in px each."""
        import torch

        height, width = pictures[0].shape[:2]
        scale = min(self.config.enlarge, self.config.long_side_px / max(height, width))
        size = (max(1, int(width * scale)), max(1, int(height * scale)))
        pixels = torch.stack([_to_input(picture, size) for picture in pictures])
        with torch.inference_mode():
            maps = self._network(pixels.to(self.device)).float().cpu().numpy()
        # A pixel of the map is two of the network's picture.
        back = np.array([2 * width / size[0], 2 * height / size[1]], dtype=np.float32)
        return [
            [box * back for box in find_boxes(region, affinity, self.config)]
            for region, affinity in maps
        ]

    @cached_property
    def _network(self) -> "torch.nn.Module":
        import torch

        from svd.curation.annotate.craft_network import Craft

        with torch.device("meta"):  # values come from the file
            network = Craft()
        return load_published(network, self.weights.path, prefix="module.").to(self.device)


def find_boxes(
    region: Float32[np.ndarray, "h w"], affinity: Float32[np.ndarray, "h w"], config: CraftConfig
) -> list[Float32[np.ndarray, "4 2"]]:
    """Return the rectangles of words on the score maps, in their px."""
    is_text = region > config.low_text
    is_link = affinity > config.link_threshold
    count, labels, stats, _ = cv2.connectedComponentsWithStats(
        (is_text | is_link).astype(np.uint8), connectivity=4
    )
    boxes = []
    for label in range(1, count):
        left, top, width, height, num_pixels = stats[label].tolist()
        here = np.s_[top : top + height, left : left + width]
        mine = labels[here] == label
        if num_pixels < _MIN_PIXELS or region[here][mine].max() < config.text_threshold:
            continue
        grow = int(2 * np.sqrt(num_pixels * min(width, height) / (width * height)))
        word = np.pad((mine & is_text[here]).astype(np.uint8), grow)
        word = cv2.dilate(word, np.ones((1 + grow, 1 + grow), dtype=np.uint8))
        box = _rectangle(word) + np.array([left - grow, top - grow], dtype=np.float32)
        boxes.append(np.clip(box, 0, np.array(region.shape[::-1], dtype=np.float32)))
    return boxes


def _rectangle(mask: np.ndarray) -> Float32[np.ndarray, "4 2"]:
    """Return the least rectangle around a mask; nearly square ones stand upright."""
    y, x = np.nonzero(mask)
    points = np.stack([x, y], axis=1).astype(np.int32)
    box: np.ndarray = cv2.boxPoints(cv2.minAreaRect(points))
    sides = np.linalg.norm(box[0] - box[1]), np.linalg.norm(box[1] - box[2])
    if abs(1 - max(sides) / (min(sides) + 1e-5)) <= 0.1:
        left, top, right, bottom = x.min(), y.min(), x.max(), y.max()
        box = np.array([[left, top], [right, top], [right, bottom], [left, bottom]])
    return box.astype(np.float32)


def _to_input(picture: np.ndarray, size: tuple[int, int]) -> "torch.Tensor":
    """Return a BGR picture as the network's input: RGB, scaled, black up to full steps."""
    import torch

    scaled = cv2.resize(picture, size, interpolation=cv2.INTER_LINEAR)[..., ::-1]
    below, right = -size[1] % _STEP_PX, -size[0] % _STEP_PX
    padded = np.pad(scaled, ((0, below), (0, right), (0, 0))).astype(np.float32)
    return torch.from_numpy(((padded - _MEAN) / _STD).transpose(2, 0, 1).copy())
