"""GTO's grammar of tags: `name@v0.1.0` is a version, `name#production#3` gives it a stage.

A `!` takes back: `name@v0.1.0!` withdraws a version, `name#production!#4` empties a stage.
The number at the end counts all assignments of a name, so it orders what happened within one
second, which is as fine as a tag's time is. Source: iterative/gto, gto/constants.py.
"""

import re
from typing import Literal, NamedTuple

from svd.registry.git import GitTag

_VERSION = r"v(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)"
_TAG = re.compile(
    rf"(?P<name>[a-zA-Z0-9][a-zA-Z0-9_/-]*?)"
    rf"(@(?P<version>{_VERSION})|#(?P<stage>[a-zA-Z0-9_-]+))(?P<cancel>!?)(#(?P<counter>\d+))?"
)


class Event(NamedTuple):
    """What one tag says."""

    name: str
    kind: Literal["register", "withdraw", "assign", "unassign"]
    version: str | None  # of register and withdraw
    stage: str | None  # of assign and unassign
    counter: int  # of assign and unassign; else 0
    tag: GitTag


def parse_tag(tag: GitTag) -> Event | None:
    """Return what a tag says; None if it is not of this grammar."""
    match = _TAG.fullmatch(tag.name)
    if match is None:
        return None
    cancelled, counter = match["cancel"] == "!", int(match["counter"] or 0)
    if match["version"] is not None:
        kind: Literal["register", "withdraw"] = "withdraw" if cancelled else "register"
        return Event(match["name"], kind, match["version"], None, 0, tag)
    return Event(
        match["name"], "unassign" if cancelled else "assign", None, match["stage"], counter, tag
    )


def version_tag(name: str, version: str) -> str:
    """Return the tag that registers a version."""
    return f"{name}@{version}"


def stage_tag(name: str, stage: str, counter: int) -> str:
    """Return the tag that gives a stage to the version it points to."""
    return f"{name}#{stage}#{counter}"


def version_key(version: str) -> tuple[int, ...]:
    """Return what versions are ordered by: v0.1.10 comes after v0.1.9."""
    return tuple(int(part) for part in version.removeprefix("v").split("."))
