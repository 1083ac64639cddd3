"""The sections clip, annotate and filter of params.yaml."""

from typing import Final, Literal, Self

from pydantic import Field, model_validator

from svd.config.annotation_models import CaptionConfig, ClipModelConfig, CraftConfig
from svd.config.base import Section


class CutNetworkConfig(Section):
    """TransNetV2 on the stretches where the detectors disagree; 20 ms a frame on one core.

    Its weights (MIT, 31 MB) come from a published package, by pinned hash.
    """

    add_above: float = Field(
        default=0.5, gt=0, lt=1
    )  # probability; the paper of TransNetV2 has 0.5
    drop_below: float = Field(
        default=0.05, ge=0, lt=1
    )  # of cuts that the native detector alone saw


class CutConfig(Section):
    """Cascade of cut detectors at three frame rates, plus fades.

    Paper, appendix C.1: three detectors in cascade, each at its own frame rate and threshold; it
    names neither. The defaults are PySceneDetect's own for the native rate, and values measured on
    the annotated part of Big Buck Bunny for the others.
    """

    adaptive_threshold: float = Field(default=3.0, gt=0)  # ratio to the neighbours' mean score
    adaptive_window: int = Field(default=2, ge=1, le=24)  # neighbours on each side, frames
    adaptive_min_score: float = Field(default=15.0, ge=0)  # content score, 0..255
    mid_rate_hz: int = Field(default=8, ge=1, le=60)  # samples per second of the second detector
    mid_threshold: float = Field(default=27.0, gt=0, le=255)  # content score
    low_rate_hz: int = Field(default=3, ge=1, le=60)  # samples per second of the third detector
    low_threshold: float = Field(default=24.0, gt=0, le=255)  # content score
    min_shot_frames: int = Field(default=2, ge=1)  # of the detectors; longer would hide second cuts
    dark_level: float = Field(default=12.0, ge=0, le=255)  # mean RGB of black; PySceneDetect's own
    flat_contrast: float = Field(default=4.0, ge=0)  # std of luma below which a frame is one colour
    blend_residual: float = Field(default=0.2, gt=0, lt=1)  # unblended share; with a cascade hit
    blend_min_change: float = Field(default=20.0, gt=0)  # luma between both ends; with a hit
    blend_residual_alone: float = Field(default=0.12, gt=0, lt=1)  # without a cascade hit
    blend_min_change_alone: float = Field(default=25.0, gt=0)  # luma, without a cascade hit
    max_gradual_s: float = Field(default=3.0, gt=0)  # longest fade or dissolve looked for
    network: CutNetworkConfig | None = None  # second opinion where detectors disagree; None: none

    @model_validator(mode="after")
    def _rates_fall(self) -> Self:
        if self.low_rate_hz >= self.mid_rate_hz:
            raise ValueError(
                f"low_rate_hz={self.low_rate_hz} must be below mid_rate_hz={self.mid_rate_hz}"
            )
        return self


class BankConfig(Section):
    """Frames and flow kept from the one decode pass, so that nothing decodes a video again."""

    rate_hz: int = Field(default=2, ge=1, le=30)  # frames per second, chosen by time (paper: 2)
    short_side_px: int = Field(default=256, ge=64, le=1080)  # of the stored frames
    jpeg_quality: int = Field(default=92, ge=50, le=100)
    still_every: int = Field(
        default=2, ge=1, le=100
    )  # every n-th frame is also kept large, for OCR
    still_short_side_px: int = Field(default=480, ge=64, le=2160)
    flow_short_side_px: int = Field(default=128, ge=32, le=720)  # luma on which DIS flow runs
    map_short_side_px: int = Field(default=16, ge=8, le=128)  # stored flow maps (paper: 16)


class ClipConfig(Section):
    """From raw videos to cut-free clips."""

    segment_s: float = Field(default=60.0, gt=1)  # unit of decoding; long videos split at keyframes
    cuts: CutConfig = CutConfig()
    bank: BankConfig = BankConfig()
    min_clip_s: float = Field(gt=0)  # shorter clips are dropped and counted
    max_clip_s: float = Field(gt=0)  # longer shots become several clips
    guard_frames: int = Field(default=2, ge=0)  # kept away from both ends of a fade or dissolve
    min_copy_share: float = Field(default=0.6, ge=0, le=1)  # of a shot; below it is re-encoded
    keep_audio: bool = False  # copy the first sound track into the clips, where an mp4 can hold it
    reencode_crf: int = Field(default=18, ge=0, le=51)  # x264 quality of the fallback
    reencode_preset: Literal["ultrafast", "veryfast", "fast", "medium", "slow"] = "veryfast"

    @model_validator(mode="after")
    def _lengths_agree(self) -> Self:
        if self.max_clip_s < 2 * self.min_clip_s:
            raise ValueError(
                f"max_clip_s={self.max_clip_s} must be at least twice "
                f"min_clip_s={self.min_clip_s}: half of a long shot must be long enough to keep"
            )
        return self


class TextConfig(Section):
    """Text area: PP-OCR boxes that its recogniser can read."""

    gate_side_px: int = Field(default=320, ge=64)  # first detector pass; no box there: no text
    side_px: int = Field(default=480, ge=64)  # second detector pass, whose boxes are measured
    min_confidence: float = Field(default=0.6, ge=0, le=1)  # of the recogniser, per box
    max_gate_boxes: int = Field(default=4, ge=1)  # largest boxes of the first pass that are read
    max_boxes: int = Field(default=16, ge=1)  # largest boxes read; they speak for the rest
    box_threshold: float = Field(default=0.5, ge=0, le=1)  # PP-OCR's own default


class DedupConfig(Section):
    """Near-duplicates: PDQ hashes of a clip's frames, compared across the corpus."""

    max_distance: int = Field(default=31, ge=0, le=63)  # bits of 256; PDQ's published threshold
    min_quality: int = Field(default=50, ge=0, le=100)  # of PDQ; flatter frames prove nothing
    min_share: float = Field(default=0.5, gt=0, le=1)  # of the shorter clip's frames that match
    min_aligned_share: float = Field(default=0.75, gt=0, le=1)  # likewise, at one shift in time
    min_similarity: float | None = Field(default=0.99, gt=0, lt=1)  # cosine of CLIP embeddings


class ModelsConfig(Section):
    """Networks that look at every clip; only those that are named run."""

    device: Literal["cpu", "cuda"] = "cpu"  # cuda: on engine.num_gpus workers
    weights: str = "weights"  # folder below the root in which heads are found by hash
    clips_per_batch: int = Field(default=8, ge=1)  # whose frames are in memory at once
    pictures_per_batch: int = Field(default=32, ge=1)  # through a network at once
    clip: ClipModelConfig | None = None  # None: no similarity, aesthetics, watermark, NSFW
    craft: CraftConfig | None = None
    captions: CaptionConfig = CaptionConfig()

    @model_validator(mode="after")
    def _names_a_model(self) -> Self:
        if self.clip is None and self.craft is None and self.captions == CaptionConfig():
            raise ValueError("models names no model: name clip, craft or captions, or set it null")
        return self


class ScoreRange(Section):
    """Values of a score that are wanted."""

    min: float | None = None
    max: float | None = None

    @model_validator(mode="after")
    def _is_a_range(self) -> Self:
        if self.min is None and self.max is None:
            raise ValueError("a range needs min or max")
        if self.min is not None and self.max is not None and self.min >= self.max:
            raise ValueError(f"min={self.min} must be below max={self.max}")
        return self


class RaftConfig(Section):
    """RAFT flow of chosen clips, which are decoded again for it (paper: stage III's data)."""

    device: Literal["cpu", "cuda"] = "cpu"  # cuda: on engine.num_gpus workers
    file: str = Field(min_length=1)  # of torchvision, e.g. raft_large_C_T_SKHT_V2-ff5fadd5.pth
    size: Literal["large", "small"] = "large"
    short_side_px: int = Field(default=450, ge=128)  # paper: 800x450
    num_updates: int = Field(default=12, ge=1)  # of the flow per pair; torchvision's default
    pairs_per_batch: int = Field(default=4, ge=1)
    only: dict[str, ScoreRange] = Field(default_factory=dict)  # wanted scores; {}: all clips


class AnnotateConfig(Section):
    """Which annotators run, and how."""

    clips_per_shard: int = Field(default=8, ge=1)  # unit of work, and what a killed run loses
    text: TextConfig | None = TextConfig()  # None: not annotated
    dedup: DedupConfig = DedupConfig()
    models: ModelsConfig | None = None  # None: nothing that needs weights of one's own
    raft: RaftConfig | None = None


class Threshold(Section):
    """Bounds on one score; each may be absent. Quantiles are taken over all clips that have it."""

    min: float | None = None  # drop below this value
    max: float | None = None  # drop above this value
    drop_lowest: float | None = Field(default=None, gt=0, lt=1)  # share of clips, e.g. 0.25
    drop_highest: float | None = Field(default=None, gt=0, lt=1)

    @model_validator(mode="after")
    def _bounds_something(self) -> Self:
        if all(bound is None for bound in self.model_dump().values()):
            raise ValueError("a threshold needs min, max, drop_lowest or drop_highest")
        if self.min is not None and self.max is not None and self.min >= self.max:
            raise ValueError(f"min={self.min} must be below max={self.max}")
        return self


PresetName = Literal["lvd-f", "stage-iii"]
PRESETS: Final[dict[PresetName, dict[str, Threshold]]] = {
    # Paper, appendix E.2.2 (shares) and C.5 (text area): what made LVD-F of LVD.
    "lvd-f": {
        "motion.farneback_px": Threshold(drop_lowest=0.25),
        "clip.aesthetic": Threshold(drop_lowest=0.25),
        "clip.similarity": Threshold(drop_lowest=0.5),
        "text.area": Threshold(max=0.07),
    },
    # Paper, section 4.2, asks of stage III's clips much object motion, a steady camera, aligned
    # captions and high visual quality; it gives no numbers, these are ours.
    "stage-iii": {
        "camera.residual_px": Threshold(drop_lowest=0.5),
        "camera.speed_px": Threshold(drop_highest=0.25),
        "clip.aesthetic": Threshold(drop_lowest=0.5),
        "clip.similarity": Threshold(drop_lowest=0.5),
    },
}


def _with_preset(
    preset: PresetName | None, thresholds: dict[str, Threshold]
) -> dict[str, Threshold]:
    return (PRESETS[preset] if preset else {}) | thresholds


class ThresholdSet(Section):
    """Thresholds by score name, on top of a preset's."""

    preset: PresetName | None = None
    thresholds: dict[str, Threshold] = Field(default_factory=dict)  # replace the preset's

    @model_validator(mode="after")
    def _has_thresholds(self) -> Self:
        if self.preset is None and not self.thresholds:
            raise ValueError("name a preset or thresholds")
        return self

    @property
    def in_force(self) -> dict[str, Threshold]:
        """The preset's thresholds, those given here in place of its own."""
        return _with_preset(self.preset, self.thresholds)


class SplitConfig(Section):
    """Train and held-out clips; a near-duplicate group lies in one of them."""

    heldout_share: float = Field(gt=0, lt=0.5)  # of the kept clips, by hash of their group
    min_heldout_clips: int = Field(default=0, ge=0)  # topped up in hash order
    whole_sources: bool = False  # split by source video instead, so no source is in both


class FilterConfig(Section):
    """From scores to verdicts."""

    preset: PresetName | None = None  # thresholds that hold unless given below
    thresholds: dict[str, Threshold] = Field(default_factory=dict)  # e.g. of "motion.dis_px"
    missing_scores: Literal["drop", "keep"] = "drop"  # clips that lack a thresholded score
    max_per_group: int | None = Field(default=None, ge=1)  # near-duplicates kept; None: all
    high_quality: ThresholdSet | None = None  # second bar, for kept clips; shares are of those
    split: SplitConfig
    num_examples: int = Field(default=24, ge=1, le=400)  # per contact sheet

    @property
    def in_force(self) -> dict[str, Threshold]:
        """The preset's thresholds, those given here in place of its own."""
        return _with_preset(self.preset, self.thresholds)
