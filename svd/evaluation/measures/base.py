"""What every family of metrics shares: the facts of the run, and how a number becomes a record."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Float
from torch import Tensor

from svd.config.evaluation import BootstrapConfig
from svd.evaluation.extractors.base import ExtractorCard
from svd.evaluation.stats import Interval, bootstrap_mean_interval
from svd.runtime.seed import numpy_generator
from svd.types.artifact import MetricRecord

Comparability = Literal["published-protocol", "port", "internal"]


class Measured(NamedTuple):
    """What one family found.

    Attributes:
        records: Numbers over the whole set, controls after the metric they calibrate.
        per_clip: Metric name -> one value a clip, for paired tests.
    """

    records: tuple[MetricRecord, ...]
    per_clip: Mapping[str, Float[Tensor, " n"]]


@dataclass(frozen=True, slots=True)
class RunFacts:
    """What is the same for every number of a run.

    Attributes:
        seed: Of the run; intervals resample from it.
        dataset_fingerprint: Of the held-out set.
        checkpoint_sha256: Of the model's weights.
        sampling_fingerprint: Of the sampler's settings.
        bootstrap: How intervals are made.
        split: The published split the data were found to be; None for any other data.
        published_num: Examples of the published protocol that this run follows to the letter;
            None if it follows none, and then every number is internal.
        clip_ids: Of the clips, in the order of all per-clip values; empty keeps none in records.
    """

    seed: int
    dataset_fingerprint: str
    checkpoint_sha256: str
    sampling_fingerprint: str
    bootstrap: BootstrapConfig
    split: str | None = None
    published_num: int | None = None
    clip_ids: tuple[str, ...] = ()

    def generator(self, name: str) -> np.random.Generator:
        """Return the source of randomness of one metric, apart from all others."""
        return numpy_generator(self.seed, *name.encode())

    def record(
        self,
        name: str,
        value: float,
        *,
        num: int,
        variant: str,
        higher_is_better: bool,
        interval: Interval | None = None,
        paired: bool = False,
        card: ExtractorCard | None = None,
        control_of: str | None = None,
        note: str = "",
        per_clip: dict[str, float] | None = None,
    ) -> MetricRecord:
        """Return the record of a number."""
        return MetricRecord(
            name=name,
            value=value,
            low=None if interval is None else interval.low,
            high=None if interval is None else interval.high,
            num=num,
            paired=paired,
            higher_is_better=higher_is_better,
            variant=f"{variant}/N{num}",
            comparability=self._comparability(num, card),
            seed=self.seed,
            dataset_fingerprint=self.dataset_fingerprint,
            split=self.split,
            checkpoint_sha256=self.checkpoint_sha256,
            extractor=None if card is None else card.facts(),
            control_of=control_of,
            sampling_fingerprint=self.sampling_fingerprint,
            note=note,
            per_clip=per_clip,
        )

    def _comparability(self, num: int, card: ExtractorCard | None) -> Comparability:
        """Return what a number may be compared with; anything unproven makes it internal."""
        if self.split is None or num != self.published_num:
            return "internal"
        if card is None:
            return "published-protocol"
        if not card.publishable:
            return "internal"
        return "published-protocol" if card.kind == "official" else "port"

    def mean_record(
        self,
        name: str,
        values: Float[Tensor, " n"],
        *,
        variant: str,
        higher_is_better: bool,
        card: ExtractorCard | None = None,
        control_of: str | None = None,
        note: str = "",
    ) -> MetricRecord:
        """Return the record of a mean of per-clip values, with its bootstrap interval."""
        numbers = values.double().numpy()
        named = control_of is None and len(self.clip_ids) == len(numbers)
        return self.record(
            name,
            float(numbers.mean()),
            num=len(numbers),
            variant=variant,
            higher_is_better=higher_is_better,
            interval=bootstrap_mean_interval(
                numbers,
                self.generator(name),
                num_resamples=self.bootstrap.num_resamples,
                level=self.bootstrap.level,
            ),
            paired=True,
            card=card,
            control_of=control_of,
            note=note,
            per_clip=dict(zip(self.clip_ids, numbers.tolist(), strict=True)) if named else None,
        )
