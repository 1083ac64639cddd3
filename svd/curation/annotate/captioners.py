"""The captioners of a recipe, in the order in which they need each other."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from svd.config.annotation_models import CaptionConfig
from svd.curation.annotate.caption_merge import Merger, NoAnswer, build_merger, merge_prompt
from svd.curation.annotate.image_captions import ImageCaptioner
from svd.curation.annotate.video_captions import VideoCaptioner
from svd.curation.annotate.weights import ModelWeights
from svd.types.annotation import Caption, CaptionSource, Scorer

_NO_FRAME = NoAnswer("no sampled frame")
_NOTHING_TO_MERGE = NoAnswer("one of the two captions to merge is missing")


@dataclass(frozen=True, slots=True)
class Description:
    """What models say of one clip."""

    captions: dict[CaptionSource, Caption] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)  # "captions.<source>" -> why

    def add(self, source: CaptionSource, answer: str | NoAnswer, scorer: Scorer) -> None:
        """Take down an answer, or why there is none."""
        if isinstance(answer, NoAnswer):
            self.missing[f"captions.{source}"] = answer.reason
        elif answer:
            self.captions[source] = Caption(text=answer, source=source, scorer=scorer)
        else:
            self.missing[f"captions.{source}"] = "the model said nothing"


class Captioners:
    """CoCa on the middle frame, a video model on the clip, a language model on both."""

    def __init__(self, config: CaptionConfig, weights: ModelWeights, device: str) -> None:
        self._image: ImageCaptioner | None = None
        self._video: VideoCaptioner | None = None
        self._merge: Merger | None = None
        if config.image is not None and weights.image_captioner is not None:
            self._image = ImageCaptioner(config.image, weights.image_captioner, device)
        if config.video is not None and weights.video_captioner is not None:
            self._video = VideoCaptioner(config.video, weights.video_captioner, device)
        if config.merge is not None:
            self._merge = build_merger(config.merge, weights.merger, device)

    def describe(self, clips: Sequence[Sequence[np.ndarray]]) -> list[Description]:
        """Return the captions of clips, each given as its sampled BGR frames."""
        found = [Description() for _ in clips]
        filled = [index for index, pictures in enumerate(clips) if pictures]
        if self._image is not None:
            middles = [clips[index][len(clips[index]) // 2] for index in filled]
            answers = self._image.describe(middles) if middles else []
            _hand_out(found, filled, "image-model", answers, self._image.scorer)
        if self._video is not None:
            answers = self._video.describe([clips[index] for index in filled]) if filled else []
            _hand_out(found, filled, "video-model", answers, self._video.scorer)
        if self._merge is not None:
            self._merge_both(found, self._merge)
        return found

    def _merge_both(self, found: list[Description], merger: Merger) -> None:
        both = [
            index
            for index, one in enumerate(found)
            if {"image-model", "video-model"} <= one.captions.keys()
        ]
        prompts = [
            merge_prompt(
                found[index].captions["image-model"].text, found[index].captions["video-model"].text
            )
            for index in both
        ]
        answers = merger.complete(prompts) if prompts else []
        _hand_out(found, both, "merged", answers, merger.scorer, otherwise=_NOTHING_TO_MERGE)


def _hand_out(
    found: list[Description],
    indices: Sequence[int],
    source: CaptionSource,
    answers: Sequence[str | NoAnswer],
    scorer: Scorer,
    *,
    otherwise: NoAnswer = _NO_FRAME,
) -> None:
    """Give each description its answer; the clips that were not asked get the other one."""
    by_index = dict(zip(indices, answers, strict=True))
    for index, description in enumerate(found):
        description.add(source, by_index.get(index, otherwise), scorer)
