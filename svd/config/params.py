"""The root of params.yaml: a section per stage, and the engine and denoiser some of them share."""

from typing import Self

from pydantic import Field, model_validator

from svd.config.autoencoder import AutoencoderStageConfig
from svd.config.base import StageTree
from svd.config.camera_motion import CameraMotionConfig
from svd.config.curation import AnnotateConfig, ClipConfig, FilterConfig
from svd.config.data import EncodeConfig
from svd.config.decoder import DecoderStageConfig
from svd.config.derive import DeriveConfig, derive_key
from svd.config.engine import EngineConfig
from svd.config.evaluation import EvaluateConfig
from svd.config.finetunes import EvaluateFinetunesConfig
from svd.config.ingest import IngestConfig
from svd.config.model import DenoiserConfig
from svd.config.orbits import EncodeOrbitsConfig, EvaluateMultiviewConfig, OrbitsConfig
from svd.config.registry import RegisterConfig
from svd.config.training import TrainingStageConfig
from svd.types.stage import TRAINING_STAGES, TrainingStage


class Params(StageTree):
    """Every number of a run; the sections are named as the stages are (lora@zoom reads lora)."""

    seed: int = Field(ge=0)
    engine: EngineConfig = EngineConfig()
    ingest: IngestConfig
    clip: ClipConfig
    annotate: AnnotateConfig
    filter: FilterConfig
    autoencoder: AutoencoderStageConfig
    encode: EncodeConfig
    denoiser: DenoiserConfig
    pretrain_image: TrainingStageConfig
    pretrain_video: TrainingStageConfig
    derive: DeriveConfig = DeriveConfig()
    finetune_t2v: TrainingStageConfig
    finetune_i2v: TrainingStageConfig
    finetune_interpolation: TrainingStageConfig
    finetune_decoder: DecoderStageConfig
    camera_motion: CameraMotionConfig
    lora: TrainingStageConfig  # of all adapters
    orbits: OrbitsConfig
    encode_orbits: EncodeOrbitsConfig
    finetune_multiview: TrainingStageConfig  # of all three priors; `init` is the video prior
    evaluate_multiview: EvaluateMultiviewConfig
    evaluate_finetunes: EvaluateFinetunesConfig
    evaluate: EvaluateConfig
    registration: RegisterConfig = Field(alias="register")  # a model has a method `register`

    def training(self, stage: TrainingStage) -> TrainingStageConfig:
        """Return the section of a training stage."""
        name = stage.partition("@")[0].replace("-", "_")
        section: TrainingStageConfig = getattr(self, name)
        if stage == "finetune-multiview@scratch":
            return section.starting_from("scratch")
        if stage == "finetune-multiview@image-prior" and section.image_prior is not None:
            return section.starting_from(section.image_prior)
        return section

    @model_validator(mode="after")
    def _training_reads_what_encode_writes(self) -> Self:
        encoded = {(size.height, size.width) for size in self.encode.sizes}
        for stage in TRAINING_STAGES:
            if stage.startswith("finetune-multiview@"):
                continue  # reads orbits
            for phase in self.training(stage).phases:
                for size in phase.data.sizes:
                    if (size.height, size.width) not in encoded:
                        raise ValueError(
                            f"{stage}.phases: phase {phase.name} reads {size.height}x{size.width}, "
                            "which encode.sizes does not write"
                        )
        return self

    @model_validator(mode="after")
    def _high_quality_clips_are_chosen(self) -> Self:
        for stage in TRAINING_STAGES:
            for phase in self.training(stage).phases:
                if phase.data.tier == "high-quality" and self.filter.high_quality is None:
                    raise ValueError(
                        f"{stage}.phases: phase {phase.name} reads tier high-quality, but "
                        "filter.high_quality is not set"
                    )
        return self

    @model_validator(mode="after")
    def _training_starts_from_what_is_there(self) -> Self:
        for index, stage in enumerate(TRAINING_STAGES):
            start = self.training(stage).init_stage
            if start is not None and start not in TRAINING_STAGES[:index]:
                raise ValueError(f"{stage}.init={start} is no stage before {stage}")
        return self

    @model_validator(mode="after")
    def _what_is_derived_starts_from_what_is_made(self) -> Self:
        for stage in TRAINING_STAGES:
            start = self.training(stage).init_stage
            if start is None or not self.derive.plans(stage) or self.derive.plans(start):
                continue
            raise ValueError(
                f"{derive_key(stage)}=true, but {stage} starts from {start} and "
                f"{derive_key(start)}=false"
            )
        return self

    @model_validator(mode="after")
    def _multiview_reads_orbits(self) -> Self:
        size, num_views = self.orbits.size, self.orbits.camera.num_views
        for phase in self.finetune_multiview.phases:
            data = phase.data
            if data.sizes != (size,) or data.num_frames > num_views:
                raise ValueError(
                    f"finetune-multiview.phases: phase {phase.name} reads {data.num_frames} frames "
                    f"of {data.height}x{data.width}; orbits have {num_views} of "
                    f"{size.height}x{size.width}"
                )
        if self.finetune_multiview.image_prior is None:
            raise ValueError("finetune-multiview.image_prior is missing")
        return self

    @model_validator(mode="after")
    def _only_multiview_knows_the_camera(self) -> Self:
        for stage in TRAINING_STAGES:
            section = self.training(stage)
            is_other = not stage.startswith("finetune-multiview@")
            if is_other and (section.pose or section.image_prior is not None):
                raise ValueError(f"{stage}: only finetune-multiview has pose and image_prior")
        return self

    @model_validator(mode="after")
    def _adapters_are_trained_by_lora(self) -> Self:
        for stage in TRAINING_STAGES:
            is_lora = stage.startswith("lora@")
            if is_lora != (self.training(stage).adapter is not None):
                said = (
                    "lora.adapter is missing" if is_lora else f"{stage}.adapter: only lora has one"
                )
                raise ValueError(said)
        return self

    @model_validator(mode="after")
    def _the_decoder_sees_whole_latents(self) -> Self:
        section, factor = self.finetune_decoder, self.autoencoder.model.downsampling
        for name, side in (
            ("training.crop", section.training.crop),
            ("frames.size.height", section.frames.size.height),
            ("frames.size.width", section.frames.size.width),
        ):
            if side % factor:
                raise ValueError(
                    f"finetune-decoder.{name}={side} is not a multiple of {factor}, the "
                    "autoencoder's downsampling"
                )
        return self

    @model_validator(mode="after")
    def _last_frames_of_interpolation_have_an_embedding(self) -> Self:
        block = self.encode.block_frames
        for phase in self.finetune_interpolation.phases:
            spans = [(phase.data.num_frames - 1) * stride for stride in phase.data.frame_strides]
            if any(span % block for span in spans):
                raise ValueError(
                    f"finetune-interpolation.phases: windows of phase {phase.name} span {spans} "
                    f"frames, not multiples of encode.block_frames={block}: only first frames of "
                    "blocks have an embedding"
                )
        return self

    @model_validator(mode="after")
    def _evaluation_samples_what_was_trained(self) -> Self:
        sampling, trained = self.evaluate.sampling, self.finetune_i2v.phases[-1].data
        if (sampling.height, sampling.width) != (trained.height, trained.width):
            raise ValueError(
                f"evaluate.sampling.height x width={sampling.height}x{sampling.width} differs from "
                f"what the last phase of finetune-i2v trains on, {trained.height}x{trained.width}"
            )
        return self
