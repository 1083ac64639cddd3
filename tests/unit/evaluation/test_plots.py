import xml.etree.ElementTree as ET

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from markupsafe import Markup

from svd.evaluation.report import plots, words
from svd.evaluation.report.svg import Scale, element, number, round_ticks, spread
from svd.types.curation import Histogram

FINITE = st.floats(-1e6, 1e6).filter(lambda value: value == 0 or abs(value) > 1e-6)


@given(low=FINITE, width=st.floats(1e-5, 1e6), count=st.integers(2, 8))
@example(low=917677.9999999999, width=1e-5, count=2)
def test_ticks_are_round_few_and_within(low: float, width: float, count: int) -> None:
    high = low + width
    if high - low < width / 2:  # lost to rounding
        return
    ticks = round_ticks(low, high, count)
    slack = 1e-6 * width
    assert all(low - slack <= tick <= high + slack for tick in ticks)
    assert len(ticks) <= 2 * count + 2


@given(low=st.floats(1e-4, 10), ratio=st.floats(1.2, 1e6))
def test_logarithmic_scale_meets_its_ends_and_has_ticks(low: float, ratio: float) -> None:
    scale = Scale(low, low * ratio, start=10, stop=200, log=True)
    assert scale(low) == pytest.approx(10)
    assert scale(low * ratio) == pytest.approx(200)
    assert scale.ticks(4)


@given(values=st.lists(FINITE, min_size=1, max_size=5))
def test_spread_holds_all_values_and_is_never_empty(values: list[float]) -> None:
    low, high = spread(values)
    assert low <= min(values) <= max(values) <= high
    assert low < high


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (0.9, "0.900"), (16.753, "16.8"), (1647.14, "1,647"), (0.01234, "0.0123"),
     (3.2e7, "3.20e7"), (float("nan"), "nan")],
)  # fmt: skip
def test_numbers_show_the_digits_that_matter(value: float, text: str) -> None:
    assert number(value) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.2, "200 ms"), (3.0, "3.0 s"), (75, "1 min 15 s"), (7200, "2.0 h")],
)
def test_durations_come_in_the_unit_that_fits(seconds: float, text: str) -> None:
    assert words.duration(seconds) == text


def test_content_and_attributes_are_escaped() -> None:
    made = element("text", "<script>", title='"><script>')
    assert "<script>" not in made
    assert ET.fromstring(made).text == "<script>"


def well_formed(picture: Markup) -> ET.Element:
    return ET.fromstring(str(picture))


def test_histogram_draws_each_bin_and_bound() -> None:
    data = Histogram(
        score="a<b",
        edges=(0.0, 1.0, 2.0, 3.0),
        counts=(3, 0, 2),
        counts_kept=(1, 0, 2),
        low=0.5,
        high=None,
        num_missing=0,
    )
    root = well_formed(plots.histogram(data))
    kinds = [item.get("class") for item in root.iter()]
    assert kinds.count("bar-all") == 2
    assert kinds.count("bar-kept") == 2
    assert kinds.count("threshold") == 1
    assert "a<b" in root.get("aria-label")


@pytest.mark.parametrize(
    "points",
    [((1.0, 2.0),), ((1.0, 2.0), (2.0, 2.0)), ((0.0, 1e-3), (5.0, 1e3), (9.0, 1.0))],
    ids=["one point", "flat", "wide"],
)
@pytest.mark.parametrize("log_y", [False, True])
def test_line_charts_of_awkward_data_are_drawn(
    points: tuple[tuple[float, float], ...], log_y: bool
) -> None:
    series = plots.Series("loss", points, band=tuple(0.0 for _ in points))
    chart = plots.line_chart([series], label="loss", x_label="x", y_label="y", log_y=log_y)
    assert "nan" not in str(chart)
    well_formed(chart)


def test_marks_keep_their_order_on_a_strip() -> None:
    marks = [
        plots.Mark("a", 1.0, 0.5, 1.5, main=True),
        plots.Mark("b", 9.0, None, None, main=False),
    ]
    strip = plots.strip(marks)
    assert 0 <= strip.places[0].low < strip.places[0].at < strip.places[0].high
    assert strip.places[0].at < strip.places[1].at <= 100


def test_heatmap_rings_the_nearest_of_each_row() -> None:
    rows = ((0.1, 0.5), (0.2, 0.9))
    root = well_formed(plots.heatmap(rows, labels=["p", "q"], label="distances"))
    rings = [item.get("class") for item in root.iter() if "ring" in (item.get("class") or "")]
    assert rings == ["ring hit", "ring miss"]
