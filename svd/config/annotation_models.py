"""The networks that annotate clips: which files, and how they are asked.

Paths are below the project's root; docs/curation/annotations.md says where weights come from.
"""

from typing import Literal, Self

from pydantic import Field, model_validator

from svd.config.base import Section

HeadName = Literal[
    "laion-v1-b32", "laion-v1-l14", "improved-aesthetic-l14", "watermark-l14", "nsfw-l14"
]


class ClipModelConfig(Section):
    """CLIP, and the published heads that read its image embedding."""

    folder: str = Field(min_length=1)  # open_clip_config.json and weights, as hubs serve them
    heads: tuple[HeadName, ...] = ()  # found below annotate.models.weights by their hash


class CraftConfig(Section):
    """CRAFT, the paper's text detector (appendix C.5), with its authors' settings."""

    file: str = Field(min_length=1)  # craft_mlt_25k.pth, or a safetensors copy
    long_side_px: int = Field(default=1280, ge=64)  # of the picture it sees, at most
    enlarge: float = Field(default=1.5, ge=1)  # of a smaller picture
    text_threshold: float = Field(default=0.7, gt=0, lt=1)  # a box's best pixel
    low_text: float = Field(default=0.4, gt=0, lt=1)  # pixels of a box
    link_threshold: float = Field(default=0.4, gt=0, lt=1)  # pixels between characters


class ImageCaptionConfig(Section):
    """CoCa on the middle frame (paper, appendix C.2)."""

    folder: str = Field(min_length=1)  # open_clip_config.json and weights
    max_tokens: int = Field(default=30, ge=8, le=76)  # open_clip's default
    num_beams: int = Field(default=6, ge=1)  # open_clip's default


class VideoCaptionConfig(Section):
    """A vision-language model of transformers on frames of the clip (the paper: VideoBLIP)."""

    folder: str = Field(min_length=1)  # model and processor as save_pretrained writes them
    prompt: str = "Describe in one sentence what happens in this video."
    num_frames: int = Field(default=8, ge=2, le=64)  # spread evenly over the clip
    max_tokens: int = Field(default=60, ge=8)


class MergeCaptionConfig(Section):
    """A language model that makes one caption of two (paper, appendix C.2)."""

    kind: Literal["transformers", "openai"]  # openai: any endpoint with that interface
    model: str = Field(min_length=1)  # folder below the root; or the endpoint's name of the model
    endpoint: str | None = None  # e.g. "http://localhost:8000/v1"; of kind openai
    api_key_variable: str | None = None  # environment variable that holds the key, if one is needed
    gguf_file: str | None = None  # file in the folder, for quantised weights; of kind transformers
    max_tokens: int = Field(default=60, ge=8)
    timeout_s: float = Field(default=60.0, gt=0)  # per caption; of kind openai
    max_attempts: int = Field(default=3, ge=1, le=10)  # per caption; of kind openai

    @model_validator(mode="after")
    def _keys_fit_the_kind(self) -> Self:
        if (self.kind == "openai") != (self.endpoint is not None):
            raise ValueError("endpoint belongs to kind openai, and only to it")
        if self.kind == "openai" and self.gguf_file is not None:
            raise ValueError("gguf_file belongs to kind transformers")
        return self


class CaptionConfig(Section):
    """Who describes a clip, besides what was measured, which is always said."""

    image: ImageCaptionConfig | None = None  # None: not run, like the next two
    video: VideoCaptionConfig | None = None
    merge: MergeCaptionConfig | None = None

    @model_validator(mode="after")
    def _merges_two(self) -> Self:
        if self.merge is not None and (self.image is None or self.video is None):
            raise ValueError("captions.merge needs captions.image and captions.video")
        return self
