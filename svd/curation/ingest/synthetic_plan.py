"""What is filmed in a synthetic video, decided before a pixel is drawn."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Final, Literal

import numpy as np
from pydantic import Field

from svd.config.ingest import PaintingStyle, SyntheticSource, VideoKind
from svd.runtime.seed import numpy_generator
from svd.types.base import Record
from svd.types.truth import CameraMotion, DuplicateKind
from svd.types.video import Rational

DUPLICATE_KINDS: Final[tuple[DuplicateKind, ...]] = ("reencoded", "scaled", "webm")

_SPEEDS: Final = (2.0, 4.0, 1.0, 6.0, 3.0, 8.0, 0.5, 5.0)  # pixels per frame, 320 pixels wide
# Over a shot: more would show a photograph's own pixels, or nothing but one soft form.
_MAX_ZOOMS: Final[Mapping[PaintingStyle, float]] = {"detailed": 2.2, "plain": 5.0}
_SHOT_SECONDS = 1.6  # aimed at where a video has several shots
_FADE_SECONDS: Final = (1.4, 2.2)
_DISSOLVE_SECONDS: Final = (0.6, 1.2)
_WORDS: Final = ("NEWS", "LIVE", "MARKET", "REPORT", "WEATHER", "TODAY", "SALE", "EPISODE", "CITY")
# Streams of random numbers; a stage that draws from one never moves the draws of another.
_STREAM_VIDEO, _STREAM_DUPLICATES = 1, 2


class ObjectPlan(Record):
    """A round piece of another picture that moves and bounces off the frame's edges."""

    picture: str
    diameter: int = Field(gt=0)  # pixels
    x: float  # of its left edge at the shot's first frame
    y: float
    dx: float  # pixels per frame
    dy: float


class TextPlan(Record):
    """Lines of burned-in text, centred."""

    lines: tuple[str, ...] = Field(min_length=1)
    width_ratio: float = Field(gt=0, le=1)  # of the widest line to the frame
    centre_y: float = Field(gt=0, lt=1)  # of the block, in frame heights


class ShotPlan(Record):
    """One camera take."""

    picture: str
    num_frames: int = Field(gt=0)  # outside the transitions at its ends
    camera: CameraMotion
    dx: float = 0.0  # of the content on the screen, pixels per frame
    dy: float = 0.0
    start_zoom: float = 1.0
    zoom: float = 1.0  # factor per frame
    centre_x: float = 0.5  # of what is filmed first, in picture widths
    centre_y: float = 0.5
    moving: ObjectPlan | None = None
    text: TextPlan | None = None


class TransitionPlan(Record):
    """From one shot to the next."""

    kind: Literal["hard", "fade", "dissolve"]
    num_frames: int = Field(ge=0)  # 0 for a hard cut


class VideoPlan(Record):
    """A whole video."""

    name: str
    kind: VideoKind
    key: tuple[int, ...]  # of its random numbers
    width: int
    height: int
    fps: Rational
    shots: tuple[ShotPlan, ...]
    transitions: tuple[TransitionPlan, ...]  # one fewer than shots
    duplicate_of: str | None = None  # name of the original
    duplicate_kind: DuplicateKind | None = None

    @property
    def num_frames(self) -> int:
        """Frames of the whole video."""
        return sum(s.num_frames for s in self.shots) + sum(t.num_frames for t in self.transitions)


def plan_corpus(
    config: SyntheticSource, pictures: Sequence[str], *, seed: int
) -> tuple[VideoPlan, ...]:
    """Return the plans of all videos, originals first.

    Args:
        config: How many, how long, how large.
        pictures: Names of at least two pictures to film.
        seed: Same seed and config, same plans.
    """
    originals = [_plan_video(config, pictures, index, seed) for index in range(config.num_videos)]
    generator = numpy_generator(seed, _STREAM_DUPLICATES)
    chosen = generator.permutation(config.num_videos)[: config.num_duplicates]
    duplicates = [
        originals[int(index)].model_copy(
            update={
                "name": f"{config.num_videos + number:04d}-{kind}-of-{int(index):04d}",
                "duplicate_of": originals[int(index)].name,
                "duplicate_kind": kind,
            }
        )
        for number, index in enumerate(chosen)
        for kind in (DUPLICATE_KINDS[number % len(DUPLICATE_KINDS)],)
    ]
    return (*originals, *duplicates)


def _plan_video(
    config: SyntheticSource, pictures: Sequence[str], index: int, seed: int
) -> VideoPlan:
    kind = config.kinds[index % len(config.kinds)]
    key = (seed, _STREAM_VIDEO, index)
    draw = _Draw(config, pictures, index, numpy_generator(*key))
    shots, transitions = _PLANNERS[kind](draw)
    return VideoPlan(
        name=f"{index:04d}-{kind}",
        kind=kind,
        key=key,
        width=config.width,
        height=config.height,
        fps=config.fps,
        shots=tuple(shots),
        transitions=tuple(transitions),
    )


class _Draw:
    """Draws the parts of one video."""

    def __init__(
        self,
        config: SyntheticSource,
        pictures: Sequence[str],
        index: int,
        generator: np.random.Generator,
    ) -> None:
        self.generator = generator
        self.round = index // len(config.kinds)  # how often this kind came before
        self._index = index
        self._scale = config.width / 320
        self._zooms, self._max_zoom = config.zooms, _MAX_ZOOMS[config.painting_style]
        self._fps = float(config.fps)
        self._size = (config.width, config.height)
        self._pictures = [pictures[int(i)] for i in generator.permutation(len(pictures))]
        seconds = float(generator.uniform(config.min_seconds, config.max_seconds))
        self.num_frames = round(seconds * self._fps)

    def frames(self, span_s: tuple[float, float]) -> int:
        """Return an even number of frames within a range of seconds."""
        return 2 * max(2, round(float(self.generator.uniform(*span_s)) * self._fps / 2))

    def picture(self, number: int) -> str:
        """Return the picture of the video's shot of this number; neighbours differ."""
        return self._pictures[number % len(self._pictures)]

    def shot(self, number: int, num_frames: int, camera: CameraMotion) -> ShotPlan:
        """Return a shot whose speed is another one than the last video's and the last shot's."""
        plan = ShotPlan(
            picture=self.picture(number),
            num_frames=num_frames,
            camera=camera,
            centre_x=float(self.generator.uniform(0.42, 0.58)),
            centre_y=float(self.generator.uniform(0.42, 0.58)),
        )
        speed = _SPEEDS[(self._index // 2 + number) % len(_SPEEDS)] * self._scale
        sign = 1 if self.generator.random() < 0.5 else -1
        rate = self._zooms[(self.round + number) % len(self._zooms)]
        # Transitions at both ends go on zooming, hence the half as many frames again.
        rate = round(min(rate, self._max_zoom ** (1 / (1.5 * num_frames))), 6)
        change: dict[CameraMotion, dict[str, float]] = {
            "static": {},
            "horizontal": {"dx": sign * speed},
            "vertical": {"dy": sign * speed},
            "zoom-in": {"zoom": rate},
            "zoom-out": {"zoom": 1 / rate, "start_zoom": rate ** (1.5 * num_frames)},
        }
        return plan.model_copy(update=change[camera])

    def any_camera(self) -> CameraMotion:
        """Return a camera motion for a shot among several."""
        choices: tuple[CameraMotion, ...] = ("static", "horizontal", "vertical", "zoom-in")
        return choices[int(self.generator.integers(len(choices)))]

    def moving(self) -> ObjectPlan:
        """Return an object for a static shot."""
        width, height = self._size
        diameter = round(float(self.generator.uniform(0.3, 0.45)) * height)
        speed = _SPEEDS[self.round % len(_SPEEDS)] * self._scale
        turn = float(self.generator.uniform(0, 2 * math.pi))
        return ObjectPlan(
            picture=self.picture(1),
            diameter=diameter,
            x=float(self.generator.uniform(0, width - diameter)),
            y=float(self.generator.uniform(0, height - diameter)),
            dx=round(speed * math.cos(turn), 4),
            dy=round(speed * math.sin(turn), 4),
        )

    def text(self, *, num_lines: int, width_ratio: float, centre_y: float) -> TextPlan:
        """Return lines of two words."""
        words = [_WORDS[int(i)] for i in self.generator.permutation(len(_WORDS))]
        lines = tuple(" ".join(words[2 * i : 2 * i + 2]) for i in range(num_lines))
        return TextPlan(lines=lines, width_ratio=width_ratio, centre_y=centre_y)

    def split(self, num_frames: int) -> list[int]:
        """Return the lengths of several shots that add up to about this many frames."""
        num_shots = max(3, round(num_frames / (_SHOT_SECONDS * self._fps)))
        weights = self.generator.uniform(0.7, 1.3, num_shots)
        return [max(12, round(num_frames * float(w) / float(weights.sum()))) for w in weights]


_Parts = tuple[list[ShotPlan], list[TransitionPlan]]


def _join(draw: _Draw, kinds: Sequence[Literal["hard", "fade", "dissolve"]]) -> _Parts:
    """Return several shots joined by transitions of these kinds in turn."""
    lengths = draw.split(draw.num_frames)
    shots = [draw.shot(i, n, draw.any_camera()) for i, n in enumerate(lengths)]
    spans = {"hard": (0.0, 0.0), "fade": _FADE_SECONDS, "dissolve": _DISSOLVE_SECONDS}
    transitions = [
        TransitionPlan(kind=kind, num_frames=0 if kind == "hard" else draw.frames(spans[kind]))
        for i in range(len(shots) - 1)
        for kind in (kinds[i % len(kinds)],)
    ]
    return shots, transitions


def _hard_cuts(draw: _Draw) -> _Parts:
    """Hard cuts, two of them so close that a minimum scene length would hide one."""
    shots, transitions = _join(draw, ("hard",))
    short = draw.shot(len(shots), 8, "static")
    middle = len(shots) // 2
    return [*shots[:middle], short, *shots[middle:]], [*transitions, transitions[0]]


def _one_shot(camera: CameraMotion) -> Callable[[_Draw], _Parts]:
    return lambda draw: ([draw.shot(0, draw.num_frames, camera)], [])


def _object(draw: _Draw) -> _Parts:
    shot = draw.shot(0, draw.num_frames, "static")
    return [shot.model_copy(update={"moving": draw.moving()})], []


def _text(draw: _Draw) -> _Parts:
    """Two shots under text that covers far more than 7 % of the frame."""
    text = draw.text(num_lines=3, width_ratio=0.85, centre_y=0.5)
    return _under_text(draw, text)


def _captioned(draw: _Draw) -> _Parts:
    """Two shots over a small line of text, well below 7 % of the frame."""
    text = draw.text(num_lines=1, width_ratio=0.35, centre_y=0.9)
    return _under_text(draw, text)


def _under_text(draw: _Draw, text: TextPlan) -> _Parts:
    half = draw.num_frames // 2
    shots = [draw.shot(0, half, "static"), draw.shot(1, draw.num_frames - half, "horizontal")]
    texts = [shot.model_copy(update={"text": text}) for shot in shots]
    return texts, [TransitionPlan(kind="hard", num_frames=0)]


_PLANNERS: Final[dict[VideoKind, Callable[[_Draw], _Parts]]] = {
    "hard-cuts": _hard_cuts,
    "pan": _one_shot("horizontal"),
    "fades": lambda draw: _join(draw, ("fade",)),
    "static": _one_shot("static"),
    "dissolves": lambda draw: _join(draw, ("dissolve",)),
    "zoom-in": _one_shot("zoom-in"),
    "text": _text,
    "object": _object,
    "mixed": lambda draw: _join(draw, ("fade", "hard", "dissolve")),
    "tilt": _one_shot("vertical"),
    "captioned": _captioned,
    "zoom-out": _one_shot("zoom-out"),
}
