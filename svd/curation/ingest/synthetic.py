"""Synthetic videos from their plans, and the truth about them."""

import math
from collections.abc import Callable, Iterator, Mapping
from fractions import Fraction
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from svd.curation.ingest.synthetic_plan import ObjectPlan, ShotPlan, TextPlan, VideoPlan
from svd.media.encode import write_video
from svd.runtime.seed import numpy_generator
from svd.types.truth import TrueCut, TrueShot, VideoTruth

Picture = NDArray[np.uint8]  # (H, W, 3), RGB

_MARGIN = 1.25  # a picture is this much larger than the frame, so that pans have somewhere to go
_RIM = 4  # pixels around a window that cubic interpolation may read
_NOISE_STD = 1.5  # of 255; a quiet sensor's, without which a static shot would not move at all
# A film's black is neither zero nor without a tint. At zero or grey, saturation and hue are chance,
# and a detector of cuts that looks at them would find every fade by that alone.
_BLACK = np.array([10, 8, 14], np.float32)  # RGB
_NUM_NOISES = 8  # noise pictures per video; each frame takes one of them, shifted
_FONT = cv2.FONT_HERSHEY_DUPLEX
_LINE_GAP = 0.45  # between lines of text, in line heights
_SCALED_SIZE = Fraction(3, 4)  # of a scaled duplicate to its original
_CRF = 20
_DUPLICATE_CRF = {"reencoded": 32, "scaled": 22, "webm": 24}


def write_synthetic(plan: VideoPlan, pictures: Mapping[str, Picture], folder: Path) -> Path:
    """Film a plan; return the path of the video below the folder.

    Args:
        plan: What to film.
        pictures: Every picture the plan names, of any size.
        folder: Where to write; it must exist.
    """
    kind = plan.duplicate_kind
    path = folder / f"{plan.name}{'.webm' if kind == 'webm' else '.mp4'}"
    frames = render(plan, pictures)
    if kind == "scaled":
        size = scaled_size(plan)
        frames = (
            cv2.resize(f, size, interpolation=cv2.INTER_AREA).astype(np.uint8) for f in frames
        )
    second = round(plan.fps)
    write_video(
        path,
        frames,
        plan.fps,
        crf=_CRF if kind is None else _DUPLICATE_CRF[kind],
        gop=second if kind is None else 3 * second,
    )
    return path


def scaled_size(plan: VideoPlan) -> tuple[int, int]:
    """Return (width, height) of the video as written; even, smaller for a scaled duplicate."""
    if plan.duplicate_kind != "scaled":
        return plan.width, plan.height
    return 2 * round(plan.width * _SCALED_SIZE / 2), 2 * round(plan.height * _SCALED_SIZE / 2)


def render(plan: VideoPlan, pictures: Mapping[str, Picture]) -> Iterator[Picture]:
    """Yield the frames (H, W, 3) of a plan at its own size, whatever kind of duplicate it is."""
    noises = _noises(plan)
    cameras = [
        _Camera(plan, shot, pictures, np.roll(noises, number, axis=0))
        for number, shot in enumerate(plan.shots)
    ]
    lead_in = 0  # frames of the shot already seen in the transition before it
    for index, shot in enumerate(plan.shots):
        for frame in range(shot.num_frames):
            yield cameras[index].take(lead_in + frame)
        if index == len(plan.transitions):
            return
        transition = plan.transitions[index]
        for step in range(transition.num_frames):  # none for a hard cut
            share_before, share_after = _MIXES[transition.kind](step, transition.num_frames)
            before = cameras[index].take(lead_in + shot.num_frames + step)
            after = cameras[index + 1].take(step)
            yield _mix(before, share_before, after, share_after)
        lead_in = transition.num_frames


def describe(plan: VideoPlan, *, video_id: str, duplicate_of: str | None) -> VideoTruth:
    """Return the truth about the video that a plan makes.

    Args:
        plan: What was filmed.
        video_id: sha256 of the file.
        duplicate_of: That of its original, if it is a duplicate.
    """
    width, height = scaled_size(plan)
    cuts, shots = [], []
    start = 0
    for index, shot in enumerate(plan.shots):
        stop = start + shot.num_frames
        shots.append(_describe_shot(plan, shot, start, stop, scale=width / plan.width))
        if index < len(plan.transitions):
            transition = plan.transitions[index]
            start = stop + transition.num_frames
            cuts.append(TrueCut(kind=transition.kind, start_frame=stop, stop_frame=start))
    return VideoTruth(
        video_id=video_id,
        name=f"synthetic/{plan.name}",
        width=width,
        height=height,
        fps=plan.fps,
        num_frames=plan.num_frames,
        cuts=tuple(cuts),
        shots=tuple(shots),
        duplicate_of=duplicate_of,
        duplicate_kind=plan.duplicate_kind,
    )


class TextBox(NamedTuple):
    """Where one line of text stands, in pixels: the smallest box around its letters."""

    left: int
    top: int
    width: int
    height: int


def text_boxes(text: TextPlan, *, width: int, height: int) -> list[TextBox]:
    """Return the boxes of a plan's lines on a frame of this size."""
    letters = _letters(text, width)
    line_height = max(mask.shape[0] for mask in letters)
    pitch = round(line_height * (1 + _LINE_GAP))
    block = pitch * (len(letters) - 1) + line_height
    top = min(max(0, round(text.centre_y * height - block / 2)), max(0, height - block))
    return [
        TextBox(
            left=(width - mask.shape[1]) // 2,
            top=top + index * pitch,
            width=mask.shape[1],
            height=mask.shape[0],
        )
        for index, mask in enumerate(letters)
    ]


@lru_cache(maxsize=16)
def _letters(text: TextPlan, frame_width: int) -> tuple[NDArray[np.uint8], ...]:
    """Return a mask (h, w) of each line's letters, 255 inside; the widest as wide as planned.

    The boxes OpenCV computes are looser than the letters and differ between its versions.
    """
    widest = max(_draw_letters(line, 1.0).shape[1] for line in text.lines)
    scale = text.width_ratio * frame_width / widest
    return tuple(_draw_letters(line, scale) for line in text.lines)


def _draw_letters(line: str, scale: float) -> NDArray[np.uint8]:
    thickness = max(1, round(1.6 * scale))
    (width, height), baseline = cv2.getTextSize(line, _FONT, scale, thickness)
    border = height  # more than any letter reaches out of its box
    canvas = np.zeros((height + baseline + 2 * border, width + 2 * border), np.uint8)
    origin = (border, border + height)
    cv2.putText(canvas, line, origin, _FONT, scale, 255, thickness, cv2.LINE_AA)
    left, top, box_width, box_height = cv2.boundingRect(canvas)
    return canvas[top : top + box_height, left : left + box_width]


def _mix(before: Picture, share_before: float, after: Picture, share_after: float) -> Picture:
    """Return two frames mixed, and black for what the shares lack to 1."""
    mixed = cv2.addWeighted(
        before, share_before, after, share_after, 0, dtype=cv2.CV_32F
    ) + _BLACK * np.float32(1 - share_before - share_after)
    return np.asarray(np.rint(mixed), dtype=np.uint8)


def _dissolve(step: int, num_frames: int) -> tuple[float, float]:
    share = (step + 1) / (num_frames + 1)
    return 1 - share, share


def _fade(step: int, num_frames: int) -> tuple[float, float]:
    """Out to black in the first half, in from black in the second, gently at both ends."""
    half = num_frames // 2
    if step < half:
        return 1 - _ease((step + 1) / half), 0.0
    return 0.0, _ease((step - half) / half)


def _ease(share: float) -> float:
    return share * share * (3 - 2 * share)


_MIXES: dict[str, Callable[[int, int], tuple[float, float]]] = {
    "dissolve": _dissolve,
    "fade": _fade,
}


class _Camera:
    """Films one shot: the picture, a moving object on it, text above all."""

    def __init__(
        self,
        plan: VideoPlan,
        shot: ShotPlan,
        pictures: Mapping[str, Picture],
        noises: NDArray[np.int16],
    ) -> None:
        self._shot = shot
        self._noises = noises
        self._size = (plan.width, plan.height)
        picture = _cover(pictures[shot.picture], plan.width, plan.height)
        # A mirrored pavement repeats after this many pixels: a pan may go on for ever.
        self._period = (2 * (picture.shape[1] - 1), 2 * (picture.shape[0] - 1))
        self._middle = (shot.centre_x * picture.shape[1], shot.centre_y * picture.shape[0])
        self._pavement = _pave(picture, plan.width, plan.height)
        moving = shot.moving
        self._object = None if moving is None else _cut_out(pictures[moving.picture], moving)
        self._lines: list[tuple[NDArray[np.uint8], TextBox]] = []
        if shot.text is not None:
            boxes = text_boxes(shot.text, width=plan.width, height=plan.height)
            self._lines = list(zip(_letters(shot.text, plan.width), boxes, strict=True))

    def take(self, frame: int) -> Picture:
        """Return the frame of this number, counted from where the shot is first seen."""
        width, height = self._size
        shot = self._shot
        zoom = shot.start_zoom * shot.zoom**frame
        # Content that moves by (dx, dy) is a window that moves by (-dx, -dy).
        left = self._middle[0] - shot.dx * frame - (width - 1) / 2 / zoom
        top = self._middle[1] - shot.dy * frame - (height - 1) / 2 / zoom
        x, y = left % self._period[0] + _RIM, top % self._period[1] + _RIM
        picture = cv2.warpAffine(
            self._pavement,
            np.array([[1 / zoom, 0, x], [0, 1 / zoom, y]]),
            self._size,
            flags=cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP,
        ).astype(np.uint8, copy=False)
        if shot.moving is not None and self._object is not None:
            _paste(picture, self._object, *_bounce(shot.moving, self._size, frame))
        # The sensor's noise; text and transitions come later, so black is black.
        noise = np.roll(self._noises[(5 * frame) % _NUM_NOISES], 37 * frame, axis=(0, 1))
        picture = cv2.add(picture, noise, dtype=cv2.CV_8U).astype(np.uint8, copy=False)
        for mask, box in self._lines:
            _burn_in(picture, mask, box)
        return picture


def _cover(picture: Picture, width: int, height: int) -> Picture:
    """Scale a picture so that it covers the frame with a margin."""
    scale = max(width / picture.shape[1], height / picture.shape[0]) * _MARGIN
    size = (math.ceil(picture.shape[1] * scale), math.ceil(picture.shape[0] * scale))
    interpolation = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    return cv2.resize(picture, size, interpolation=interpolation).astype(np.uint8, copy=False)


def _pave(picture: Picture, width: int, height: int) -> Picture:
    """Mirror a picture so often that a window of the frame's size fits wherever it begins.

    OpenCV's own reflecting border holds for one reflection only.
    """
    down = picture.shape[0] - 2 + height + _RIM
    right = picture.shape[1] - 2 + width + _RIM
    return np.pad(picture, ((_RIM, down), (_RIM, right), (0, 0)), mode="reflect")


def _cut_out(picture: Picture, moving: ObjectPlan) -> Picture:
    """Return the middle of a picture, scaled to the object's diameter."""
    side = min(picture.shape[:2]) * 2 // 3
    top, left = (picture.shape[0] - side) // 2, (picture.shape[1] - side) // 2
    middle = picture[top : top + side, left : left + side]
    size = (moving.diameter, moving.diameter)
    return cv2.resize(middle, size, interpolation=cv2.INTER_AREA).astype(np.uint8, copy=False)


@lru_cache(maxsize=8)
def _disc(diameter: int) -> NDArray[np.float32]:
    """Return a round mask (d, d, 1), 1 inside, soft over two pixels at its edge."""
    offsets = np.arange(diameter, dtype=np.float32) - (diameter - 1) / 2
    radii = np.hypot(offsets[:, None], offsets[None, :])
    mask = np.clip((diameter / 2 - radii) / 2, 0, 1)[..., None]
    return np.asarray(mask, dtype=np.float32)


def _bounce(moving: ObjectPlan, size: tuple[int, int], frame: int) -> tuple[float, float]:
    """Return where the object's upper left corner is after some frames."""
    width, height = size
    return (
        _reflect(moving.x + moving.dx * frame, width - moving.diameter),
        _reflect(moving.y + moving.dy * frame, height - moving.diameter),
    )


def _reflect(position: float, span: float) -> float:
    folded = position % (2 * span)
    return min(folded, 2 * span - folded)


def _paste(picture: Picture, sprite: Picture, x: float, y: float) -> None:
    """Blend a round object into the picture at a position between pixels."""
    diameter = sprite.shape[0]
    left, top = math.floor(x), math.floor(y)
    shift = np.array([[1, 0, x - left], [0, 1, y - top]])
    size = (diameter + 1, diameter + 1)
    moved = cv2.warpAffine(sprite, shift, size, borderMode=cv2.BORDER_REPLICATE)
    mask = cv2.warpAffine(_disc(diameter), shift, size)[..., None]
    region = picture[top : top + diameter + 1, left : left + diameter + 1]
    height, width = region.shape[:2]
    blended = region + mask[:height, :width] * (moved[:height, :width].astype(np.float32) - region)
    region[...] = np.rint(blended).astype(np.uint8)


def _burn_in(picture: Picture, mask: NDArray[np.uint8], box: TextBox) -> None:
    """Draw white letters with a black rim one twelfth of their height wide."""
    rim = max(1, box.height // 12)
    canvas = np.zeros(picture.shape[:2], np.uint8)
    canvas[box.top : box.top + box.height, box.left : box.left + box.width] = mask
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * rim + 1, 2 * rim + 1))
    for letters, colour in ((cv2.dilate(canvas, kernel), 0.0), (canvas, 255.0)):
        share = (letters / np.float32(255))[..., None]
        picture[...] = np.rint(picture + share * (colour - picture)).astype(np.uint8)


def _noises(plan: VideoPlan) -> NDArray[np.int16]:
    generator = numpy_generator(*plan.key, 1)
    shape = (_NUM_NOISES, plan.height, plan.width, 3)
    noise = generator.standard_normal(shape, dtype=np.float32) * _NOISE_STD
    return np.asarray(np.rint(noise), dtype=np.int16)


def _describe_shot(
    plan: VideoPlan, shot: ShotPlan, start: int, stop: int, *, scale: float
) -> TrueShot:
    moving = shot.moving
    object_area = math.pi / 4 * moving.diameter**2 if moving else 0.0
    object_ratio = object_area / (plan.width * plan.height)
    boxes = text_boxes(shot.text, width=plan.width, height=plan.height) if shot.text else []
    text_area = sum(box.width * box.height for box in boxes)
    return TrueShot(
        start_frame=start,
        stop_frame=stop,
        picture=shot.picture,
        camera=shot.camera,
        dx=shot.dx * scale,
        dy=shot.dy * scale,
        zoom=shot.zoom,
        object_dx=moving.dx * scale if moving else 0.0,
        object_dy=moving.dy * scale if moving else 0.0,
        object_area_ratio=object_ratio,
        mean_motion_px=scale * _mean_motion(plan, shot, object_ratio),
        text_area_ratio=min(1.0, text_area / (plan.width * plan.height)),
    )


def _mean_motion(plan: VideoPlan, shot: ShotPlan, object_ratio: float) -> float:
    """Return the mean length of the displacement per frame over all pixels, at the plan's size."""
    if shot.moving is not None:
        return object_ratio * math.hypot(shot.moving.dx, shot.moving.dy)
    return math.hypot(shot.dx, shot.dy) + abs(shot.zoom - 1) * _mean_radius(plan.width, plan.height)


@lru_cache(maxsize=8)
def _mean_radius(width: int, height: int) -> float:
    """Return the mean distance of a pixel from the frame's centre."""
    x = np.arange(width) - (width - 1) / 2
    y = np.arange(height) - (height - 1) / 2
    return float(np.hypot(x[None, :], y[:, None]).mean())
