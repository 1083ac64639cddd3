"""Where one class of camera motion ends and the next begins."""

from pydantic import Field

from svd.config.base import Section


class CameraMotionConfig(Section):
    """Thresholds on a clip's camera reading; lengths in px of a 128-px picture per half second.

    The paper names three adapters and no classifier. These bounds are ours; the first clips they
    were tried on are those of the synthetic corpus.
    """

    static_speed: float = Field(default=0.5, gt=0)  # slower is a camera at rest: 0.8 % of height/s
    min_explained: float = Field(default=0.5, ge=0, le=1)  # of the squared flow, while it moves
    min_steadiness: float = Field(default=0.7, ge=0, le=1)  # of the mean motion to the mean speed
    min_share: float = Field(default=0.8, gt=0.5, le=1)  # of the squared motion, in one class
    num_examples: int = Field(default=12, ge=1, le=200)  # clips per contact sheet
