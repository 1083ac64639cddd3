"""Orbits around objects: each generated view against the true one."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from svd.errors import MediaError
from svd.evaluation.datasets.objects import GSO, MVIMGNET, NUM_VIEWS, elevation_of, pictures_of
from svd.evaluation.heldout import sample_seed
from svd.evaluation.measures.base import RunFacts
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
from svd.evaluation.protocols.likeness import LIKENESS, Likeness, likeness_records, likeness_scores
from svd.evaluation.protocols.run import ProtocolRun
from svd.evaluation.reading import read_pictures
from svd.types.protocol import PlannedClip

_METRICS: Final[tuple[Likeness, ...]] = ("psnr", "lpips", "clip-s")


@dataclass(frozen=True, slots=True, kw_only=True)
class MultiView:
    """A protocol of this family.

    Attributes:
        card: What it is.
        with_condition: Whether view 0, which the model was given, is measured too.
    """

    card: ProtocolCard
    with_condition: bool

    def plan(self, run: ProtocolRun, options: PlanOptions) -> Planned:
        """Take all objects, or the first few."""
        listing = self.card.dataset.listed(run.data)
        num_views = min(NUM_VIEWS, options.num_frames or NUM_VIEWS)
        clips = tuple(
            PlannedClip(
                clip_id=item.clip_id,
                path=item.path,
                num_frames=num_views,
                seed=sample_seed(item.clip_id, options.seed),
                elevation_deg=elevation_of(run.data / item.path),
                group=item.group,
            )
            for item in listing.items[: options.small]
        )
        return Planned(clips, listing.split, listing.sha256, len(listing.items))

    def variants(self, run: ProtocolRun, plan: Planned) -> tuple[str, ...]:  # noqa: ARG002
        """Return the variants of the picture networks."""
        return tuple(LIKENESS[name].variant(run.networks) for name in _METRICS)

    def measure(self, clip: PlannedClip, run: ProtocolRun) -> Measurement:
        """Make an orbit from view 0 and compare it view by view."""
        size = run.source.size
        frame = AsSampled(576, 576)
        paths = pictures_of(run.data / clip.path)[: clip.num_frames]
        real = frame(read_pictures(paths), size)
        made = run.source.video(clip, real)
        generated = frame(made, size)[: clip.num_frames]
        if len(generated) < len(real):
            detail = f"{len(generated)} views where {len(real)} are wanted"
            raise MediaError(clip.clip_id, "too-short", detail)
        run.keep(clip, generated, real)
        first = 0 if self.with_condition else 1
        scores = likeness_scores(_METRICS, generated[first:], real[first:], run.networks)
        return Measurement(scores, {})

    def summarise(self, clips: Sequence[MeasuredClip], run: ProtocolRun, shard: Shard) -> None:
        """Nothing: means need no moments."""

    def reduce(self, clips: Sequence[MeasuredClip], run: ProtocolRun, facts: RunFacts) -> Reduced:
        """Return means over objects."""
        which = "all-views" if self.with_condition else "views-1-on"
        where = f"{clips[0].clip.num_frames}views/{which}/{AsSampled(576, 576).name}"
        return likeness_records(_METRICS, clips, run, facts, where=where, by_group=False)


_GSO_ASSUMED = (
    "the 50 objects, renderer, light, and the networks of LPIPS and CLIP-S are not published",
)
_SAMPLING: Final = {"num_frames": NUM_VIEWS, "height": 576, "width": 576}
GSO_ORBITS: Final = MultiView(
    card=ProtocolCard(
        name="gso",
        title="Google Scanned Objects, 21 views of an orbit, view 0 given and left out",
        question="Are the unseen views of an object right?",
        dataset=GSO,
        sources=("image-to-video", "files", "truth"),
        published_num=50,
        assumed=_GSO_ASSUMED,
        sampling=_SAMPLING,
    ),
    with_condition=False,
)
GSO_ORBITS_ALL_VIEWS: Final = MultiView(
    card=ProtocolCard(
        name="gso-all-views",
        title="Google Scanned Objects, 21 views of an orbit, view 0 given and measured too",
        question="Are all views of an object right, the given one included?",
        dataset=GSO,
        sources=("image-to-video", "files", "truth"),
        published_num=50,
        assumed=_GSO_ASSUMED,
        sampling=_SAMPLING,
    ),
    with_condition=True,
)
MVIMGNET_PATHS: Final = MultiView(
    card=ProtocolCard(
        name="mvimgnet",
        title="MVImgNet, 21 views along a camera path",
        question="Are the next views of a filmed object right?",
        dataset=MVIMGNET,
        sources=("image-to-video", "files", "truth"),
        assumed=("the paper trains on MVImgNet and publishes no numbers on it",),
        sampling=_SAMPLING,
    ),
    with_condition=False,
)
