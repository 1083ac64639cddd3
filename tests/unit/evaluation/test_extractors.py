import os
import pickle
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from patterns import pattern
from torch.nn import functional

from svd.errors import ConfigError, IntegrityError
from svd.evaluation.extractors.base import OFFICIAL_NAMES, ExtractorCard, metric_name
from svd.evaluation.extractors.catalogue import CATALOGUE
from svd.evaluation.extractors.i3d import I3D, I3D_K400, I3DExtractor, same_padding
from svd.evaluation.extractors.inception import (
    INCEPTION_2015,
    Inception,
    InceptionEmbedder,
    resize_as_tensorflow,
)
from svd.evaluation.extractors.module_archive import read_module_archive
from svd.evaluation.extractors.prepare import VideoInput, frame_indices, prepare_video
from svd.evaluation.extractors.tiny import TinyPictureDistance, TinyVideoExtractor
from svd.models.critics.array_tree import flatten, read_array_tree
from svd.models.critics.lpips import LPIPS
from svd.models.critics.published import content_hash, find_weights, is_intact


def card(**changes: object) -> ExtractorCard:
    facts = {
        "name": "some-net",
        "kind": "port",
        "weights_sha256": I3D_K400.member_sha256,
        "source": "here",
        "licence": "MIT",
        "input": "anything",
        "dim": 8,
        "code_version": "1",
    }
    return ExtractorCard.model_validate(facts | changes)


def test_only_listed_weights_may_carry_an_official_name() -> None:
    assert card().publishable
    assert metric_name("FVD", "FD", card()) == "FVD"


@pytest.mark.parametrize(
    "changes",
    [{"weights_sha256": "0" * 64}, {"weights_sha256": None}, {"kind": "random"}, {"kind": "proxy"}],
    ids=["other weights", "no weights", "random", "proxy"],
)
def test_a_stand_in_never_carries_an_official_name(changes: dict[str, object]) -> None:
    assert not card(**changes).publishable
    assert metric_name("FVD", "FD", card(**changes)) == "FD[some-net]"


def test_a_published_network_carries_its_own_metrics_name_only() -> None:
    assert metric_name("FID", "FD", card()) == "FD[some-net]"
    inception = card(weights_sha256=INCEPTION_2015.member_sha256)
    assert metric_name("FID", "FD", inception) == "FID"
    assert metric_name("FVD", "FD", inception) == "FD[some-net]"


def test_publishable_cannot_be_declared() -> None:
    with pytest.raises(ValueError, match="publishable"):
        card(publishable=True)


@pytest.mark.parametrize(
    "extractor",
    [TinyVideoExtractor(num_frames=9, source_frames=9), TinyPictureDistance()],
    ids=["video", "picture"],
)
def test_random_networks_are_never_publishable(extractor: TinyVideoExtractor) -> None:
    assert not extractor.card.publishable
    assert extractor.card.facts()["publishable"] is False


def test_official_list_is_what_the_catalogue_can_fetch() -> None:
    assert {weights.member_sha256 for weights in CATALOGUE.values()} == set(OFFICIAL_NAMES)


class _Command:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, ("touch owned",)


@pytest.mark.parametrize(
    "content",
    [
        pickle.dumps({"a": _Command()}),
        pickle.dumps({"a": np.array([_Command()], dtype=object)}),
        pickle.dumps({"a": [1, 2]}),
        pickle.dumps({1: np.zeros(2)}),
        pickle.dumps({"a": np.zeros(3)})[:-20],
        b"",
        b"hello",
    ],
    ids=["command", "command in an array", "list", "number as key", "torn", "empty", "text"],
)
def test_a_pickle_of_anything_but_arrays_is_refused_and_not_run(
    content: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "weights.ckpt"
    path.write_bytes(content)
    with pytest.raises(IntegrityError):
        read_array_tree(path)
    assert not (tmp_path / "owned").exists()


def test_a_pickle_of_arrays_is_read(tmp_path: Path) -> None:
    path = tmp_path / "weights.ckpt"
    path.write_bytes(pickle.dumps({"a": {"b": np.arange(3.0)}, "c": np.ones(2, np.float32)}))
    flat = flatten(read_array_tree(path))
    assert sorted(flat) == [("a", "b"), ("c",)]
    assert flat["a", "b"].tolist() == [0, 1, 2]


def _scripted(module: torch.nn.Module, path: Path) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # TorchScript is deprecated; published files are of it
        torch.jit.script(module).save(str(path))
    return path


def test_the_tensors_of_a_torchscript_archive_are_read_without_its_program(tmp_path: Path) -> None:
    network = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.ReLU(), torch.nn.Linear(4, 2))
    flat = flatten(read_module_archive(_scripted(network, tmp_path / "net.pt")))
    expected = network.state_dict()
    assert {".".join(key) for key in flat} == set(expected)
    for key, array in flat.items():
        assert np.array_equal(array, expected[".".join(key)].numpy())


def _repacked(path: Path, change: Callable[[str, bytes], bytes]) -> Path:
    """Write an archive again, each member changed."""
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, change(name, data))
    return path


@pytest.mark.parametrize(
    ("member", "content"),
    [
        ("data.pkl", pickle.dumps({"a": _Command()})),
        ("data.pkl", pickle.dumps({"a": 1})),
        ("data.pkl", b""),
        ("data/0", b"too short"),
    ],
    ids=["command", "no module", "empty", "tensor cut short"],
)
def test_a_torchscript_archive_of_anything_else_is_refused_and_not_run(
    member: str, content: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = _scripted(torch.nn.Linear(3, 2), tmp_path / "net.pt")
    _repacked(path, lambda name, data: content if name.endswith(f"/{member}") else data)
    with pytest.raises(IntegrityError, match=r"net\.pt"):
        read_module_archive(path)
    assert not (tmp_path / "owned").exists()


def test_a_file_that_is_no_archive_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "net.pt"
    path.write_bytes(b"hello")
    with pytest.raises(IntegrityError, match=r"net\.pt"):
        read_module_archive(path)


def test_tensorflows_resize_puts_the_corner_on_the_corner_and_never_filters() -> None:
    ramp = torch.arange(8.0).expand(1, 1, 8, 8)
    assert torch.equal(resize_as_tensorflow(ramp, 4)[0, 0, 0], torch.tensor([0.0, 2.0, 4.0, 6.0]))
    doubled = resize_as_tensorflow(ramp, 16)[0, 0, 0]
    assert doubled[:4].tolist() == [0.0, 0.5, 1.0, 1.5]
    assert doubled[-2:].tolist() == [7.0, 7.0]  # the border is repeated
    assert torch.equal(resize_as_tensorflow(ramp, 8), ramp)


def test_inception_gives_one_vector_a_picture_whatever_the_batch() -> None:
    torch.manual_seed(0)
    embedder = InceptionEmbedder(Inception())
    pictures = pattern(2, 40, 64)
    together = embedder.embed(pictures)
    assert together.shape == (2, 2048)
    assert torch.equal(together[1:], embedder.embed(pictures[1:]))


def test_content_hash_ignores_order_and_sees_every_bit() -> None:
    a, b = torch.arange(4.0), torch.ones(2, 2)
    assert content_hash({"a": a, "b": b}) == content_hash({"b": b, "a": a})
    assert content_hash({"a": a, "b": b}) != content_hash({"a": a.flip(0), "b": b})
    assert content_hash({"a": a, "b": b}) != content_hash({"a": a.reshape(2, 2), "b": b})


def test_damaged_weights_in_the_cache_are_noticed(tmp_path: Path) -> None:
    weights = CATALOGUE["lpips-alex"]
    assert not is_intact(weights, tmp_path)
    folder = tmp_path / "weights"
    folder.mkdir()
    (folder / f"lpips-alex-{weights.content_sha256[:16]}.safetensors").write_bytes(b"garbage")
    assert not is_intact(weights, tmp_path)


def test_unknown_weights_are_named_with_the_known_ones() -> None:
    with pytest.raises(ConfigError, match="i3d-k400"):
        find_weights(CATALOGUE, "i3d")


@pytest.mark.parametrize(
    ("size", "kernel", "stride", "expected"),
    [(224, 7, 2, (2, 3)), (16, 7, 2, (2, 3)), (9, 7, 2, (3, 3)), (112, 3, 2, (0, 1)),
     (5, 3, 2, (1, 1)), (7, 2, 2, (0, 1)), (28, 3, 1, (1, 1))],
)  # fmt: skip
def test_same_padding_is_tensorflows(
    size: int, kernel: int, stride: int, expected: tuple[int, int]
) -> None:
    assert same_padding(size, kernel, stride) == expected


@pytest.mark.parametrize("num_frames", [4, 5, 7, 8], ids="t{}".format)
@pytest.mark.parametrize("side", [7, 14, 28], ids="side{}".format)
def test_max_pools_pad_as_tensorflow_does(num_frames: int, side: int) -> None:
    with torch.device("meta"):
        pool = I3D().pool_4a
    x = torch.rand(1, 2, num_frames, side, side, generator=torch.Generator().manual_seed(0))
    pads = [pad for size in (side, side, num_frames) for pad in same_padding(size, 3, 2)]
    expected = functional.max_pool3d(functional.pad(x, pads), 3, 2)
    assert torch.equal(pool(x), expected)


def test_short_videos_are_spread_by_repeating_and_say_so() -> None:
    video_input = VideoInput(num_frames=16, source_frames=8)
    assert frame_indices(video_input) == [i // 2 for i in range(16)]
    assert "repeated-from-8f" in video_input.describe()
    assert "repeated" not in VideoInput(num_frames=16, source_frames=16).describe()


def test_long_videos_give_their_first_frames() -> None:
    assert frame_indices(VideoInput(num_frames=4, source_frames=9)) == [0, 1, 2, 3]


@pytest.mark.parametrize("resize", ["stretch", "crop"])
def test_pixels_are_square_and_in_range(resize: str) -> None:
    video_input = VideoInput(num_frames=4, source_frames=4, size=32, resize=resize)
    pixels = prepare_video(pattern(4, 48, 80).unsqueeze(0), video_input)
    assert pixels.shape == (1, 3, 4, 32, 32)
    assert -1 <= float(pixels.min()) < float(pixels.max()) <= 1


def test_a_square_of_the_right_size_is_not_resampled() -> None:
    video = pattern(2, 32, 32).unsqueeze(0)
    pixels = prepare_video(video, VideoInput(num_frames=2, source_frames=2, size=32))
    assert torch.equal(pixels, (video.float() / 127.5 - 1).transpose(1, 2))


def test_videos_of_another_length_are_refused() -> None:
    with pytest.raises(ConfigError, match="source_frames=8"):
        prepare_video(pattern(4, 8, 8).unsqueeze(0), VideoInput(num_frames=9, source_frames=8))


def test_i3d_refuses_fewer_frames_than_its_pools_need() -> None:
    with torch.device("meta"):
        network = I3D()
    with pytest.raises(ConfigError, match="at least 9"):
        I3DExtractor(network, VideoInput(num_frames=8, source_frames=8))


def test_tiny_features_do_not_depend_on_the_batch() -> None:
    extractor = TinyVideoExtractor(num_frames=9, source_frames=9)
    videos = torch.stack([pattern(9, 32, 32, phase=phase) for phase in range(3)])
    together = extractor.extract(videos)
    alone = torch.cat([extractor.extract(video.unsqueeze(0)) for video in videos])
    assert torch.allclose(together, alone, atol=1e-5)


@pytest.mark.parametrize("backbone", ["alex", "vgg"])
def test_lpips_of_equal_pictures_is_zero(backbone: str) -> None:
    torch.manual_seed(0)
    network = LPIPS(backbone).eval()
    pictures = pattern(2, 48, 48).float() / 127.5 - 1
    with torch.no_grad():
        assert network(pictures, pictures).tolist() == [0, 0]
