"""Text area on real frames: a film without text, its credits, and burned-in lines."""

from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import numpy as np
import pytest

from svd.config.curation import TextConfig
from svd.config.ingest import SyntheticSource
from svd.curation.annotate.overlay_text import TextAnnotator
from svd.curation.annotate.scoring import ClipView
from svd.curation.ingest.films import fetch_film
from svd.curation.ingest.paintings import paint
from svd.curation.ingest.photos import fetch_photo, read_photo
from svd.curation.ingest.synthetic import describe, render
from svd.curation.ingest.synthetic_plan import VideoPlan, plan_corpus
from svd.media.decode import PictureMaker, decode_frames, index_packets

pytestmark = [pytest.mark.network, pytest.mark.slow, pytest.mark.timeout(900)]
LIMIT = 0.07  # paper, appendix C.5
STILL = 480  # px of the bank's large pictures


@pytest.fixture(scope="module")
def annotator() -> TextAnnotator:
    return TextAnnotator(TextConfig())


def area(annotator: TextAnnotator, picture: np.ndarray) -> float:
    class Picture(ClipView):
        def large_pictures(self) -> list[np.ndarray]:
            return [picture]

    view = Picture(clip=None, bank=None, file=Path())
    return annotator.measure(view).scores["area"]


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fetch_film("big-buck-bunny", tmp_path_factory.mktemp("film"))


def stills(film: Path, *, start_s: float, stop_s: float, step_s: float) -> Iterator[np.ndarray]:
    """Yield the film's first keyframe at or after each step, as the bank keeps it."""
    index = index_packets(film)
    keys = np.sort(index.pts[index.is_keyframe])
    make = PictureMaker(width=854, height=STILL)
    for second in np.arange(start_s, stop_s, step_s):
        pts = int(keys[np.searchsorted(keys * float(index.time_base), second)])
        yield make(next(decode_frames(film, start_pts=pts)).frame)


def test_a_film_without_text_has_no_text_area(annotator: TextAnnotator, film: Path) -> None:
    areas = [area(annotator, still) for still in stills(film, start_s=32, stop_s=480, step_s=8)]
    assert len(areas) > 50
    assert np.mean(areas) <= 0.01
    assert np.mean(np.array(areas) > 0) <= 0.01


def test_rolling_credits_break_the_rule(annotator: TextAnnotator, film: Path) -> None:
    areas = [area(annotator, still) for still in stills(film, start_s=536, stop_s=562, step_s=2)]
    assert len(areas) > 10
    assert np.mean(np.array(areas) > LIMIT) >= 0.9


def shots_of(
    plan: VideoPlan, pictures: dict[str, np.ndarray]
) -> Iterator[tuple[float, np.ndarray]]:
    """Yield each shot's share of text and its middle frame, BGR."""
    frames = render(plan, pictures)
    seen = 0
    for shot in describe(plan, video_id="v", duplicate_of=None).shots:
        middle = (shot.start_frame + shot.stop_frame) // 2
        frame = next(islice(frames, middle - seen, None))
        seen = middle + 1
        yield shot.text_area_ratio, np.ascontiguousarray(frame[..., ::-1])


@pytest.mark.parametrize("width", [320, 640])
def test_burned_in_text_is_found_and_pictures_without_it_are_not(
    annotator: TextAnnotator, tmp_path: Path, width: int
) -> None:
    found, total, false = 0, 0, []
    for seed in range(5):
        source = SyntheticSource(
            kind="synthetic",
            num_videos=12,  # one of each kind; two have text
            min_seconds=2.0,
            max_seconds=2.0,
            width=width,
            height=width * 9 // 16,
        )
        pictures = {name: read_photo(fetch_photo(name, tmp_path)) for name in source.photos}
        for number in range(4):
            size = {"width": 3 * width // 2, "height": 3 * source.height // 2}
            pictures[f"painting-{number}"] = paint(seed, number, **size)
        for plan in plan_corpus(source, list(pictures), seed=seed):
            for ratio, picture in shots_of(plan, pictures):
                share = area(annotator, picture)
                if ratio > LIMIT:
                    total, found = total + 1, found + (share > LIMIT)
                elif ratio == 0:
                    false.append(share)
    assert total >= 10
    assert found >= 0.9 * total
    assert np.mean(false) <= 0.01
