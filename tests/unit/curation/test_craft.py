import pickle
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from filming import texture
from safetensors.torch import save_file

from svd.config.annotation_models import CraftConfig
from svd.curation.annotate.craft import CraftScorer, find_boxes
from svd.curation.annotate.craft_network import Craft
from svd.curation.annotate.weights import Weights
from svd.errors import CheckpointError

CONFIG = CraftConfig(file="craft.pth", enlarge=1.0)


@pytest.fixture(scope="module")
def network() -> Craft:
    torch.manual_seed(0)
    return Craft().eval()


@pytest.fixture(scope="module")
def scorer(network: Craft, tmp_path_factory: pytest.TempPathFactory) -> CraftScorer:
    """CRAFT from a file as its authors publish it: names begin with "module."."""
    path = tmp_path_factory.mktemp("weights") / "craft_mlt_25k.pth"
    torch.save({f"module.{name}": value for name, value in network.state_dict().items()}, path)
    return CraftScorer(CONFIG, Weights(path, "sha256:0"), "cpu")


def test_the_network_is_the_published_one(network: Craft) -> None:
    assert sum(parameter.numel() for parameter in network.parameters()) == 20_770_466
    names = set(network.state_dict())
    assert {
        "basenet.slice1.0.weight",
        "basenet.slice4.37.weight",
        "basenet.slice5.2.bias",
        "upconv1.conv.0.weight",
        "upconv4.conv.4.running_var",
        "conv_cls.8.weight",
    } <= names


def test_scores_come_at_half_the_size(network: Craft) -> None:
    with torch.inference_mode():
        assert network(torch.zeros(1, 3, 64, 96)).shape == (1, 2, 32, 48)


def test_the_authors_file_loads_and_runs(scorer: CraftScorer, network: Craft) -> None:
    picture = texture(1, 100, 60)  # no multiples of 32
    area = scorer.measure([[picture], []])
    assert 0 <= area[0].scores["area"] <= 1
    assert area[1].missing == {"area": "no sampled frame"}
    loaded = scorer._network.state_dict()
    assert all(torch.equal(loaded[name], value) for name, value in network.state_dict().items())


def test_safetensors_load_likewise(network: Craft, tmp_path: Path) -> None:
    path = tmp_path / "craft.safetensors"
    save_file(network.state_dict(), path)
    other = CraftScorer(CONFIG, Weights(path, "sha256:0"), "cpu")
    assert other.detect([texture(1, 64, 64)]) is not None


def test_what_is_no_weights_file_is_refused_and_never_run(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple:
            return Path.touch, (tmp_path / "ran",)

    for name, data in (("evil.pth", pickle.dumps(Evil())), ("short.pth", b"PK\x03\x04 no")):
        path = tmp_path / name
        path.write_bytes(data)
        with pytest.raises(CheckpointError, match="not weights of a Craft"):
            CraftScorer(CONFIG, Weights(path, "sha256:0"), "cpu").detect([texture(1, 64, 64)])
    torch.save({"module.other": torch.zeros(1)}, tmp_path / "other.pth")
    with pytest.raises(CheckpointError, match="not weights of a Craft"):
        CraftScorer(CONFIG, Weights(tmp_path / "other.pth", "sha256:0"), "cpu").detect(
            [texture(1, 64, 64)]
        )
    assert not (tmp_path / "ran").exists()


def maps(*words: tuple[int, int, int], angle: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """Score maps 160 x 240 of words (x, y of the first character, number of characters)."""
    region = np.zeros((160, 240), dtype=np.float32)
    affinity = np.zeros_like(region)
    y, x = np.mgrid[0:160, 0:240]
    step = np.array([np.cos(angle), np.sin(angle)]) * 12
    for left, top, count in words:
        for index in range(count):
            for offset, target in ((0.0, region), (0.5, affinity)):
                if offset and index == count - 1:
                    continue
                centre = np.array([left, top]) + step * (index + offset)
                blob = np.exp(-((x - centre[0]) ** 2 + (y - centre[1]) ** 2) / (2 * 4.0**2))
                np.maximum(target, blob.astype(np.float32), out=target)
    return region, affinity


def test_linked_characters_are_one_box_and_words_apart_are_two() -> None:
    boxes = find_boxes(*maps((40, 40, 6), (60, 110, 3)), CONFIG)
    assert len(boxes) == 2
    widths = sorted(float(np.ptp(box[:, 0])) for box in boxes)
    assert widths[0] == pytest.approx(2 * 12 + 16, abs=6)
    assert widths[1] == pytest.approx(5 * 12 + 16, abs=6)


def test_slanted_words_have_slanted_boxes() -> None:
    (box,) = find_boxes(*maps((60, 40, 7), angle=0.5), CONFIG)
    (_, _), (first, second), _ = cv2.minAreaRect(box)
    assert max(first, second) == pytest.approx(6 * 12 + 16, abs=8)
    assert min(first, second) < 26


def test_weak_and_tiny_blobs_are_no_text() -> None:
    region, affinity = maps((100, 80, 4))
    assert find_boxes(0.65 * region, affinity, CONFIG) == []  # no pixel reaches text_threshold
    speck = np.zeros_like(region)
    speck[10:12, 10:13] = 1.0
    assert find_boxes(speck, np.zeros_like(region), CONFIG) == []


def test_boxes_stay_inside_the_picture() -> None:
    for box in find_boxes(*maps((2, 2, 4), (200, 157, 6)), CONFIG):
        assert box.min() >= 0
        assert (box.max(axis=0) <= (240, 160)).all()
