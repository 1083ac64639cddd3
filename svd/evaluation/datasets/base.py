"""What every reader of a published set gives: items, the split it found, and a hash of it all."""

import hashlib
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from svd.errors import MissingInputError


class Item(NamedTuple):
    """One video, picture or folder of a set.

    Attributes:
        clip_id: Its name in our files.
        path: Below the data folder; "" if there is only a prompt.
        prompt: What to ask for, or "".
        group: Class, category or motion bin, or "".
        start_frame: Where its window starts, where the set says; else None.
        facts: What only its own protocol reads.
    """

    clip_id: str
    path: str
    prompt: str = ""
    group: str = ""
    start_frame: int | None = None
    facts: tuple[tuple[str, str], ...] = ()


class Listing(NamedTuple):
    """All that a data folder offers.

    Attributes:
        items: In the set's own order.
        split: Name of the published split, if what lies there has its size and groups.
        sha256: Of the items' names and the sizes of their files.
    """

    items: tuple[Item, ...]
    split: str | None
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Dataset:
    """A published set.

    Attributes:
        name: What people call it.
        layout: The tree that is expected, as text.
        how_to_get: Where a user gets it, and whether one still can.
        list_items: Reads a data folder; raises MissingInputError if it is another layout.
        write_small: Writes a synthetic set of this layout into an empty folder, for tests.
    """

    name: str
    layout: str
    how_to_get: str
    list_items: Callable[[Path], Listing]
    write_small: Callable[[Path, int], None]

    def listed(self, data: Path) -> Listing:
        """Return what a data folder offers.

        Raises:
            MissingInputError: Not this set; the message shows the layout that was expected.
        """
        try:
            listing = self.list_items(data)
        except MissingInputError as err:
            raise MissingInputError(f"{err}.\n{self.expectation(data)}") from err
        if not listing.items:
            raise MissingInputError(f"{data} holds none of it.\n{self.expectation(data)}")
        return listing

    def expectation(self, data: Path) -> str:
        """Return what should lie in the data folder, for a person."""
        return f"Expected of {self.name} below {data}:\n{self.layout}\n{self.how_to_get}"


def clip_id_of(text: str) -> str:
    """Return a name for files: what is not a letter, digit, dot, dash or underscore becomes "_".

    Long names, and names that had to change, end in eight digits of a hash, so that no two meet.
    """
    plain = re.sub(r"[^A-Za-z0-9._-]", "_", text).lstrip("._-") or "x"
    if plain == text and len(plain) <= 80:
        return plain
    return f"{plain[:64]}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"


def made_listing(data: Path, items: Sequence[Item], split: str | None) -> Listing:
    """Return a listing with the hash of its items."""
    lines = []
    for item in items:
        path = data / item.path
        size = path.stat().st_size if item.path and path.is_file() else 0
        lines.append(f"{item.clip_id}\t{item.path}\t{size}\t{item.prompt}\t{item.group}")
    digest = hashlib.sha256("\n".join(lines).encode()).hexdigest()
    return Listing(tuple(items), split, digest)


def videos_below(folder: Path, suffixes: Iterable[str] = (".mp4",)) -> list[Path]:
    """Return the videos below a folder, sorted by path.

    Raises:
        MissingInputError: There is no such folder.
    """
    if not folder.is_dir():
        raise MissingInputError(f"{folder} is not there")
    wanted = set(suffixes)
    return sorted(path for path in folder.rglob("*") if path.suffix.lower() in wanted)


def existing(path: Path) -> Path:
    """Return a path that must be there.

    Raises:
        MissingInputError: It is not.
    """
    if not path.exists():
        raise MissingInputError(f"{path} is not there")
    return path
