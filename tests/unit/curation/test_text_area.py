from dataclasses import dataclass

import cv2
import numpy as np
import pytest
from filming import texture

from svd.config.curation import TextConfig
from svd.curation.annotate.overlay_text import TextAnnotator, boxes_area
from svd.curation.annotate.scoring import ClipView


@dataclass(frozen=True)
class Pictures(ClipView):
    """A clip that is nothing but its pictures."""

    shown: tuple[np.ndarray, ...] = ()

    def large_pictures(self) -> list[np.ndarray]:
        return list(self.shown)


@pytest.fixture(scope="module")
def annotator() -> TextAnnotator:
    return TextAnnotator(TextConfig())


def background(seed: int) -> np.ndarray:
    return cv2.GaussianBlur(texture(seed, 640, 360), (0, 0), 3) // 2 + 40


def written(seed: int, lines: list[str], *, scale: float = 1.2) -> np.ndarray:
    picture = background(seed)
    for number, line in enumerate(lines):
        place = (30, 60 + int(48 * scale) * number)
        cv2.putText(
            picture, line, place, cv2.FONT_HERSHEY_DUPLEX, scale, (255, 255, 255), 2, cv2.LINE_AA
        )
    return picture


def area(annotator: TextAnnotator, *pictures: np.ndarray) -> float:
    return annotator.measure(Pictures(clip=None, bank=None, file=None, shown=pictures)).scores[
        "area"
    ]


LINES = ["BREAKING NEWS TODAY", "MARKET REPORT AT NINE", "WEATHER IN THE CITY", "LIVE EPISODE"]


def test_pictures_without_text_have_no_area(annotator: TextAnnotator) -> None:
    assert [area(annotator, background(seed)) for seed in range(6)] == [0.0] * 6


def test_burned_in_text_breaks_the_seven_per_cent_rule(annotator: TextAnnotator) -> None:
    found = [area(annotator, written(seed, LINES)) for seed in range(4)]
    assert min(found) > 0.07


def test_the_worst_of_three_frames_counts(annotator: TextAnnotator) -> None:
    alone = area(annotator, written(1, LINES))
    among = area(annotator, background(2), written(1, LINES), background(3))
    assert among == pytest.approx(alone)


def test_long_lines_cost_no_more_and_are_still_read(annotator: TextAnnotator) -> None:
    line = "the quick brown fox jumps over the lazy dog and runs"
    assert area(annotator, written(5, [line] * 6, scale=0.6)) > 0.07


def test_overlapping_boxes_are_counted_once() -> None:
    box = np.array([[10, 10], [59, 10], [59, 29], [10, 29]], dtype=np.float32)
    assert boxes_area([box, box], (100, 100)) == pytest.approx(0.1, rel=0.02)
    assert boxes_area([], (100, 100)) == 0


def test_the_score_names_its_model_and_settings(annotator: TextAnnotator) -> None:
    assert annotator.scorer.version.startswith("pp-ocrv4")
    assert annotator.scorer.settings["min_confidence"] == 0.6
