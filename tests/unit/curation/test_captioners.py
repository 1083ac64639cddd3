import itertools
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
from filming import texture
from tiny_models import (
    COCA,
    save_language_model,
    save_open_clip,
    save_picture_model,
    save_video_model,
)

from svd.config.annotation_models import (
    CaptionConfig,
    ImageCaptionConfig,
    MergeCaptionConfig,
    VideoCaptionConfig,
)
from svd.curation.annotate.beam_search import search
from svd.curation.annotate.captioners import Captioners
from svd.curation.annotate.image_captions import ImageCaptioner
from svd.curation.annotate.pictures import to_image
from svd.curation.annotate.video_captions import VideoCaptioner
from svd.curation.annotate.weights import ModelWeights, Weights

PICTURES = [texture(seed, 128, 72) for seed in range(5)]


def scores_of(table: np.ndarray):
    """A language model whose next token hangs on question, length and last token."""

    def next_scores(questions: list[int], beginnings: list[list[int]]) -> np.ndarray:
        length = len(beginnings[0])
        lasts = [tokens[-1] for tokens in beginnings]
        return np.stack([table[q, length, last] for q, last in zip(questions, lasts, strict=True)])

    return next_scores


@pytest.fixture
def table() -> np.ndarray:
    logits = np.random.default_rng(5).normal(size=(3, 8, 4, 4))  # question, length, last, next
    return logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))


def best_of_all(table: np.ndarray, question: int, *, min_tokens: int, max_tokens: int) -> list[int]:
    """Token 3 ends; every sequence from token 0 is tried."""
    found = []
    for length in range(min_tokens, max_tokens):
        for middle in itertools.product(range(3), repeat=length - 1):
            tokens = [0, *middle, 3]
            score = sum(
                table[question, n, a, b] for n, (a, b) in enumerate(itertools.pairwise(tokens), 1)
            )
            found.append((score / len(tokens), tokens))
    return max(found)[1]


def test_a_wide_beam_finds_the_best_sequence_of_every_question(table: np.ndarray) -> None:
    found = search(
        scores_of(table), num_questions=3, start=0, end=3, num_beams=200, min_tokens=2, max_tokens=6
    )
    assert found == [best_of_all(table, q, min_tokens=2, max_tokens=6) for q in range(3)]


def test_one_beam_takes_the_likeliest_token_each_time(table: np.ndarray) -> None:
    found = search(
        scores_of(table), num_questions=1, start=0, end=3, num_beams=1, min_tokens=4, max_tokens=7
    )[0]
    for length in range(1, len(found)):
        scores = table[0, length, found[length - 1]].copy()
        if length < 4:
            scores[3] = -np.inf
        assert found[length] == (3 if length == 6 else int(scores.argmax()))


def test_a_model_without_numbers_says_nothing() -> None:
    silent = scores_of(np.full((1, 9, 4, 4), np.nan))
    assert search(
        silent, num_questions=1, start=0, end=3, num_beams=2, min_tokens=2, max_tokens=8
    ) == [[0, 3]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("weights")
    save_open_clip(root / "coca", COCA)
    save_video_model(root / "video")
    save_picture_model(root / "pictures")
    save_language_model(root / "language")
    return root


def weights(folder: Path) -> Weights:
    return Weights(folder, "sha256:0")


def test_coca_with_one_beam_is_its_likeliest_next_token(folder: Path) -> None:
    config = ImageCaptionConfig(folder="coca", num_beams=1, max_tokens=8)
    said = ImageCaptioner(config, weights(folder / "coca"), "cpu").describe(PICTURES[:2])
    network, _, preprocess = open_clip.create_model_and_transforms(f"local-dir:{folder / 'coca'}")
    network.eval()
    for text, picture in zip(said, PICTURES, strict=False):
        pixels = preprocess(to_image(picture))[None]
        tokens = torch.tensor([[49406]])
        for _ in range(6):
            with torch.no_grad():
                logits = network(pixels, tokens, output_labels=False)["logits"][0, -1]
            logits[49407] = -torch.inf if tokens.shape[1] < 5 else logits[49407]
            tokens = torch.cat([tokens, logits.argmax()[None, None]], dim=1)
            if tokens[0, -1] == 49407:
                break
        wanted = open_clip.decode(tokens[0, 1:]).removesuffix("<end_of_text>")
        assert text == " ".join(wanted.split())


def test_coca_says_the_same_in_any_batch(folder: Path) -> None:
    config = ImageCaptionConfig(folder="coca", num_beams=3, max_tokens=8)
    captioner = ImageCaptioner(config, weights(folder / "coca"), "cpu")
    together = captioner.describe(PICTURES[:3])
    assert together == [captioner.describe([picture])[0] for picture in PICTURES[:3]]
    assert len(set(together)) == 3


@pytest.mark.parametrize("model", ["video", "pictures"])
def test_a_video_model_says_the_same_in_any_batch(folder: Path, model: str) -> None:
    config = VideoCaptionConfig(folder=model, num_frames=4, max_tokens=8)
    captioner = VideoCaptioner(config, weights(folder / model), "cpu")
    clips = [PICTURES, PICTURES[:2], PICTURES[3:]]
    together = captioner.describe(clips)
    assert together == [captioner.describe([clip])[0] for clip in clips]
    assert any(together)


def test_all_captioners_work_together(folder: Path) -> None:
    config = CaptionConfig(
        image=ImageCaptionConfig(folder="coca", max_tokens=8, num_beams=2),
        video=VideoCaptionConfig(folder="pictures", num_frames=2, max_tokens=8),
        merge=MergeCaptionConfig(kind="transformers", model="language", max_tokens=8),
    )
    found = Captioners(
        config,
        ModelWeights(
            image_captioner=weights(folder / "coca"),
            video_captioner=weights(folder / "pictures"),
            merger=weights(folder / "language"),
        ),
        "cpu",
    ).describe([PICTURES, []])
    assert list(found[0].captions) == ["image-model", "video-model", "merged"]
    names = [caption.scorer.name for caption in found[0].captions.values()]
    assert names == ["coca", "video-captioner", "caption-merger"]
    assert found[0].missing == {}
    assert found[1].captions == {}
    assert found[1].missing["captions.image-model"] == "no sampled frame"
    assert found[1].missing["captions.merged"].startswith("one of the two captions")
