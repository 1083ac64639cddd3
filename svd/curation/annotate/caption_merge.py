"""One caption out of two, by a language model (SVD, appendix C.2).

The paper names neither the model nor the prompt; the prompt is ours.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol, runtime_checkable

from svd.config.annotation_models import MergeCaptionConfig
from svd.curation.annotate.transformers_folder import load_folder
from svd.curation.annotate.weights import Weights
from svd.errors import StoreError
from svd.runtime.endpoint import Endpoint
from svd.types.annotation import Scorer

_NAME = "caption-merger"
_PROMPT = (
    "Two captions describe the same video. The first knows what is seen, the second knows what "
    "happens. Write one caption of one or two sentences that says both, adds nothing, and "
    "contains no preamble.\nFirst: {image}\nSecond: {video}\nCaption:"
)


def merge_prompt(image: str, video: str) -> str:
    """Return what the language model is asked about an image and a video caption."""
    return _PROMPT.format(image=image, video=video)


@dataclass(frozen=True, slots=True)
class NoAnswer:
    """Why there is no text."""

    reason: str


@runtime_checkable
class Merger(Protocol):
    """Answers prompts, always with the same words."""

    @property
    def scorer(self) -> Scorer:
        """Name, version and settings."""

    def complete(self, prompts: Sequence[str]) -> "list[str | NoAnswer]":
        """Return what the model writes to each prompt."""


def build_merger(config: MergeCaptionConfig, weights: Weights | None, device: str) -> Merger:
    """Return the language model of a recipe; an endpoint has no weights here."""
    if weights is None:
        return EndpointMerger(config)
    return LocalMerger(config, weights, device)


@dataclass(frozen=True)
class LocalMerger:
    """A causal language model of transformers, from a folder; it loads at the first prompt."""

    config: MergeCaptionConfig
    weights: Weights
    device: str

    @cached_property
    def scorer(self) -> Scorer:
        """Name, version and settings; the version is the hash of the weights."""
        return Scorer(name=_NAME, version=self.weights.version, settings=_settings(self.config))

    def complete(self, prompts: Sequence[str]) -> list[str | NoAnswer]:
        """Return the most likely continuations, as a chat's answers where the model chats."""
        import torch

        network, tokenizer = self._model
        asked = [_as_chat(tokenizer, prompt) for prompt in prompts]
        inputs = tokenizer(asked, return_tensors="pt", padding=True).to(self.device)
        with torch.inference_mode():
            tokens = network.generate(
                inputs["input_ids"],
                attention_mask=inputs["attention_mask"],
                max_new_tokens=self.config.max_tokens,
                do_sample=False,
                pad_token_id=tokenizer.pad_token_id,
            )
        answers = tokens[:, inputs["input_ids"].shape[1] :]
        return [_answer(text) for text in tokenizer.batch_decode(answers, skip_special_tokens=True)]

    @cached_property
    def _model(self) -> tuple[Any, Any]:
        """The network and its tokenizer."""
        from transformers import AutoModelForCausalLM, AutoTokenizer

        folder, file = self.weights.path, self.config.gguf_file
        network = load_folder(AutoModelForCausalLM, folder, gguf_file=file)
        tokenizer = load_folder(AutoTokenizer, folder, gguf_file=file, padding_side="left")
        if tokenizer.pad_token is None:
            tokenizer.pad_token = tokenizer.eos_token
        return network.to(self.device).eval(), tokenizer


@dataclass(frozen=True)
class EndpointMerger:
    """A language model behind any endpoint with OpenAI's interface."""

    config: MergeCaptionConfig

    @property
    def scorer(self) -> Scorer:
        """Name, version and settings; an endpoint does not tell the version of its model."""
        version = f"endpoint:{self.config.model}"
        return Scorer(name=_NAME, version=version, settings=_settings(self.config))

    def complete(self, prompts: Sequence[str]) -> list[str | NoAnswer]:
        """Ask the endpoint, at temperature 0; one that fails costs a caption, not the stage."""
        endpoint = Endpoint(
            url=f"{str(self.config.endpoint).rstrip('/')}/chat/completions",
            key_variable=self.config.api_key_variable,
            timeout_s=self.config.timeout_s,
            max_attempts=self.config.max_attempts,
        )
        return [self._ask(endpoint, prompt) for prompt in prompts]

    def _ask(self, endpoint: Endpoint, prompt: str) -> str | NoAnswer:
        body = {
            "model": self.config.model,
            "messages": [{"role": "user", "content": prompt}],
            "max_tokens": self.config.max_tokens,
            "temperature": 0,
            "seed": 0,
        }
        try:
            return _answer(endpoint.post(body)["choices"][0]["message"]["content"])
        except StoreError as err:
            return NoAnswer(str(err))
        except (KeyError, IndexError, TypeError):
            return NoAnswer(f"{endpoint.url} answered without a completion")


def _settings(config: MergeCaptionConfig) -> dict[str, int | float | str | bool]:
    return config.model_dump(exclude_none=True) | {"prompt": _PROMPT}


def _as_chat(tokenizer: Any, prompt: str) -> str:
    if tokenizer.chat_template is None:
        return prompt
    chat = [{"role": "user", "content": prompt}]
    return str(tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True))


def _answer(text: object) -> str | NoAnswer:
    words = str(text or "").split()
    return " ".join(words) if words else NoAnswer("the model said nothing")
