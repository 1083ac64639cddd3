import cv2
import numpy as np
from filming import texture
from hypothesis import given, settings
from hypothesis import strategies as st

from svd.config.curation import DedupConfig
from svd.curation.annotate.aligned import aligned_share
from svd.curation.annotate.dedup import close_pairs, group_clips, hash_picture

CONFIG = DedupConfig()


def hashes(*pictures: np.ndarray) -> tuple[str, ...]:
    return tuple(text for p in pictures if (text := hash_picture(p, CONFIG)) is not None)


def recompressed(picture: np.ndarray, scale: float = 0.75, quality: int = 40) -> np.ndarray:
    height, width = picture.shape[:2]
    small = cv2.resize(picture, (int(width * scale), int(height * scale)))
    return cv2.imdecode(
        cv2.imencode(".jpg", small, [cv2.IMWRITE_JPEG_QUALITY, quality])[1], cv2.IMREAD_COLOR
    )


def clip(seed: int, num: int = 4) -> list[np.ndarray]:
    return [texture(seed * 100 + n, 456, 256) for n in range(num)]


def test_copies_are_grouped_and_different_clips_are_not() -> None:
    clips = {f"original-{seed}": clip(seed) for seed in range(12)}
    copies = {f"x-copy-{seed}": [recompressed(p) for p in clip(seed)] for seed in range(6)}
    groups = group_clips({k: hashes(*v) for k, v in (clips | copies).items()}, CONFIG)
    assert all(groups[f"x-copy-{seed}"] == f"original-{seed}" for seed in range(6))
    assert len(set(groups.values())) == 12


def test_one_common_frame_of_four_is_not_enough() -> None:
    first, second = clip(1), [*clip(2, 3), clip(1)[0]]
    groups = group_clips({"a": hashes(*first), "b": hashes(*second)}, CONFIG)
    assert groups == {"a": "a", "b": "b"}


def test_a_part_of_a_clip_is_its_near_duplicate() -> None:
    whole = clip(3, 8)
    groups = group_clips({"a": hashes(*whole), "b": hashes(*whole[2:5])}, CONFIG)
    assert groups == {"a": "a", "b": "a"}


def test_a_chain_of_duplicates_is_one_group_named_by_its_least_member() -> None:
    frames = [texture(n, 456, 256) for n in range(4)]
    groups = group_clips(
        {"c": hashes(*frames[:2]), "a": hashes(*frames[1:3]), "b": hashes(*frames[2:4])}, CONFIG
    )
    assert groups == {"a": "a", "b": "a", "c": "a"}


def moving(seed: int, *, phase: float, num: int = 6) -> list[np.ndarray]:
    """Frames half a second apart of a picture that pans; phase is in those half seconds."""
    wide = texture(seed, 456 + 16 * num + 16, 256)
    starts = [round(16 * (index + phase)) for index in range(num)]
    return [wide[:, start : start + 456] for start in starts]


def test_a_copy_sampled_at_other_instants_is_found_and_in_order_only() -> None:
    codes = {
        name: np.array([list(bytes.fromhex(text)) for text in hashes(*frames)], dtype=np.uint8)
        for name, frames in {
            "film": moving(5, phase=0.0),
            "copy": [recompressed(frame) for frame in moving(5, phase=0.5)],
            "other": moving(6, phase=0.0),
        }.items()
    }
    least = CONFIG.min_aligned_share
    assert aligned_share(codes["film"], codes["copy"], max_distance=31) >= least
    assert aligned_share(codes["copy"], codes["film"], max_distance=31) >= least
    assert aligned_share(codes["film"], codes["other"], max_distance=31) == 0
    assert aligned_share(codes["film"], codes["copy"][::-1], max_distance=31) < least


def test_flat_pictures_prove_nothing() -> None:
    black = np.zeros((256, 456, 3), dtype=np.uint8)
    assert hash_picture(black, CONFIG) is None
    assert group_clips({"a": (), "b": ()}, CONFIG) == {"a": "a", "b": "b"}


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from([7, 31, 40]))
def test_the_search_finds_exactly_the_pairs_within_the_distance(seed: int, limit: int) -> None:
    generator = np.random.default_rng(seed)
    codes = generator.integers(0, 256, (30, 32), dtype=np.uint8)
    for copy in range(15, 30):  # copies with some bits flipped, on both sides of the limit
        bits = np.unpackbits(codes[copy - 15])
        flips = generator.choice(256, size=generator.integers(0, 2 * limit), replace=False)
        bits[flips] ^= 1
        codes[copy] = np.packbits(bits)
    distance = np.bitwise_count(codes[:, None] ^ codes[None]).sum(axis=-1)
    expected = {
        (a, b, int(distance[a, b]))
        for a in range(30)
        for b in range(a + 1, 30)
        if distance[a, b] <= limit
    }
    assert set(close_pairs(codes, limit)) == expected
