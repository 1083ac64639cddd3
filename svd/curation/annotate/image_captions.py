"""A caption of the middle frame by CoCa, for what is seen (SVD, appendix C.2)."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from svd.config.annotation_models import ImageCaptionConfig
from svd.curation.annotate.beam_search import search
from svd.curation.annotate.pictures import to_image
from svd.curation.annotate.weights import Weights
from svd.types.annotation import Scorer

_START, _END = 49406, 49407  # of CLIP's byte-pair vocabulary, which CoCa uses
_MIN_TOKENS = 5  # with the start; open_clip's own default


@dataclass(frozen=True)
class ImageCaptioner:
    """CoCa, from a folder in open_clip's format; it loads at the first picture."""

    config: ImageCaptionConfig
    weights: Weights
    device: str

    @cached_property
    def scorer(self) -> Scorer:
        """Name, version and settings; the version is the hash of the weights."""
        return Scorer(name="coca", version=self.weights.version, settings=self.config.model_dump())

    def describe(self, pictures: Sequence[np.ndarray]) -> list[str]:
        """Return the most likely caption of each BGR picture; "" if the model says nothing.

        The search is ours: open_clip's leans on parts of transformers that are gone.
        """
        import torch
        from open_clip import decode

        network, preprocess = self._model
        device = self.device
        with torch.inference_mode():
            pixels = torch.stack([preprocess(to_image(picture)) for picture in pictures]).to(device)
            latents, tokens = network._encode_image(pixels)

            def next_scores(questions: list[int], beginnings: list[list[int]]) -> np.ndarray:
                logits = network(
                    pixels[questions],
                    torch.tensor(beginnings, device=device),
                    image_latent=latents[questions],
                    image_embs=tokens[questions],
                    output_labels=False,
                )["logits"][:, -1]
                return np.asarray(logits.float().log_softmax(dim=-1).cpu().numpy())

            found = search(
                next_scores,
                num_questions=len(pictures),
                start=_START,
                end=_END,
                num_beams=self.config.num_beams,
                min_tokens=_MIN_TOKENS,
                max_tokens=self.config.max_tokens,
            )
        return [" ".join(decode(torch.tensor(one[1:-1])).split()) for one in found]

    @cached_property
    def _model(self) -> tuple[Any, Any]:
        """The network and its preprocessing (PIL image -> tensor)."""
        import open_clip

        network, _, preprocess = open_clip.create_model_and_transforms(
            f"local-dir:{self.weights.path}", device=self.device
        )
        return network.eval(), preprocess
