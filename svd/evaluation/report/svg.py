"""Building blocks of the page's plots: scales, ticks and escaped SVG elements.

Plots are inline SVG whose colours come from the page's style sheet, so that they follow the
reader's light or dark theme and stay sharp at any size.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from markupsafe import Markup


@dataclass(frozen=True, slots=True)
class Scale:
    """Maps values to pixels, linearly or by logarithm.

    Attributes:
        low: Value at `start`.
        high: Value at `stop`; not equal to low.
        start: Pixel of low.
        stop: Pixel of high.
        log: Whether equal ratios get equal lengths; values must then be above 0.
    """

    low: float
    high: float
    start: float
    stop: float
    log: bool = False

    def __call__(self, value: float) -> float:
        """Return the pixel of a value."""
        low, high = self._place(self.low), self._place(self.high)
        share = (self._place(value) - low) / (high - low)
        return self.start + share * (self.stop - self.start)

    def _place(self, value: float) -> float:
        return math.log10(value) if self.log else value

    def ticks(self, count: int) -> list[float]:
        """Return about `count` round values within the scale."""
        if not self.log:
            return round_ticks(self.low, self.high, count)
        low, high = math.floor(math.log10(self.low)), math.ceil(math.log10(self.high))
        for steps in ((1,), (1, 3), (1, 2, 5), (1, 2, 3, 5, 7)):
            inside = [
                step * 10.0**power
                for power in range(low, high + 1)
                for step in steps
                if self.low <= step * 10.0**power <= self.high
            ]
            if len(inside) >= min(count, 3):
                return inside
        return round_ticks(self.low, self.high, count)


def round_ticks(low: float, high: float, count: int) -> list[float]:
    """Return multiples of 1, 2 or 5 times a power of ten within [low, high], about `count`."""
    rough = (high - low) / max(1, count)
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough * 0.999)
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    ticks = [index * step for index in range(first, last + 1)]
    slack = 1e-6 * (high - low)  # far from zero a product is rounded by more than that
    return [tick for tick in ticks if low - slack <= tick <= high + slack]


def spread(values: Sequence[float], *, pad: float = 0.06) -> tuple[float, float]:
    """Return the range of values with a margin; never empty."""
    low, high = min(values), max(values)
    if low == high:
        margin = abs(low) * 0.1 or 1.0
        return low - margin, high + margin
    return low - pad * (high - low), high + pad * (high - low)


def number(value: float) -> str:
    """Return a number for a person: three or four digits that matter."""
    if value == 0 or not math.isfinite(value):
        return "0" if value == 0 else str(value)
    size = abs(value)
    if size >= 1e6 or size < 1e-3:
        return f"{value:.2e}".replace("e+0", "e").replace("e-0", "e-").replace("e+", "e")
    if size >= 1000:
        return f"{value:,.0f}"
    decimals = max(0, 3 - 1 - math.floor(math.log10(size)))
    return f"{value:.{min(decimals, 4)}f}"


def tick_label(value: float) -> str:
    """Return a tick's label: as short as it can be."""
    if value == 0:
        return "0"
    if abs(value) >= 1e5 or abs(value) < 1e-3:
        return f"{value:.0e}".replace("e+0", "e").replace("e-0", "e-").replace("e+", "e")
    return f"{value:,.6g}"


def element(tag: str, content: str | Markup = "", /, **attributes: object) -> Markup:
    """Return an SVG element; text content and attributes are escaped.

    Names of attributes are written with "_" for "-"; "class_" is class.
    """
    facts = "".join(
        f' {name.rstrip("_").replace("_", "-")}="{escape(_plain(value))}"'
        for name, value in attributes.items()
        if value is not None
    )
    inner = content if isinstance(content, Markup) else escape(content, quote=False)
    return Markup(f"<{tag}{facts}>{inner}</{tag}>")  # noqa: S704 - all parts are escaped above


def join(parts: Sequence[Markup]) -> Markup:
    """Return elements one after the other."""
    return Markup("").join(parts)


def canvas(width: float, height: float, parts: Sequence[Markup], *, label: str) -> Markup:
    """Return the SVG with its accessible name."""
    return element(
        "svg",
        join([element("title", label), *parts]),
        class_="plot",
        viewBox=f"0 0 {_plain(width)} {_plain(height)}",
        role="img",
        aria_label=label,
    )


def path(points: Sequence[tuple[float, float]]) -> str:
    """Return the path data of a line through points."""
    return "M" + "L".join(f"{_plain(x)} {_plain(y)}" for x, y in points)


def _plain(value: object) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".") if isinstance(value, float) else str(value)
