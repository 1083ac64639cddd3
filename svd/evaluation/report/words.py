"""Numbers and names as a person reads them."""

from collections.abc import Iterable

from svd.evaluation.report.svg import number


def count(value: int) -> str:
    """Return a count, with thousands separated, in millions from ten million on."""
    if value >= 10_000_000:
        return f"{value / 1e6:,.0f} M"
    if value >= 1_000_000:
        return f"{value / 1e6:.1f} M"
    return f"{value:,}"


def duration(seconds: float) -> str:
    """Return a length of time in the unit that fits."""
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 60:
        return f"{seconds:.1f} s"
    if seconds < 3600:
        return f"{int(seconds // 60)} min {int(seconds % 60):02d} s"
    return f"{seconds / 3600:.1f} h"


def size(num_bytes: int) -> str:
    """Return a number of bytes in decimal units."""
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if num_bytes >= scale:
            return f"{num_bytes / scale:.1f} {unit}"
    return f"{num_bytes} B"


def short(digest: str, length: int = 10) -> str:
    """Return the first digits of a hash."""
    return digest[:length]


def fact(value: object) -> str:
    """Return a headline value of a stage."""
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "-"}[value]
    if isinstance(value, int):
        return count(value)
    return number(value) if isinstance(value, float) else str(value)


def plural(num: int, noun: str) -> str:
    """Return "1 clip", "2 clips"."""
    return f"{count(num)} {noun}" + ("" if num == 1 else "s")


def listed(words: Iterable[str]) -> str:
    """Return "a", "a and b", "a, b and c"."""
    *head, last = list(words) or [""]
    return f"{', '.join(head)} and {last}" if head else last
