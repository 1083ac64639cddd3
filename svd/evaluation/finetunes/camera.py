"""Adapters: does the camera of samples move as the adapter's class, more than without it?"""

from collections.abc import Callable, Mapping, Sequence
from typing import Final

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from svd.config.camera_motion import CameraMotionConfig
from svd.curation.camera_motion.classify import classify
from svd.evaluation.finetunes.movement import camera_of
from svd.evaluation.measures.base import Measured, RunFacts
from svd.types.artifact import MetricRecord
from svd.types.camera import ADAPTERS, AdapterName, CameraReading

Videos = Sequence[UInt8[Tensor, "t H W 3"]]

# What each adapter is to raise, in px of a 128-px picture per half second.
_TOWARDS: Final[dict[AdapterName, tuple[str, Callable[[CameraReading], float]]]] = {
    "horizontal": ("horizontal camera shift", lambda reading: abs(reading.shift_x)),
    "zoom": ("camera zoom", lambda reading: abs(reading.zoom)),
    "static": ("camera stillness", lambda reading: -reading.speed),
}


def measure_adapters(
    facts: RunFacts,
    base: Videos,
    adapted: Mapping[AdapterName, Videos],
    thresholds: CameraMotionConfig,
    *,
    fps: float,
) -> Measured:
    """Compare samples with each adapter with samples of the same pictures and seeds without.

    Args:
        facts: Of the run.
        base: Samples of the model alone.
        adapted: Samples with each adapter, in the same order.
        thresholds: Of the camera classes.
        fps: Of the samples.
    """
    plain = [camera_of(video, fps=fps) for video in base]
    records: list[MetricRecord] = []
    per_clip: dict[str, Float[Tensor, " n"]] = {}
    for name in ADAPTERS:
        read = [camera_of(video, fps=fps) for video in adapted[name]]
        records += _class_shares(facts, name, plain, read, thresholds)
        gained, numbers = _gain(facts, name, plain, read)
        records += gained
        per_clip |= numbers
    return Measured(tuple(records), per_clip)


def _class_shares(
    facts: RunFacts,
    name: AdapterName,
    plain: Sequence[CameraReading],
    read: Sequence[CameraReading],
    thresholds: CameraMotionConfig,
) -> list[MetricRecord]:
    """Return the share of samples that the classifier puts into the adapter's class."""
    label = f"samples of class {name}, lora@{name}"
    shares = [
        torch.tensor([float(classify(one, thresholds) == name) for one in readings])
        for readings in (read, plain)
    ]
    return [
        facts.mean_record(label, shares[0], variant="camera-class", higher_is_better=True),
        facts.mean_record(
            f"{label} (control: without adapter)",
            shares[1],
            variant="camera-class",
            higher_is_better=True,
            control_of=label,
        ),
    ]


def _gain(
    facts: RunFacts,
    name: AdapterName,
    plain: Sequence[CameraReading],
    read: Sequence[CameraReading],
) -> tuple[list[MetricRecord], dict[str, Float[Tensor, " n"]]]:
    quantity, towards = _TOWARDS[name]
    label = f"{quantity}, lora@{name}"
    values, before = (torch.tensor([towards(one) for one in part]) for part in (read, plain))
    variant = "camera-reading/128px-per-half-second"
    records = [
        facts.mean_record(label, values, variant=variant, higher_is_better=True),
        facts.mean_record(
            f"{label} (control: without adapter)",
            before,
            variant=variant,
            higher_is_better=True,
            control_of=label,
        ),
        facts.mean_record(
            f"{label}, gain",
            values - before,
            variant=f"{variant}/minus-without",
            higher_is_better=True,
            note="paired: the same pictures and seeds",
        ),
    ]
    return records, {f"{label}, gain": values - before}
