"""Physics-IQ: does a model continue a filmed experiment as physics did?

How SVD's 14.8 was sampled is not published, so there are two ways: one pass of 25 frames at
5 fps, and 40 frames at 8 fps continued from the last frame.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple

import cv2
import numpy as np
import torch
from einops import rearrange
from jaxtyping import UInt8
from numpy import ndarray
from torch import Tensor

from svd.errors import MediaError
from svd.evaluation.datasets.physics_iq import NUM_VIEWS_SCORED, PHYSICS_IQ, SOURCE_FPS
from svd.evaluation.heldout import sample_seed
from svd.evaluation.measures.base import RunFacts
from svd.evaluation.metrics.physics_iq import (
    SCORED_S,
    SHRINK,
    Frames,
    Masks,
    Motion,
    View,
    blend_to_rate,
    compare_motion,
    motion_masks,
    physics_iq_score,
)
from svd.evaluation.mp4v import through_mp4v
from svd.evaluation.protocols.base import (
    MeasuredClip,
    Measurement,
    Planned,
    PlanOptions,
    ProtocolCard,
    Reduced,
    Shard,
)
from svd.evaluation.protocols.framing import AsSampled
from svd.evaluation.protocols.run import ProtocolRun
from svd.evaluation.reading import read_pictures, read_window
from svd.evaluation.stats import Interval, bootstrap_spread_interval
from svd.evaluation.tables.physics_iq import VIEWS, write_physics_iq_table
from svd.evaluation.tensor_store import TensorStore
from svd.types.protocol import PlannedClip

SCORE = "Physics-IQ score"
TABLE = "physics_iq.csv"
_FIELDS = ("mse", "spatiotemporal_iou", "spatial_iou", "weighted_spatial_iou")
_MASK_THRESHOLD = 127  # grey level, after a mask's own trip through mp4v


class Take(NamedTuple):
    """A real take, as scored: a quarter of its size, with its masks."""

    frames: Frames
    masks: Masks


@dataclass(frozen=True, slots=True, kw_only=True)
class PhysicsIQProtocol:
    """One way of sampling five seconds."""

    card: ProtocolCard
    fps: int

    @property
    def num_frames(self) -> int:
        """Frames that are scored."""
        return SCORED_S * self.fps

    def plan(self, run: ProtocolRun, options: PlanOptions) -> Planned:
        """Take all views of all scenarios; a small plan takes whole scenarios."""
        listing = self.card.dataset.listed(run.data)
        scenarios = list(dict.fromkeys(item.group for item in listing.items))
        chosen = set(scenarios[: -(-options.small // len(VIEWS))] if options.small else scenarios)
        clips = tuple(
            PlannedClip(
                clip_id=item.clip_id,
                path=item.path,
                num_frames=self.num_frames,
                seed=sample_seed(item.clip_id, options.seed),
                group=item.group,
                facts=dict(item.facts),
            )
            for item in listing.items
            if item.group in chosen
        )
        return Planned(clips, listing.split, listing.sha256, len(listing.items))

    def variants(self, run: ProtocolRun, plan: Planned) -> tuple[str, ...]:  # noqa: ARG002
        """Nothing: no network measures here."""
        return ()

    def measure(self, clip: PlannedClip, run: ProtocolRun) -> Measurement:
        """Continue a switch frame and compare the motion with take 1's."""
        take, variance = self._real(clip, run)
        height, width = take.frames.shape[1:3]
        condition = AsSampled(576, 1024)(self._condition(clip, run), run.source.size)
        if run.source.kind == "truth":
            made = rearrange(torch.from_numpy(take.frames), "t H W c -> t c H W")
        else:
            made = run.source.video(clip, condition)
        frames = rearrange(made, "t c H W -> t H W c").contiguous().numpy()
        if len(frames) < self.num_frames:
            detail = f"{len(frames)} frames; {SCORED_S} s at {self.fps} fps are {self.num_frames}"
            raise MediaError(clip.clip_id, "too-short", detail)
        frames = frames[: self.num_frames]
        masks = take.masks if run.source.kind == "truth" else _masks_at(frames, height, width)
        sized = _resized(frames, height, width)
        found = compare_motion(take.frames, sized, take.masks, masks)
        run.keep(clip, made[: self.num_frames], torch.from_numpy(take.frames).permute(0, 3, 1, 2))
        scores = {name: float(np.mean(getattr(found, name))) for name in _FIELDS}
        return Measurement(
            scores, _as_tensors("generated", found) | _as_tensors("variance", variance)
        )

    def summarise(self, clips: Sequence[MeasuredClip], run: ProtocolRun, shard: Shard) -> None:
        """Nothing: means need no moments."""

    def reduce(self, clips: Sequence[MeasuredClip], run: ProtocolRun, facts: RunFacts) -> Reduced:
        """Return the score and its four parts, and write the table in the official format."""
        views = [_view(one) for one in clips]
        by_scenario: dict[str, list[View]] = {}
        for view in views:
            by_scenario.setdefault(view.scenario, []).append(view)
        complete = {name: some for name, some in by_scenario.items() if len(some) == len(VIEWS)}
        if complete:
            write_physics_iq_table(run.out / TABLE, complete)
        found = physics_iq_score(views)
        variant = f"physics-iq/{SCORED_S}s/{self.fps}fps/quarter-size"
        records = [
            facts.record(
                SCORE,
                found.score,
                num=len(views),
                variant=variant,
                higher_is_better=True,
                interval=_interval(list(by_scenario.values()), found.score, facts),
                paired=True,
                note="100 is as near as another take of the same scene; interval over scenarios",
            )
        ]
        for name, ours, real in zip(_FIELDS, found.generated, found.variance, strict=True):
            between = f"{name} (control: between takes)"
            for label, value, control_of in ((name, ours, None), (between, real, name)):
                records.append(
                    facts.record(
                        label,
                        value,
                        num=len(views),
                        variant=variant,
                        higher_is_better=name != "mse",
                        paired=True,
                        control_of=control_of,
                    )
                )
        directions = {name: name != "mse" for name in _FIELDS}
        return Reduced(tuple(records), directions, facts={"scenarios": len(by_scenario)})

    def _condition(self, clip: PlannedClip, run: ProtocolRun) -> UInt8[Tensor, "1 c H W"]:
        """Return the switch frame, or the first scored frame where that picture is missing."""
        name = clip.facts["switch_frame"]
        if name:
            return read_pictures([run.data / name])
        return read_window(run.data / clip.path, num_frames=1)

    def _real(self, clip: PlannedClip, run: ProtocolRun) -> tuple[Take, Motion]:
        """Return take 1 as scored and how far take 2 is from it; decoded once, then kept."""
        store = TensorStore(run.cache / "physics-iq" / f"{self.fps}fps")
        key = f"{run.dataset_sha256}:{clip.path}"
        stored = store.get(clip.clip_id, key)
        if stored is not None:
            kept = stored.tensors
            take = Take(kept["frames"].numpy(), kept["masks"].numpy())
            return take, _from_tensors("variance", kept)
        first = self._take(run.data / clip.path)
        second = self._take(run.data / clip.facts["take_2"])
        variance = compare_motion(first.frames, second.frames, first.masks, second.masks)
        tensors = {"frames": torch.from_numpy(first.frames), "masks": torch.from_numpy(first.masks)}
        store.put(clip.clip_id, key, tensors | _as_tensors("variance", variance))
        return first, variance

    def _take(self, path: Path) -> Take:
        window = read_window(path, num_frames=SCORED_S * SOURCE_FPS)
        frames = rearrange(window, "t c H W -> t H W c").contiguous().numpy()
        frames = blend_to_rate(frames, self.num_frames)
        height, width = frames.shape[1] // SHRINK, frames.shape[2] // SHRINK
        return Take(_resized(frames, height, width), _masks_at(frames, height, width))


def _interval(scenarios: list[list[View]], score: float, facts: RunFacts) -> Interval:
    """Return the score's interval over scenarios, whose three views hang together."""

    def resampled(index: np.ndarray) -> float:
        drawn = [
            view._replace(scenario=f"{place}")
            for place, row in enumerate(index)
            for view in scenarios[row]
        ]
        return physics_iq_score(drawn).score

    generator = facts.generator(SCORE)
    return bootstrap_spread_interval(
        resampled, score, len(scenarios), generator, num_resamples=200, level=0.95
    )


def _masks_at(frames: Frames, height: int, width: int) -> Masks:
    """Return a video's masks, made at its own size, stored as mp4v as officially, then resized."""
    masks = motion_masks(frames)
    grey = np.repeat(masks[..., None].astype(np.uint8) * 255, 3, axis=3)
    stored = _resized(through_mp4v(grey), height, width)
    moved: ndarray = stored[..., 0] > _MASK_THRESHOLD
    return moved


def _resized(frames: Frames, height: int, width: int) -> Frames:
    if frames.shape[1:3] == (height, width):
        return frames
    return np.stack([cv2.resize(frame, (width, height)) for frame in frames])


def _as_tensors(side: str, motion: Motion) -> dict[str, Tensor]:
    return {
        f"{side}.{name}": torch.tensor(getattr(motion, name), dtype=torch.float64)
        for name in _FIELDS
    }


def _from_tensors(side: str, tensors: "dict[str, Tensor]") -> Motion:
    return Motion(
        mse=tuple(tensors[f"{side}.mse"].tolist()),
        spatiotemporal_iou=tuple(tensors[f"{side}.spatiotemporal_iou"].tolist()),
        spatial_iou=float(tensors[f"{side}.spatial_iou"]),
        weighted_spatial_iou=float(tensors[f"{side}.weighted_spatial_iou"]),
    )


def _view(one: MeasuredClip) -> View:
    tensors = dict(one.features)
    return View(
        scenario=one.clip.group,
        generated=_from_tensors("generated", tensors),
        variance=_from_tensors("variance", tensors),
    )


_QUESTION = "Does a model continue a filmed experiment as physics did?"
_SOURCES: Final = ("image-to-video", "files", "truth")
ONE_PASS: Final = PhysicsIQProtocol(
    card=ProtocolCard(
        name="physics-iq-5fps",
        title="Physics-IQ, one pass of 25 frames at 5 fps",
        question=_QUESTION,
        dataset=PHYSICS_IQ,
        sources=_SOURCES,
        published_num=NUM_VIEWS_SCORED,
        assumed=("real takes are blended to 5 fps in memory, without another trip through H.264",),
        sampling={"num_frames": 25, "fps": 5},
    ),
    fps=5,
)
CONTINUED: Final = PhysicsIQProtocol(
    card=ProtocolCard(
        name="physics-iq-8fps",
        title="Physics-IQ, 40 frames at 8 fps, continued from the last frame",
        question=_QUESTION,
        dataset=PHYSICS_IQ,
        sources=_SOURCES,
        published_num=NUM_VIEWS_SCORED,
        assumed=("real takes are blended to 8 fps in memory, without another trip through H.264",),
        sampling={"num_frames": 25, "fps": 8},
    ),
    fps=8,
)
NATIVE_RATE: Final = PhysicsIQProtocol(
    card=ProtocolCard(
        name="physics-iq-30fps",
        title="Physics-IQ, 150 frames at 30 fps, for videos made elsewhere",
        question=_QUESTION,
        dataset=PHYSICS_IQ,
        sources=("files", "truth"),
        published_num=NUM_VIEWS_SCORED,
    ),
    fps=30,
)
