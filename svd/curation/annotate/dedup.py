"""Near-duplicate clips, found by perceptual hashes of their frames, then by embeddings.

PDQ (Facebook 2019) gives 256 bits per picture; copies re-encoded, scaled or slightly cropped
differ in at most about 31 of them. Two clips are near-duplicates if enough frames of the shorter
one have a copy in the other; or if one frame nearly has, and most fit at one shift in time. Pairs
that embeddings find (embedding_pairs.py) join in.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib.metadata import version

import numpy as np
import pdqhash
from jaxtyping import UInt8

from svd.config.curation import DedupConfig
from svd.curation.annotate.aligned import COPY_BITS, aligned_share
from svd.curation.annotate.scoring import ClipView
from svd.types.annotation import Scorer

HASH_BITS = 256
_BANDS = 16  # of 16 bits each
_BAND_BITS = HASH_BITS // _BANDS


def dedup_scorer(config: DedupConfig) -> Scorer:
    """Return what stands beside hashes and groups."""
    return Scorer(
        name="dedup", version=f"pdqhash-{version('pdqhash')}", settings=config.model_dump()
    )


def hash_frames(view: ClipView, config: DedupConfig) -> tuple[str, ...]:
    """Return the hashes (hex) of the clip's sampled frames; flat pictures have none."""
    found = (hash_picture(picture, config) for picture in view.pictures)
    return tuple(text for text in found if text is not None)


def hash_picture(picture: np.ndarray, config: DedupConfig) -> str | None:
    """Return the PDQ hash (64 hex digits) of a BGR picture; None if it is too flat to have one."""
    bits, quality = pdqhash.compute(np.ascontiguousarray(picture[..., ::-1]))
    if quality < config.min_quality:
        return None
    return np.packbits(bits.astype(np.uint8)).tobytes().hex()


def group_clips(
    hashes: Mapping[str, Sequence[str]],
    config: DedupConfig,
    *,
    also: Iterable[tuple[str, str]] = (),
) -> dict[str, str]:
    """Return for each clip the name of its group: the smallest clip_id of its near-duplicates.

    Being near-duplicates is made transitive, so that no chain of copies can cross a split.

    Args:
        hashes: By clip_id; a clip without hashes is a group of its own.
        config: Distances and shares.
        also: Pairs of clip_ids known to be near-duplicates by other means.
    """
    clip_ids = sorted(hashes)
    owners = np.array(
        [index for index, clip in enumerate(clip_ids) for _ in hashes[clip]], dtype=np.int64
    )
    codes = np.array(
        [list(bytes.fromhex(text)) for clip in clip_ids for text in hashes[clip]], dtype=np.uint8
    ).reshape(-1, HASH_BITS // 8)
    matched: dict[tuple[int, int], tuple[set[int], set[int]]] = defaultdict(lambda: (set(), set()))
    # Where all moves, no frame of a copy that was sampled at other instants is as near as a copy's
    # frame is: what is somewhat farther makes a candidate, which has to fit as a whole.
    for left, right, distance in close_pairs(codes, config.max_distance + COPY_BITS):
        if owners[left] == owners[right]:
            continue
        of_left, of_right = matched[int(owners[left]), int(owners[right])]
        if distance <= config.max_distance:
            of_left.add(left)
            of_right.add(right)
    forest = _Forest(len(clip_ids))
    for (left, right), (of_left, of_right) in sorted(matched.items()):
        counts = (len(hashes[clip_ids[left]]), len(hashes[clip_ids[right]]))
        share = min(len(of_left), len(of_right)) / min(counts)
        is_copy = share >= config.min_share
        if not is_copy:
            clips = (codes[owners == left], codes[owners == right])
            aligned = aligned_share(*clips, max_distance=config.max_distance)
            is_copy = aligned >= config.min_aligned_share
        if is_copy:
            forest.join(left, right)
    places = {clip: index for index, clip in enumerate(clip_ids)}
    for one, other in also:
        forest.join(places[one], places[other])
    return {clip: clip_ids[forest.root(index)] for index, clip in enumerate(clip_ids)}


def close_pairs(
    codes: UInt8[np.ndarray, "n 32"], max_distance: int
) -> Iterator[tuple[int, int, int]]:
    """Yield (lower index, higher, distance) for all pairs at most this many bits apart, once each.

    Exact, without comparing all with all: 47 differing bits spread over 16 bands leave one band
    with at most two, so looking each band up with up to two bits flipped finds every such pair.
    """
    flips = _flips(max_distance)
    bands = codes.reshape(len(codes), _BANDS, _BAND_BITS // 8).astype(np.uint16)
    words = (bands[..., 0] << 8) | bands[..., 1]
    buckets: list[dict[int, list[int]]] = [defaultdict(list) for _ in range(_BANDS)]
    for index in range(len(codes)):
        candidates: set[int] = set()
        for band in range(_BANDS):
            word = int(words[index, band])
            for flip in flips:
                candidates.update(buckets[band].get(word ^ flip, ()))
            buckets[band][word].append(index)
        if candidates:
            others = np.array(sorted(candidates))
            distance = np.bitwise_count(codes[others] ^ codes[index]).sum(axis=1)
            is_near = distance <= max_distance
            for other, bits in zip(
                others[is_near].tolist(), distance[is_near].tolist(), strict=True
            ):
                yield other, index, bits


def _flips(max_distance: int) -> list[int]:
    """Return the masks to try in a band so that no pair within the distance is missed."""
    masks = [0]
    for bits in range(1, max_distance // _BANDS + 1):
        masks += [mask for mask in range(1 << _BAND_BITS) if mask.bit_count() == bits]
    return masks


class _Forest:
    """Disjoint sets; the smallest member is the root."""

    def __init__(self, size: int) -> None:
        self._parent = list(range(size))

    def root(self, index: int) -> int:
        while self._parent[index] != index:
            self._parent[index] = self._parent[self._parent[index]]
            index = self._parent[index]
        return index

    def join(self, left: int, right: int) -> None:
        low, high = sorted((self.root(left), self.root(right)))
        self._parent[high] = low
