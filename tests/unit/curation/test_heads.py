"""Published heads on published embeddings; they lie in weights/ or the tests are skipped."""

from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_models import CLIP, save_open_clip

from svd.config.annotation_models import ClipModelConfig, HeadName
from svd.config.curation import AnnotateConfig, ModelsConfig
from svd.curation.annotate.heads import PUBLISHED, VIT_L_14, Head, load_head
from svd.curation.annotate.weights import find_weights
from svd.errors import IntegrityError, MissingInputError
from svd.runtime.fingerprint import file_sha256

WEIGHTS = Path(__file__).parents[3] / "weights"
# Of the embeddings that the LAION repository ships: CLIP's, for pictures rated 0 to 9.
LAION_B32 = [-1.5, 0.3, 2.0, 3.6, 5.1, 6.4, 7.7, 8.9, 9.9, 11.0]


def file_of(name: HeadName) -> Path:
    head = PUBLISHED[name]
    for path in WEIGHTS.rglob("*"):
        has_size = path.is_file() and path.stat().st_size == head.size_bytes
        if has_size and file_sha256(path) == head.sha256:
            return path
    pytest.skip(f"{name} is not below {WEIGHTS}; docs/curation/annotations.md says where it is")


def embeddings(tower: str) -> np.ndarray:
    files = sorted(WEIGHTS.rglob(f"{tower}_embeddings/rating*.npy"))
    if len(files) != 10:
        pytest.skip(f"{tower}_embeddings of LAION's repository are not below {WEIGHTS}")
    return np.stack([np.load(file).reshape(-1) for file in files]).astype(np.float32)


def test_the_laion_head_gives_its_published_scores() -> None:
    head = load_head(PUBLISHED["laion-v1-b32"], file_of("laion-v1-b32"))
    np.testing.assert_allclose(head.score(embeddings("vit_b_32")), LAION_B32, atol=0.06)


@pytest.mark.parametrize("name", ["laion-v1-l14", "improved-aesthetic-l14"])
def test_better_rated_pictures_score_higher(name: HeadName) -> None:
    scores = load_head(PUBLISHED[name], file_of(name)).score(embeddings("vit_l_14"))
    assert (np.diff(scores) > 0).all()


def test_a_folded_head_is_the_published_network() -> None:
    path = file_of("improved-aesthetic-l14")
    state = torch.load(path, weights_only=True, map_location="cpu")
    network = torch.nn.Sequential(  # as its repository builds it
        torch.nn.Linear(768, 1024),
        torch.nn.Dropout(0.2),
        torch.nn.Linear(1024, 128),
        torch.nn.Dropout(0.2),
        torch.nn.Linear(128, 64),
        torch.nn.Dropout(0.1),
        torch.nn.Linear(64, 16),
        torch.nn.Linear(16, 1),
    ).eval()
    network.load_state_dict({name.removeprefix("layers."): value for name, value in state.items()})
    given = 7 * embeddings("vit_l_14")  # of any length: the head reads the direction
    with torch.no_grad():
        rows = torch.from_numpy(given)
        wanted = network(rows / rows.norm(dim=1, keepdim=True))[:, 0].numpy()
    head = load_head(PUBLISHED["improved-aesthetic-l14"], path)
    np.testing.assert_allclose(head.score(given), wanted, atol=1e-4)


@pytest.mark.parametrize("name", ["watermark-l14", "nsfw-l14"])
def test_stamps_and_nudity_are_probabilities(name: HeadName) -> None:
    path = file_of(name)
    scores = load_head(PUBLISHED[name], path).score(10 * embeddings("vit_l_14"))
    with np.load(path) as arrays:
        logits = 10 * embeddings("vit_l_14") @ arrays["weights"].reshape(-1) + arrays["biases"]
    np.testing.assert_allclose(scores, 1 / (1 + np.exp(-logits)), atol=1e-5)
    assert scores.min() > 0
    assert scores.max() < 1


def test_only_aesthetic_heads_read_the_direction_alone() -> None:
    weight = np.array([1.0, 0.0], dtype=np.float32)
    rows = np.array([[3.0, 4.0]], dtype=np.float32)
    aesthetic = Head(PUBLISHED["laion-v1-l14"], weight, 0.0)
    watermark = Head(PUBLISHED["watermark-l14"], weight, 0.0)
    assert aesthetic.score(rows)[0] == pytest.approx(0.6)
    assert watermark.score(rows)[0] == pytest.approx(1 / (1 + np.exp(-3)))


def config_with(head: HeadName) -> AnnotateConfig:
    clip = ClipModelConfig(folder="weights/clip", heads=(head,))
    return AnnotateConfig(models=ModelsConfig(clip=clip))


def test_a_head_refuses_another_clips_embedding(tmp_path: Path) -> None:
    save_open_clip(tmp_path / "weights" / "clip", CLIP)
    with pytest.raises(IntegrityError, match=r"reads embeddings of OpenAI ViT-L/14, but .* \(16,"):
        find_weights(config_with("nsfw-l14"), tmp_path)


def test_a_missing_head_says_where_it_is_published(tmp_path: Path) -> None:
    folder = tmp_path / "weights" / "clip"
    folder.mkdir(parents=True)
    _, embed_dim, width, layers, patch_size = VIT_L_14
    vision = f'{{"width": {width}, "layers": {layers}, "patch_size": {patch_size}}}'
    (folder / "open_clip_config.json").write_text(
        f'{{"model_cfg": {{"embed_dim": {embed_dim}, "vision_cfg": {vision}}}}}'
    )
    (tmp_path / "weights" / "w_head_v1.npz").write_bytes(bytes(3588))  # right size, wrong bytes
    with pytest.raises(MissingInputError, match=r"nowhere below .*/raw/0ad7de9a.*w_head_v1.npz"):
        find_weights(config_with("watermark-l14"), tmp_path)
