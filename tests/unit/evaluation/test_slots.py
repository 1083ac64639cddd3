import hashlib
import json
from pathlib import Path

import pytest
import torch
from onnx_files import channel_means
from patterns import pattern
from protocol_runs import SIZE, run_whole

from svd.errors import CheckpointError, ConfigError, IntegrityError, MissingInputError
from svd.evaluation.extractors.base import metric_name
from svd.evaluation.extractors.slots import load_picture_slot, load_video_slot
from svd.evaluation.protocols.catalogue import PROTOCOLS
from svd.evaluation.protocols.sources import TruthSource


def write_slot(folder: Path, content: bytes | None = None, **changes: object) -> Path:
    sees = changes.get("sees", "pictures")
    content = channel_means(4 if sees == "pictures" else 5) if content is None else content
    (folder / "net.onnx").write_bytes(content)
    card = {
        "name": "my-net",
        "sees": sees,
        "format": "onnx",
        "file": "net.onnx",
        "sha256": hashlib.sha256(content).hexdigest(),
        "kind": "official",
        "source": "here",
        "licence": "MIT",
        "dim": 3,
        "size": 32,
    }
    path = folder / "card.json"
    path.write_text(json.dumps(card | changes))
    return path


def test_a_picture_network_sees_normalised_squares(tmp_path: Path) -> None:
    embedder = load_picture_slot(write_slot(tmp_path))
    white = torch.full((2, 3, 40, 60), 255, dtype=torch.uint8)
    assert embedder.embed(white).tolist() == [[1, 1, 1]] * 2  # (1 - 0.5) / 0.5
    assert embedder.variant == "my-net/features/stretch32-aa"


def test_a_video_network_sees_the_stated_frames(tmp_path: Path) -> None:
    path = write_slot(tmp_path, sees="videos", num_frames=4, mean=[0, 0, 0], std=[1, 1, 1])
    extractor = load_video_slot(path, source_frames=6)
    video = pattern(6, 32, 32)
    expected = video[:4].float().mean(dim=(0, 2, 3)) / 255
    assert extractor.extract(video[None])[0].tolist() == pytest.approx(expected.tolist(), abs=1e-5)
    assert "/4f/s1/" in extractor.variant


def test_what_a_user_brings_never_bears_an_official_name(tmp_path: Path) -> None:
    card = load_picture_slot(write_slot(tmp_path)).card
    assert not card.publishable
    assert metric_name("CLIP-S", "cosine", card) == "cosine[my-net]"


@pytest.mark.parametrize(
    ("changes", "error", "reason"),
    [
        ({"sha256": "0" * 64}, IntegrityError, "its card says"),
        ({"file": "other.onnx"}, MissingInputError, "other.onnx"),
        ({"content": b"junk"}, CheckpointError, "not an ONNX graph"),
        ({"dim": 4}, ConfigError, "its card says 4"),
        ({"sees": "videos"}, ConfigError, "sees videos, not pictures"),
        ({"colour": 1}, IntegrityError, "not a SlotCard"),
        ({"format": "open-clip"}, IntegrityError, "needs `architecture`"),
    ],
    ids=["hash", "no file", "junk", "dim", "wrong kind", "unknown key", "no architecture"],
)
def test_a_bad_slot_is_refused_with_a_reason(
    changes: dict[str, object], error: type[Exception], reason: str, tmp_path: Path
) -> None:
    with pytest.raises(error, match=reason):
        load_picture_slot(write_slot(tmp_path, **changes)).embed(pattern(1, 32, 32))


def test_a_missing_card_is_named(tmp_path: Path) -> None:
    with pytest.raises(MissingInputError, match=r"none\.json: no such card"):
        load_picture_slot(tmp_path / "none.json")


def test_an_open_clip_tower_is_an_embedder(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    from svd.config.model import ImageEncoderConfig
    from svd.models.networks.image_encoder import ImageEncoder

    config = ImageEncoderConfig(kind="open-clip", architecture="RN50-none", image_size=224)
    with pytest.raises(ConfigError):
        ImageEncoder(config)
    config = ImageEncoderConfig(kind="open-clip", architecture="ViT-S-32-alt", image_size=224)
    tower = ImageEncoder(config)
    weights = {f"visual.{name}": value for name, value in tower.visual.state_dict().items()}
    save_file({name: value.contiguous() for name, value in weights.items()}, tmp_path / "a.st")
    content = (tmp_path / "a.st").read_bytes()
    path = write_slot(
        tmp_path,
        format="open-clip",
        file="a.st",
        sha256=hashlib.sha256(content).hexdigest(),
        architecture="ViT-S-32-alt",
        size=224,
        dim=tower.token_dim,
    )
    embeds = load_picture_slot(path).embed(pattern(2, 64, 80))
    assert embeds.shape == (2, tower.token_dim)


def test_ucf101s_inception_score_exists_only_by_the_classifier_that_was_brought(
    tmp_path: Path,
) -> None:
    data = tmp_path / "data"
    PROTOCOLS["ucf101-generation"].card.dataset.write_small(data, 8)
    without = run_whole("ucf101-generation", data, tmp_path / "none", TruthSource(SIZE))
    assert not [one.name for one in without.records if one.name.startswith("IS")]
    card = write_slot(tmp_path, sees="videos", num_frames=6, name="c3d", layer="logits3")
    out = tmp_path / "with"
    report = run_whole("ucf101-generation", data, out, TruthSource(SIZE), classifier=card)
    found = next(one for one in report.records if one.name.startswith("IS"))
    assert found.name == "IS[c3d]"
    assert found.num == report.num_measured
    assert "c3d/logits3" in found.variant
    assert 1 <= found.value <= 3
