"""Protocols that hold videos against real ones: by distance of the sets, clip by clip, or both."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import UInt8
from torch import Tensor

from svd.errors import MediaError
from svd.evaluation.datasets.base import Item
from svd.evaluation.extractors.base import VideoExtractor
from svd.evaluation.extractors.prepare import VideoInput
from svd.evaluation.heldout import sample_seed
from svd.evaluation.measures.base import RunFacts
from svd.evaluation.metrics.frechet import Divisor
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
from svd.evaluation.protocols.framing import Framing, Native
from svd.evaluation.protocols.inception import inception_record
from svd.evaluation.protocols.likeness import LIKENESS, Likeness, likeness_records, likeness_scores
from svd.evaluation.protocols.run import ProtocolRun, RealSide, mark_controls
from svd.evaluation.protocols.set_distance import SetDistance
from svd.evaluation.reading import count_frames, read_window
from svd.runtime.seed import numpy_generator
from svd.types.protocol import PlannedClip

Frames = UInt8[Tensor, "t c H W"]
VIDEO_FRAMES = 16  # that the video network sees: StyleGAN-V's and the paper's FVD


@dataclass(frozen=True, slots=True, kw_only=True)
class VideoComparison:
    """A protocol of this family; see the fields.

    Attributes:
        card: What it is.
        num_frames: In each window; the sampler's own number is used if that is smaller.
        num_clips: Drawn by a hash of the seed and the clip's id; None takes all.
        window: Where a window starts in its video, unless the set says so itself.
        frame_real: How real frames are made fit.
        frame_generated: How generated frames are made fit.
        context: Real frames that are put in place of the first generated ones before measuring.
        paired: Whether each video has its own truth, so that the sets are not independent.
        likeness: Per-clip metrics.
        resize: Of the video network's input, in one of its two ways; None leaves set distances out.
        divisor: Of the covariances.
        through_mp4v: Whether both sides are written as mp4v and read again before measuring.
        by_group: Whether per-clip metrics are also given by group.
        inception_score: Whether one is given where the user brought a classifier.
    """

    card: ProtocolCard
    num_frames: int
    num_clips: int | None = None
    window: Literal["first", "random"] = "first"
    frame_real: Framing = Native()  # noqa: RUF009 - frozen
    frame_generated: Framing = Native()  # noqa: RUF009 - frozen
    context: int = 0
    paired: bool
    likeness: tuple[Likeness, ...] = ()
    resize: Literal["stretch", "crop"] | None = "stretch"
    divisor: Divisor = "n-1"
    through_mp4v: bool = False
    by_group: bool = False
    inception_score: bool = False

    def plan(self, run: ProtocolRun, options: PlanOptions) -> Planned:
        """Choose clips that are long enough, their windows and seeds."""
        listing = self.card.dataset.listed(run.data)
        num_frames = min(self.num_frames, options.num_frames or self.num_frames)
        wanted = options.small or self.num_clips
        items: Sequence[Item] = listing.items
        if wanted is not None and wanted < len(items):
            items = sorted(items, key=lambda item: _draw(item.clip_id, options.seed))
        clips: list[PlannedClip] = []
        for item in items:
            start = self._start(run, item, num_frames, options.seed)
            if start is not None:
                clips.append(_planned(item, start, num_frames, options.seed))
            if wanted is not None and len(clips) == wanted:
                break
        if not clips:
            raise MediaError(str(run.data), "too-short", f"no video has {num_frames} frames")
        order = {item.clip_id: index for index, item in enumerate(listing.items)}
        clips.sort(key=lambda clip: order[clip.clip_id])
        return Planned(mark_controls(clips), listing.split, listing.sha256, len(listing.items))

    def _start(self, run: ProtocolRun, item: Item, num_frames: int, seed: int) -> int | None:
        """Return where a video's window starts; None for one too short, where that is looked at."""
        if item.start_frame is not None:
            return item.start_frame
        if self.num_clips is None and self.window == "first":
            return 0  # all clips are taken; a short one is reported when it is read
        try:
            available = count_frames(run.data / item.path)
        except MediaError:
            return None
        if available < num_frames:
            return None
        if self.window == "first":
            return 0
        drawn = numpy_generator(seed, *item.clip_id.encode())
        return int(drawn.integers(available - num_frames + 1))

    def variants(self, run: ProtocolRun, plan: Planned) -> tuple[str, ...]:
        """Return the variants of the networks this protocol uses."""
        networks = [LIKENESS[name].variant(run.networks) for name in self.likeness]
        networks += [one.extractor.variant for one in self._set_distances(plan.clips[0], run)]
        classifier = self._classifier(run, plan.clips[0].num_frames)
        if classifier is not None:
            networks.append(classifier.variant)
        return tuple(networks)

    def measure(self, clip: PlannedClip, run: ProtocolRun) -> Measurement:
        """Make a video, measure it, and see to its real side."""
        size = run.source.size
        read = read_window(
            run.data / clip.path, start_frame=clip.start_frame, num_frames=clip.num_frames
        )
        real = self.frame_real(read, size)
        made = run.source.video(clip, real)
        generated = made if run.source.kind == "truth" else self.frame_generated(made, size)
        generated = _fitted(generated, real, clip, context=self.context)
        if self.through_mp4v:
            real, generated = _through_mp4v(real), _through_mp4v(generated)
        run.keep(clip, generated, real)
        features = {
            one.feature: one.extract(clip, generated, real)
            for one in self._set_distances(clip, run)
        }
        classifier = self._classifier(run, clip.num_frames)
        if classifier is not None:
            features["classes"] = classifier.extract(generated[None])[0]
        return Measurement(likeness_scores(self.likeness, generated, real, run.networks), features)

    def summarise(self, clips: Sequence[MeasuredClip], run: ProtocolRun, shard: Shard) -> None:
        """Keep the moments of a shard's features."""
        for one in self._set_distances(clips[0].clip, run) if clips else ():
            one.summarise(clips, shard)

    def reduce(self, clips: Sequence[MeasuredClip], run: ProtocolRun, facts: RunFacts) -> Reduced:
        """Return means of the per-clip metrics, and the distance of the sets with its controls."""
        reduced = likeness_records(
            self.likeness,
            clips,
            run,
            facts,
            where=f"{clips[0].clip.num_frames}f/s1/{self._framing}",
            by_group=self.by_group,
        )
        classifier = self._classifier(run, clips[0].clip.num_frames)
        if classifier is not None:
            scored = inception_record(classifier, clips, facts, where=self._framing)
            reduced = reduced._replace(records=(*reduced.records, scored))
        found = [one.reduce(clips, facts) for one in self._set_distances(clips[0].clip, run)]
        distances = [record for one in found for record in one.records]
        curves = {name: curve for one in found for name, curve in one.size_curves.items()}
        return reduced._replace(records=(*distances, *reduced.records), size_curves=curves)

    def _set_distances(self, clip: PlannedClip, run: ProtocolRun) -> tuple[SetDistance, ...]:
        """Return the distances of sets: of videos, and of frames if that network was asked for."""
        if self.resize is None:
            return ()
        video_input = VideoInput(
            num_frames=VIDEO_FRAMES,
            source_frames=min(clip.num_frames, VIDEO_FRAMES),
            resize=self.resize,
        )
        video, frame = run.networks.video(video_input), run.networks.frame()
        found = [self._set_distance(run, video, "video", ("FVD", "KVD"), VIDEO_FRAMES)]
        if frame is not None:
            found.append(self._set_distance(run, frame, "frame", ("FID", "KID"), clip.num_frames))
        return tuple(found)

    def _set_distance(
        self,
        run: ProtocolRun,
        extractor: VideoExtractor,
        feature: str,
        names: tuple[str, str],
        num_frames: int,
    ) -> SetDistance:
        return SetDistance(
            feature=feature,
            names=names,
            num_frames=num_frames,
            run=run,
            extractor=extractor,
            real=self._real_side(run, extractor),
            variant=f"{extractor.variant}/from-{self._framing}/{self.divisor}",
            divisor=self.divisor,
            paired=self.paired,
        )

    @property
    def _framing(self) -> str:
        codec = "-mp4v" if self.through_mp4v else ""
        context = f"-context{self.context}" if self.context else ""
        return f"{self.frame_real.name}{context}{codec}"

    def _classifier(self, run: ProtocolRun, num_frames: int) -> VideoExtractor | None:
        return run.networks.classifier(source_frames=num_frames) if self.inception_score else None

    def _real_side(self, run: ProtocolRun, extractor: VideoExtractor) -> RealSide:
        size = run.source.size
        identity = f"{run.dataset_sha256}\n{self._framing}\n{size}\n{self.card.dataset.name}"
        return RealSide(run.cache, extractor, identity=identity)


def _planned(item: Item, start: int, num_frames: int, seed: int) -> PlannedClip:
    return PlannedClip(
        clip_id=item.clip_id,
        path=item.path,
        start_frame=start,
        num_frames=num_frames,
        seed=sample_seed(item.clip_id, seed),
        prompt=item.prompt,
        group=item.group,
        facts=dict(item.facts),
    )


def _draw(clip_id: str, seed: int) -> bytes:
    return hashlib.sha256(f"{seed}:{clip_id}".encode()).digest()


def _fitted(generated: Frames, real: Frames, clip: PlannedClip, *, context: int) -> Frames:
    """Return as many generated frames as real ones, the first of them real if so asked.

    Raises:
        MediaError: Too few frames, or another size.
    """
    if context and len(generated) == len(real) - context:
        generated = torch.cat([real[:context], generated])
    if len(generated) < len(real):
        detail = f"{len(generated)} frames where {len(real)} are wanted"
        raise MediaError(clip.clip_id, "too-short", detail)
    if generated.shape[-2:] != real.shape[-2:]:
        sizes = [f"{video.shape[-1]}x{video.shape[-2]}" for video in (generated, real)]
        raise MediaError(clip.clip_id, "other-size", f"{sizes[0]} against real {sizes[1]}")
    return torch.cat([real[:context], generated[context : len(real)]])


def _through_mp4v(frames: Frames) -> Frames:
    pictures = through_mp4v(frames.permute(0, 2, 3, 1).contiguous().numpy())
    return torch.from_numpy(pictures).permute(0, 3, 1, 2).contiguous()
