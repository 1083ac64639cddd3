"""How much of a clip is covered by text.

Source: SVD, appendix C.5: CRAFT on the first, middle and last frame; clips with more than 7 % of
text area are dropped. CRAFT's weights are not freely packaged, so boxes come from PP-OCRv4, whose
detector marks much that is no text on film frames; a box counts only if PP-OCR's recogniser can
read it.
"""

from importlib.metadata import version
from typing import TYPE_CHECKING

import cv2
import numpy as np

from svd.config.curation import TextConfig
from svd.curation.annotate.scoring import ClipView, Measured
from svd.media.decode import fit_short_side
from svd.types.annotation import Scorer

if TYPE_CHECKING:
    from rapidocr_onnxruntime import RapidOCR

_LINE_ASPECT = 320 / 48  # of the recogniser's input; longer lines cost more and prove no more


class TextAnnotator:
    """Score area: the largest share of a frame covered by readable text, over three frames."""

    def __init__(self, config: TextConfig) -> None:
        self._config = config
        self._reader: RapidOCR | None = None

    @property
    def scorer(self) -> Scorer:
        """Name, version and settings."""
        return Scorer(
            name="text",
            version=f"pp-ocrv4 rapidocr-onnxruntime-{version('rapidocr-onnxruntime')}",
            settings=self._config.model_dump(),
        )

    def measure(self, view: ClipView) -> Measured:
        """Return the text area of the frame that has most.

        Frames are read in the order of their detected area, and only while that could still beat
        what was read so far: the result is that of reading all.
        """
        pictures = view.large_pictures()
        if not pictures:
            return Measured(missing={"area": "no sampled frame"})
        detected = [(self.detect(picture), picture) for picture in pictures]
        by_area = sorted(
            (
                (boxes_area(boxes, picture.shape[:2]), index)
                for index, (boxes, picture) in enumerate(detected)
            ),
            key=lambda item: (-item[0], item[1]),
        )
        best = 0.0
        for area, index in by_area:
            if area <= best:
                break
            boxes, picture = detected[index]
            share = self.readable_share(boxes, picture)
            best = max(best, area * share)
        return Measured(scores={"area": best})

    def detect(self, picture: np.ndarray) -> list[np.ndarray]:
        """Return the text boxes of a BGR picture, (4, 2) corners in px each, largest first.

        A quick pass at low resolution comes first. Only where it finds a box that can be read is
        the picture looked at closely; elsewhere there is no text.
        """
        gate = self._boxes(picture, self._config.gate_side_px)
        if not self._readable(gate[: self._config.max_gate_boxes], picture):
            return []
        return self._boxes(picture, self._config.side_px)

    def readable_share(self, boxes: list[np.ndarray], picture: np.ndarray) -> float:
        """Return the share of the boxes' area that can be read, judged by the largest boxes."""
        judged = boxes[: self._config.max_boxes]
        readable = self._readable(judged, picture)
        total = boxes_area(judged, picture.shape[:2])
        return boxes_area(readable, picture.shape[:2]) / total if total else 0.0

    def _boxes(self, picture: np.ndarray, side_px: int) -> list[np.ndarray]:
        """Detect at this shorter side; return the boxes in the picture's own px."""
        reader = self._reader = self._reader or _load_reader(self._config)
        height, width = picture.shape[:2]
        size = fit_short_side(width, height, side_px)
        small = cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
        # The detector enlarges pictures below its limit by itself; ours are as they should be.
        reader.text_det.limit_side_len = min(size)
        scale = np.array([width / size[0], height / size[1]], dtype=np.float32)
        boxes = [box * scale for box in reader.text_det(small)[0]]
        return sorted(boxes, key=lambda box: -cv2.contourArea(box))

    def _readable(self, boxes: list[np.ndarray], picture: np.ndarray) -> list[np.ndarray]:
        if not boxes:
            return []
        reader = self._reader = self._reader or _load_reader(self._config)
        lines = [_middle(line) for line in reader.get_crop_img_list(picture, boxes)]
        readings = reader.text_rec(lines)[0]
        return [
            box
            for box, (text, confidence) in zip(boxes, readings, strict=True)
            if text.strip() and float(confidence) >= self._config.min_confidence
        ]


def boxes_area(boxes: list[np.ndarray], size: tuple[int, int]) -> float:
    """Return the share of a picture that boxes cover, overlaps counted once.

    Args:
        boxes: (4, 2) corners in px.
        size: (height, width) of the picture.
    """
    mask = np.zeros(size, dtype=np.uint8)
    for box in boxes:
        cv2.fillPoly(mask, [np.round(box).astype(np.int32)], color=1)
    return float(mask.mean())


def _middle(line: np.ndarray) -> np.ndarray:
    """Return the middle of a long line of text: whether it can be read shows there as well."""
    height, width = line.shape[:2]
    excess = width - int(height * _LINE_ASPECT)
    return line[:, excess // 2 : width - (excess - excess // 2)] if excess > 0 else line


def _load_reader(config: TextConfig) -> "RapidOCR":
    from rapidocr_onnxruntime import RapidOCR

    return RapidOCR(
        det_limit_side_len=config.side_px,
        det_box_thresh=config.box_threshold,
        intra_op_num_threads=1,
        inter_op_num_threads=1,
    )
