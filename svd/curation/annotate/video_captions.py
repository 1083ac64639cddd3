"""A caption of the clip by a vision-language model, for what happens (SVD, appendix C.2)."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from svd.config.annotation_models import VideoCaptionConfig
from svd.curation.annotate.pictures import to_image
from svd.curation.annotate.transformers_folder import load_folder
from svd.curation.annotate.weights import Weights
from svd.types.annotation import Scorer

if TYPE_CHECKING:
    from PIL.Image import Image


@dataclass(frozen=True)
class VideoCaptioner:
    """A model of transformers that takes a video, or several pictures, and a question.

    It loads at the first clip.
    """

    config: VideoCaptionConfig
    weights: Weights
    device: str

    @cached_property
    def scorer(self) -> Scorer:
        """Name, version and settings; the version is the hash of the weights."""
        return Scorer(
            name="video-captioner",
            version=self.weights.version,
            settings=self.config.model_dump(),
        )

    def describe(self, clips: Sequence[Sequence[np.ndarray]]) -> list[str]:
        """Return what the model says of each clip's sampled BGR frames; "" if it says nothing."""
        import torch

        network, processor = self._model
        shown = [self._spread(pictures) for pictures in clips]
        takes_video = getattr(processor, "video_processor", None) is not None
        visual = {"videos": shown, "do_sample_frames": False} if takes_video else {"images": shown}
        inputs = processor(
            text=[
                self._question(processor, ["video"] if takes_video else ["image"] * len(images))
                for images in shown
            ],
            **visual,
            padding=True,
            return_tensors="pt",
        ).to(self.device)
        with torch.inference_mode():
            tokens = network.generate(
                **inputs, max_new_tokens=self.config.max_tokens, do_sample=False
            )
        answers = tokens[:, inputs["input_ids"].shape[1] :]
        said = processor.batch_decode(answers, skip_special_tokens=True)
        return [" ".join(text.split()) for text in said]

    def _spread(self, pictures: Sequence[np.ndarray]) -> "list[Image]":
        count = min(self.config.num_frames, len(pictures))
        places = np.linspace(0, len(pictures) - 1, count).round().astype(int).tolist()
        return [to_image(pictures[place]) for place in places]

    def _question(self, processor: Any, seen: list[str]) -> str:
        content = [*({"type": kind} for kind in seen), {"type": "text", "text": self.config.prompt}]
        chat = [{"role": "user", "content": content}]
        return str(processor.apply_chat_template(chat, add_generation_prompt=True))

    @cached_property
    def _model(self) -> tuple[Any, Any]:
        """The network and its processor."""
        from transformers import AutoModelForImageTextToText, AutoProcessor

        network = load_folder(AutoModelForImageTextToText, self.weights.path)
        processor = load_folder(AutoProcessor, self.weights.path)
        processor.tokenizer.padding_side = "left"  # answers begin where questions end
        return network.to(self.device).eval(), processor
