"""A prompt as context tokens: OpenCLIP's text tower, read before pooling."""

from collections.abc import Sequence
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor, nn

from svd.config.model import TextEncoderConfig
from svd.models.networks.tower import architecture_config, freeze, initial_values, load_tower

# What a CLIP checkpoint holds beside the tokens' path.
_UNREAD = ("visual.", "text_projection", "logit_scale", "logit_bias", "attn_mask")
_PREFIXES = (
    "conditioner.embedders.0.model.",  # sgm text-to-image checkpoints
    "cond_stage_model.model.",  # Stable Diffusion 2.1
    "text.",  # open_clip's CustomTextCLIP, and our own files
    "",  # open_clip's CLIP
)


class TextEncoder(nn.Module):
    """Frozen text tower without its last block, which the penultimate layer does not need.

    Its names are `text.*` with OpenCLIP's names behind the dot. Source of the layer: Stable
    Diffusion 2.1's config (penultimate), whose context the video model continues from.
    """

    def __init__(self, config: TextEncoderConfig) -> None:
        from open_clip.tokenizer import SimpleTokenizer
        from open_clip.transformer import TextTransformer

        super().__init__()
        self._tokenizer = SimpleTokenizer(context_length=config.context_length)
        sizes = _sizes(config)
        with initial_values(config.weights, config.seed):
            self.text = TextTransformer(
                **sizes,
                context_length=config.context_length,
                vocab_size=self._tokenizer.vocab_size,
                proj_type="none",
            )
        self._dropped = f"transformer.resblocks.{len(self.text.transformer.resblocks) - 1}."
        del self.text.transformer.resblocks[-1]
        if config.weights is not None:
            self.text.to_empty(device="cpu")
            self.text.attn_mask = self.text.build_causal_mask()  # no file holds it
            load_tower(self.text, Path(config.weights), prefixes=_PREFIXES, unread=self._is_unread)
        self.token_dim: int = sizes["width"]  # size of a context token
        freeze(self)

    def tokenize(self, texts: Sequence[str]) -> Tensor:
        """Return token ids "b s", zero-padded; a longer prompt is cut and still ends in EOT."""
        ids: Tensor = self._tokenizer(list(texts))
        return ids

    @torch.no_grad()
    def encode(self, texts: Sequence[str]) -> Float[Tensor, "b s d"]:
        """Return the tokens of each prompt after ln_final; "" is the unconditional prompt."""
        device = self.text.positional_embedding.device
        x, mask = self.text._embeds(self.tokenize(texts).to(device))
        tokens: Tensor = self.text.ln_final(self.text.transformer(x, attn_mask=mask))
        return tokens

    def _is_unread(self, name: str) -> bool:
        return name.startswith((*_UNREAD, self._dropped))


def _sizes(config: TextEncoderConfig) -> dict[str, int]:
    if config.kind == "tiny":
        return {"width": config.width, "heads": config.heads, "layers": config.layers}
    text = architecture_config(config.architecture)["text_cfg"]
    return {key: text[key] for key in ("width", "heads", "layers")}
