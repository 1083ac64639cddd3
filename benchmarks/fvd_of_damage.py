"""FVD of real clips against damaged copies of themselves: it must grow with every kind of damage.

Needs clips (`svd clip`, or `make demo`) and the I3D weights. Vectors are kept in .svd/cache, so a
killed run goes on. The last line is JSON.
"""

import argparse
import itertools
import json
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional

from svd.errors import MediaError
from svd.evaluation.extractors.i3d import load_i3d
from svd.evaluation.extractors.prepare import VideoInput
from svd.evaluation.features import FeatureCache
from svd.evaluation.geometry import as_frames, cover
from svd.evaluation.metrics.frechet import frechet_distance
from svd.evaluation.metrics.kid import kernel_distance
from svd.evaluation.reading import read_window
from svd.runtime.seed import torch_generator
from svd.runtime.workspace import Workspace
from svd.types.base import read_records
from svd.types.video import Clip

NUM_FRAMES, SIDE = 16, 224


def freeze(share: float) -> Callable[[Tensor, int], Tensor]:
    """Hold the frame at which the last `share` of the video begins."""

    def damage(video: Tensor, _: int) -> Tensor:
        moving = max(1, round(len(video) * (1 - share)))
        held = video[moving - 1 : moving].expand(len(video) - moving, -1, -1, -1)
        return torch.cat([video[:moving], held])

    return damage


def noise(percent: float) -> Callable[[Tensor, int], Tensor]:
    def damage(video: Tensor, index: int) -> Tensor:
        drawn = torch.randn(video.shape, generator=torch_generator(0, index))
        return as_frames(video + 2.55 * percent * drawn)

    return damage


def shrink(side: int) -> Callable[[Tensor, int], Tensor]:
    def damage(video: Tensor, _: int) -> Tensor:
        small = functional.interpolate(video.float(), size=(side, side), mode="area")
        large = functional.interpolate(small, size=(SIDE, SIDE), mode="bilinear")
        return as_frames(large)

    return damage


def shuffle(video: Tensor, index: int) -> Tensor:
    return video[torch.randperm(len(video), generator=torch_generator(1, index))]


LADDERS: dict[str, dict[str, Callable[[Tensor, int], Tensor]]] = {
    "freezing": {f"last {round(100 * share)} %": freeze(share) for share in (0.25, 0.5, 0.75, 1)},
    "noise": {f"std {percent} % of the range": noise(percent) for percent in (5, 10, 20)},
    "blur": {f"to {side} px and back": shrink(side) for side in (112, 64, 32)},
    "order": {"frames shuffled": shuffle},
}


def read_clips(root: Path, num: int) -> list[Tensor]:
    """Return `num` clips spread over the source videos, in turn."""
    workspace = Workspace(root)
    by_video: dict[str, list[Clip]] = {}
    for clip in read_records(workspace.clips / "index.jsonl", Clip):
        by_video.setdefault(clip.span.video_id, []).append(clip)
    turns = [
        piles[turn]
        for turn in range(max(map(len, by_video.values())))
        for piles in by_video.values()
        if turn < len(piles)
    ]
    videos = []
    for clip in turns:
        try:
            frames = read_window(workspace.clips / clip.uri, num_frames=NUM_FRAMES)
        except MediaError:
            continue
        videos.append(as_frames(cover(frames.float(), SIDE, SIDE, antialias=True)))
        if len(videos) == num:
            break
    return videos


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--root", type=Path, default=Path(), help="a checkout with data/clips")
    parser.add_argument("--clips", type=int, default=48)
    parser.add_argument("--ladders", nargs="*", default=list(LADDERS), choices=list(LADDERS))
    options = parser.parse_args()
    cache = Workspace.find().state / "cache"
    extractor = load_i3d(cache, VideoInput(num_frames=NUM_FRAMES, source_frames=NUM_FRAMES))
    features = FeatureCache(cache / "features", extractor)
    videos = read_clips(options.root, options.clips)
    started = time.monotonic()
    real = features.features(videos, description="real clips")
    seconds = (time.monotonic() - started) / len(videos)
    found: dict[str, dict[str, float]] = {"itself": {"none": frechet_distance(real, real)}}
    for ladder in options.ladders:
        found[ladder] = {}
        for name, damage in LADDERS[ladder].items():
            damaged = [damage(video, index) for index, video in enumerate(videos)]
            vectors = features.features(damaged, description=f"{ladder}: {name}")
            found[ladder][name] = frechet_distance(real, vectors)
            print(f"{ladder:10} {name:24} {found[ladder][name]:10.1f}", flush=True)
    rising = {
        ladder: all(a < b for a, b in itertools.pairwise(values))
        for ladder, rungs in found.items()
        if len(values := [0.0, *rungs.values()]) > 2
    }
    halves = {
        "FVD": frechet_distance(real[0::2], real[1::2]),
        "KVD": kernel_distance(real[0::2], real[1::2]),
    }
    result = {"num_clips": len(videos), "fvd": found, "rising": rising, "real_halves": halves}
    print(json.dumps(result | {"seconds_per_real_clip": round(seconds, 3)}))


if __name__ == "__main__":
    main()
