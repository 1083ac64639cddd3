"""Distance of the set of generated videos to the real set, with its controls, over any shards."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from svd.evaluation.extractors.base import VideoExtractor, metric_name
from svd.evaluation.measures.base import RunFacts
from svd.evaluation.metrics.frechet import (
    Divisor,
    SizePoint,
    extrapolate_to_infinity,
    frechet_against_size,
    frechet_distance,
    frechet_from_moments,
)
from svd.evaluation.metrics.kid import kernel_distance
from svd.evaluation.moments import (
    key_of,
    load_moments,
    merge_moments,
    save_moments,
    stream_moments,
)
from svd.evaluation.protocols.base import MeasuredClip, Shard
from svd.evaluation.protocols.run import ProtocolRun, RealSide
from svd.evaluation.stats import Interval, RunningMoments, bootstrap_spread_interval
from svd.evaluation.tensor_store import TensorStore
from svd.types.artifact import MetricRecord
from svd.types.evaluation import SetSizePoint
from svd.types.protocol import PlannedClip

Features = Float[Tensor, "n d"]
_MANY = 2048  # clips; beyond, intervals and curves take fewer draws, each of which costs seconds
_RESAMPLES, _RESAMPLES_OF_MANY = 100, 30
_CURVE_DRAWS, _CURVE_DRAWS_OF_MANY = 10, 2
_CONTROL_NAMES = ("noise", "frozen frame 0", "shuffled frames")


class SetDistances(NamedTuple):
    """Records, the distance first, and its curve over N."""

    records: tuple[MetricRecord, ...]
    size_curves: dict[str, tuple[SetSizePoint, ...]]


@dataclass(frozen=True, slots=True, kw_only=True)
class SetDistance:
    """Frechet distance of one extractor's features; kernel distance where sets are independent.

    Attributes:
        feature: What a clip's vector is kept under.
        names: Official names of the two distances, Frechet's first.
        num_frames: Frames of each video that the network is shown, from the first on.
        run: The run.
        extractor: The network.
        real: Features of the real side.
        variant: Beginning of the variant id.
        divisor: Of the covariances.
        paired: Whether each video has its own truth.
    """

    feature: str
    names: tuple[str, str]
    num_frames: int
    run: ProtocolRun
    extractor: VideoExtractor
    real: RealSide
    variant: str
    divisor: Divisor
    paired: bool

    def extract(
        self, clip: PlannedClip, generated: UInt8[Tensor, "t c H W"], real: UInt8[Tensor, "t c H W"]
    ) -> Float[Tensor, " d"]:
        """Return a generated video's vector; the real one's is kept in the cache."""
        self.real.ensure(clip, real[: self.num_frames])
        return self.extractor.extract(generated[None, : self.num_frames])[0]

    def summarise(self, clips: Sequence[MeasuredClip], shard: Shard) -> None:
        """Keep the moments of both sides of one shard's clips, each in float64."""
        for side in ("real", "generated"):
            self._shard_moments(side, clips, shard)

    def reduce(self, clips: Sequence[MeasuredClip], facts: RunFacts) -> SetDistances:
        """Return the distance over all clips with interval, controls and curve."""
        card = self.extractor.card
        name = metric_name(self.names[0], "FD", card)
        real = torch.stack([self._real_vector(one) for one in clips])
        generated = torch.stack([one.features[self.feature] for one in clips])
        value = self._distance(clips, real, generated)
        interval = self._interval(real, generated, value, facts.generator(name))

        def record(label: str, number: float, num: int, **more: object) -> MetricRecord:
            return facts.record(
                label,
                number,
                num=num,
                variant=f"frechet/{self.variant}",
                higher_is_better=False,
                card=card,
                **more,  # type: ignore[arg-type]  # forwarded by name, as `record` takes them
            )

        records = [record(name, value, len(clips), interval=interval, paired=self.paired)]
        curve = self._curve(real, generated, facts.generator(f"{name} against N"))
        records += self._controls(name, clips, real, generated, record)
        if not self.paired:
            records.append(self._kernel(facts, real, generated))
        if len(curve) > 2:
            inf = extrapolate_to_infinity(curve)
            note = "linear fit in 1/N over the curve; a guess, compared with nothing"
            label = f"{name} (control: extrapolated to infinite N)"
            records.append(record(label, inf, len(clips), control_of=name, note=note))
        points = tuple(SetSizePoint(**point._asdict()) for point in curve)
        return SetDistances(tuple(records), {name: points})

    def _distance(
        self, clips: Sequence[MeasuredClip], real: Features, generated: Features
    ) -> float:
        """Return the distance: exact for few clips, else from the moments that shards kept."""
        if len(clips) <= self.extractor.card.dim:
            return frechet_distance(real, generated, divisor=self.divisor)
        sides = [
            merge_moments(
                [
                    self._shard_moments(side, part, shard)
                    for shard, part in _parts(clips, self.run.num_shards)
                ]
            )
            for side in ("real", "generated")
        ]
        return frechet_from_moments(sides[0], sides[1], divisor=self.divisor)

    def _shard_moments(
        self, side: str, clips: Sequence[MeasuredClip], shard: Shard
    ) -> RunningMoments:
        """Return a shard's moments: as kept, if they are of exactly these clips, else anew."""
        store = self.real.store if side == "real" else TensorStore(self.run.out / "moments")
        name = f"moments-{self.feature}-{side}-{shard.index}-of-{shard.count}"
        key = key_of([self.run.key, *(one.clip.clip_id for one in clips)])
        if side == "real":
            key = key_of([self.real.identity, *(one.clip.clip_id for one in clips)])
        kept = load_moments(store, name, key)
        if kept is not None:
            return kept
        vectors = (
            self._real_vector(one) if side == "real" else one.features[self.feature]
            for one in clips
        )
        moments = stream_moments(vectors) or RunningMoments.empty(self.extractor.card.dim)
        save_moments(store, name, key, moments)
        return moments

    def _real_vector(self, one: MeasuredClip) -> Tensor:
        return self.real.vector(one.clip)

    def _interval(
        self, real: Features, generated: Features, value: float, generator: np.random.Generator
    ) -> Interval | None:
        """Return the interval over clips: pairs together, or generated ones against a fixed set."""
        if len(real) < 4:
            return None
        fixed = RunningMoments.of(real)

        def resampled(index: np.ndarray) -> float:
            rows = torch.from_numpy(index)
            if self.paired or len(real) <= self.extractor.card.dim:
                others = real[rows] if self.paired else real
                return frechet_distance(others, generated[rows], divisor=self.divisor)
            return frechet_from_moments(
                fixed, RunningMoments.of(generated[rows]), divisor=self.divisor
            )

        num = _RESAMPLES if len(real) <= _MANY else _RESAMPLES_OF_MANY
        found = bootstrap_spread_interval(
            resampled, value, len(real), generator, num_resamples=num, level=0.95
        )
        return Interval(max(0.0, found.low), found.high)

    def _curve(
        self, real: Features, generated: Features, generator: np.random.Generator
    ) -> tuple[SizePoint, ...]:
        sizes = sorted({max(2, len(real) * part // 6) for part in (2, 3, 4, 5, 6)})
        draws = _CURVE_DRAWS if len(real) <= _MANY else _CURVE_DRAWS_OF_MANY
        return frechet_against_size(
            real, generated, tuple(sizes), generator, num_draws=draws, divisor=self.divisor
        )

    def _controls(
        self,
        name: str,
        clips: Sequence[MeasuredClip],
        real: Features,
        generated: Features,
        record: Callable[..., MetricRecord],
    ) -> list[MetricRecord]:
        """Return the scale to read the distance by, on the few clips that were damaged for it."""
        rows = [row for row, one in enumerate(clips) if one.clip.facts.get("control") == "yes"]
        if len(rows) < 2:
            return []
        some = real[rows]
        note = f"the scale of this row is N = {len(rows)}"
        sets = {
            "generated, same clips": (generated[rows], note),
            "the clips themselves": (some, "0 by definition"),
        }
        for control in _CONTROL_NAMES:
            vectors = [self.real.damaged(clips[row].clip, control) for row in rows]
            sets[control] = (torch.stack(vectors), note)
        found = [
            record(
                f"{name} (control: {label})",
                frechet_distance(some, vectors, divisor=self.divisor),
                len(rows),
                control_of=name,
                note=words,
                paired=True,
            )
            for label, (vectors, words) in sets.items()
        ]
        if len(real) >= 4:
            half = len(real) // 2
            found.append(
                record(
                    f"{name} (control: real against real)",
                    frechet_distance(real[0::2], real[1::2], divisor=self.divisor),
                    half,
                    control_of=name,
                    note="two halves of the truth, unpaired: what so few clips cost by themselves",
                )
            )
        return found

    def _kernel(self, facts: RunFacts, real: Features, generated: Features) -> MetricRecord:
        card = self.extractor.card
        return facts.record(
            metric_name(self.names[1], "KD", card),
            kernel_distance(generated, real),
            num=len(real),
            variant=f"kernel3/{self.variant}",
            higher_is_better=False,
            card=card,
            note="unbiased in N; 0 in expectation for two sets of one distribution",
        )


def _parts(clips: Sequence[MeasuredClip], count: int) -> list[tuple[Shard, list[MeasuredClip]]]:
    return [
        (Shard(index, count), [one for one in clips if one.position % count == index])
        for index in range(count)
    ]
