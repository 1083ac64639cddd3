"""All protocols, by name."""

from collections.abc import Mapping
from typing import Final

from svd.errors import ConfigError
from svd.evaluation.protocols import (
    curated,
    kinetics600,
    motionhd_local,
    multi_view,
    openvid,
    physics_iq,
    ucf101,
    vbench,
    webvid,
)
from svd.evaluation.protocols.base import EvaluationProtocol

_ALL: Final[tuple[EvaluationProtocol, ...]] = (
    curated.IMAGE_TO_VIDEO,
    curated.RECONSTRUCTION,
    ucf101.TEXT_TO_VIDEO,
    ucf101.GENERATION,
    vbench.PROMPTS,
    vbench.PICTURES,
    kinetics600.RECONSTRUCTION,
    kinetics600.PREDICTION,
    kinetics600.ONE_FRAME_PREDICTION,
    physics_iq.ONE_PASS,
    physics_iq.CONTINUED,
    physics_iq.NATIVE_RATE,
    webvid.RECONSTRUCTION,
    webvid.MP4V_RECONSTRUCTION,
    motionhd_local.RECONSTRUCTION,
    openvid.IMAGE_TO_VIDEO,
    multi_view.GSO_ORBITS,
    multi_view.GSO_ORBITS_ALL_VIEWS,
    multi_view.MVIMGNET_PATHS,
)
PROTOCOLS: Final[Mapping[str, EvaluationProtocol]] = {one.card.name: one for one in _ALL}


def find_protocol(name: str) -> EvaluationProtocol:
    """Return a protocol by name.

    Raises:
        ConfigError: There is none of that name.
    """
    try:
        return PROTOCOLS[name]
    except KeyError:
        known = ", ".join(PROTOCOLS)
        raise ConfigError(f"no protocol is named {name!r}; known: {known}") from None
