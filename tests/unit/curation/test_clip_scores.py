from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
from filming import texture
from tiny_models import CLIP, save_open_clip

from svd.curation.annotate.clip_scores import (
    ClipScorer,
    Subject,
    decode_embedding,
    encode_embedding,
)
from svd.curation.annotate.embedding_pairs import similar_pairs
from svd.curation.annotate.heads import PUBLISHED, Head
from svd.curation.annotate.pictures import to_image
from svd.curation.annotate.weights import Weights
from svd.types.annotation import Caption, CaptionSource, Scorer

PICTURES = [texture(seed, 128, 72) for seed in range(6)]
RANDOM = np.random.default_rng(0).normal(size=16).astype(np.float32)
HEADS = (Head(PUBLISHED["laion-v1-l14"], RANDOM, 5.0), Head(PUBLISHED["nsfw-l14"], RANDOM, 0.0))


def caption(text: str, source: CaptionSource = "measured") -> Caption:
    return Caption(text=text, source=source, scorer=Scorer(name="me", version="1", settings={}))


CAPTIONS = [caption("a cat on a mat"), caption("something blue", "image-model")]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_open_clip(tmp_path_factory.mktemp("weights") / "clip", CLIP)


@pytest.fixture(scope="module")
def scorer(folder: Path) -> ClipScorer:
    return ClipScorer(Weights(folder, "sha256:0"), HEADS, "cpu", batch_size=4)


@pytest.fixture(scope="module")
def cosines(folder: Path) -> np.ndarray:
    """What open_clip itself says: (pictures, captions)."""
    network, _, preprocess = open_clip.create_model_and_transforms(f"local-dir:{folder}")
    tokens = open_clip.get_tokenizer(f"local-dir:{folder}")([one.text for one in CAPTIONS])
    with torch.no_grad():
        pixels = torch.stack([preprocess(to_image(picture)) for picture in PICTURES])
        images = network.eval().encode_image(pixels, normalize=True)
        return (images @ network.encode_text(tokens, normalize=True).T).numpy()


def test_similarity_is_the_mean_over_frames_and_captions(
    scorer: ClipScorer, cosines: np.ndarray
) -> None:
    scores = scorer.measure([Subject(PICTURES[:3], CAPTIONS)])[0].measured.scores
    assert scores["similarity"] == pytest.approx(cosines[:3].mean(), abs=1e-5)
    assert scores["similarity_min"] == pytest.approx(cosines[:3].min(), abs=1e-5)
    assert scores["similarity_measured"] == pytest.approx(cosines[:3, 0].mean(), abs=1e-5)
    assert scores["similarity_image_model"] == pytest.approx(cosines[:3, 1].mean(), abs=1e-5)


def test_beauty_is_a_mean_and_nudity_a_maximum_over_the_frames(scorer: ClipScorer) -> None:
    together = scorer.measure([Subject(PICTURES[:3], [])])[0].measured.scores
    alone = [scorer.measure([Subject([p], [])])[0].measured.scores for p in PICTURES[:3]]
    assert together["aesthetic"] == pytest.approx(np.mean([s["aesthetic"] for s in alone]))
    assert together["nsfw"] == pytest.approx(max(s["nsfw"] for s in alone))


def test_a_clip_scores_the_same_in_any_batch(scorer: ClipScorer) -> None:
    subjects = [Subject(PICTURES[:3], CAPTIONS), Subject(PICTURES[3:5], CAPTIONS[:1])]
    batched = scorer.measure(subjects)
    for one, subject in zip(batched, subjects, strict=True):
        alone = scorer.measure([subject])[0].measured.scores
        assert one.measured.scores == pytest.approx(alone, abs=1e-5)


def test_a_clip_without_frames_says_so_among_others(scorer: ClipScorer) -> None:
    without, with_ = scorer.measure([Subject([], CAPTIONS), Subject(PICTURES[:1], [])])
    assert without.measured.missing["similarity"] == "no sampled frame"
    assert without.measured.missing["aesthetic"] == "no sampled frame"
    assert (without.measured.scores, without.embedding) == ({}, None)
    assert set(with_.measured.scores) == {"aesthetic", "nsfw"}


def test_the_scorer_names_its_weights_and_heads(scorer: ClipScorer) -> None:
    assert scorer.scorer.version == "sha256:0"
    assert scorer.scorer.settings["aesthetic_head"] == "laion-v1-l14"


def test_embeddings_survive_being_written(scorer: ClipScorer) -> None:
    text = scorer.measure([Subject(PICTURES[:3], [])])[0].embedding
    assert text is not None
    embedding = decode_embedding(text)
    assert np.linalg.norm(embedding) == pytest.approx(1, abs=2e-3)
    assert encode_embedding(embedding) == text


def test_the_pairs_are_those_of_all_with_all() -> None:
    generator = np.random.default_rng(3)
    rows = generator.normal(size=(60, 8)).astype(np.float32)
    rows[30:] = rows[:30] + 0.12 * generator.normal(size=(30, 8))
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    found = similar_pairs(
        {f"{index:02d}": row for index, row in enumerate(rows)}, min_similarity=0.98
    )
    near = np.argwhere(np.triu(rows @ rows.T >= 0.98, k=1))
    assert set(found) == {(f"{a:02d}", f"{b:02d}") for a, b in near}
    assert len(near) > 15


def test_no_embeddings_no_pairs() -> None:
    assert list(similar_pairs({}, min_similarity=0.9)) == []
