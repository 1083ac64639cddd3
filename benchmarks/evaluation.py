"""FVD end to end against the way of the public implementations, in one run.

    python benchmarks/evaluation.py [--clips 16] [--frechet-clips 256]

Public implementations loop over clips in Python, keep I3D's batch norms apart and torch's default
memory layout, and take scipy's matrix square root of the product of covariances. Both ways get the
same clips and the same weights (with the original's epsilon, so that the numbers can agree), in
turns. The last line is JSON; `end_to_end` is the time of two sets of --frechet-clips videos at the
measured rates.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable

import numpy as np
import scipy.linalg
import torch
from torch import Tensor
from torch.nn import functional

from svd.evaluation.datasets.synthetic import pan
from svd.evaluation.extractors import i3d
from svd.evaluation.extractors.batch_norm import TENSORFLOW_EPS
from svd.evaluation.extractors.prepare import VideoInput
from svd.evaluation.metrics.frechet import frechet_distance
from svd.models.critics.published import load_weights
from svd.runtime.workspace import Workspace

NUM_FRAMES, HEIGHT, WIDTH = 16, 128, 176
ROUNDS = 3  # of the distances


class PublicI3D:
    """The graph as pytorch-i3d ports write it: pad, convolve, normalise, rectify."""

    def __init__(self, tensors: dict[str, Tensor]) -> None:
        self.tensors = tensors

    def unit(self, x: Tensor, name: str, kernel: int, stride: int = 1) -> Tensor:
        """Convolution, batch norm, ReLU."""
        part = {key: self.tensors.get(f"{name}.{key}") for key in ("weight", "norm_mean")}
        x = self.pad(x, (kernel,) * 3, (stride,) * 3)
        x = functional.conv3d(x, part["weight"], stride=stride)
        x = functional.batch_norm(
            x,
            part["norm_mean"],
            self.tensors[f"{name}.norm_var"],
            bias=self.tensors[f"{name}.norm_bias"],
            eps=TENSORFLOW_EPS,
        )
        return functional.relu(x)

    @staticmethod
    def pad(x: Tensor, kernel: tuple[int, ...], stride: tuple[int, ...]) -> Tensor:
        """TensorFlow's SAME padding."""
        sizes = zip(x.shape[-3:], kernel, stride, strict=True)
        pads = [i3d.same_padding(size, k, s) for size, k, s in sizes]
        return functional.pad(x, [pad for pair in reversed(pads) for pad in pair])

    def pool(self, x: Tensor, kernel: tuple[int, ...], stride: tuple[int, ...]) -> Tensor:
        """Padded max pool."""
        return functional.max_pool3d(self.pad(x, kernel, stride), kernel, stride)

    def block(self, x: Tensor, name: str) -> Tensor:
        """Four branches."""
        at = f"mixed.{name}.branch_"
        return torch.cat(
            [
                self.unit(x, f"{at}0.0.conv", 1),
                self.unit(self.unit(x, f"{at}1.0.conv", 1), f"{at}1.1.conv", 3),
                self.unit(self.unit(x, f"{at}2.0.conv", 1), f"{at}2.1.conv", 3),
                self.unit(self.pool(x, (3, 3, 3), (1, 1, 1)), f"{at}3.1.conv", 1),
            ],
            dim=1,
        )

    def __call__(self, x: Tensor) -> Tensor:
        """Logits."""
        x = self.pool(self.unit(x, "conv_1a.conv", 7, 2), (1, 3, 3), (1, 2, 2))
        x = self.unit(self.unit(x, "conv_2b.conv", 1), "conv_2c.conv", 3)
        x = self.pool(x, (1, 3, 3), (1, 2, 2))
        for name in ("3b", "3c", "4b", "4c", "4d", "4e", "4f", "5b", "5c"):
            if name == "4b":
                x = self.pool(x, (3, 3, 3), (2, 2, 2))
            if name == "5b":
                x = self.pool(x, (2, 2, 2), (2, 2, 2))
            x = self.block(x, name)
        pooled = functional.avg_pool3d(x, (2, 7, 7), stride=1)
        logits = functional.conv3d(pooled, self.tensors["head.weight"], self.tensors["head.bias"])
        return logits.mean(dim=(2, 3, 4))


def public_features(network: PublicI3D, video: Tensor) -> Tensor:
    """One clip of the loop: frame by frame to 224 px, then the network."""
    frames = [
        functional.interpolate(frame[None].float(), size=(224, 224), mode="bilinear")[0]
        for frame in video
    ]
    return network(torch.stack(frames, dim=1)[None] / 127.5 - 1)[0]


def public_frechet(a: np.ndarray, b: np.ndarray) -> float:
    """Covariances by numpy and scipy's matrix square root of their product."""
    cov_a, cov_b = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    root = scipy.linalg.sqrtm(cov_a @ cov_b)
    shift = np.square(a.mean(axis=0) - b.mean(axis=0)).sum()
    return float(np.real(shift + np.trace(cov_a + cov_b - 2 * root)))


def timed(work: Callable[[], object]) -> tuple[float, object]:
    started = time.perf_counter()
    result = work()
    return time.perf_counter() - started, result


def compare_frechet(num: int, dim: int) -> dict[str, float]:
    """Time both distances on two sets of `num` correlated vectors."""
    generator = np.random.default_rng(0)
    mix = generator.normal(size=(dim, dim)) / dim**0.5
    a = generator.normal(size=(num, dim)) @ mix
    b = generator.normal(size=(num, dim)) @ mix + 0.1
    theirs, ours, values = [], [], (0.0, 0.0)
    for _ in range(ROUNDS):
        seconds, public = timed(lambda: public_frechet(a, b))
        theirs.append(seconds)
        seconds, own = timed(lambda: frechet_distance(torch.from_numpy(a), torch.from_numpy(b)))
        ours.append(seconds)
        values = (float(public), float(own))  # type: ignore[arg-type]
    return {
        "public_s": statistics.median(theirs),
        "ours_s": statistics.median(ours),
        "public_value": values[0],
        "ours_value": values[1],
    }


@torch.inference_mode()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--clips", type=int, default=16, help="timed, per set and per way")
    parser.add_argument("--frechet-clips", type=int, default=256, help="of the distance")
    options = parser.parse_args()
    cache = Workspace.find().state / "cache"
    public = PublicI3D(load_weights(i3d.I3D_K400, cache))
    ours = i3d.load_i3d(cache, VideoInput(num_frames=NUM_FRAMES, source_frames=NUM_FRAMES))
    seconds: dict[str, list[float]] = {"public": [], "ours": []}
    vectors: dict[str, list[Tensor]] = {"public": [], "ours": []}
    for index in range(2 * options.clips):
        # Even clips are the real set, odd ones the same pans blurred and faster.
        frames = pan(index // 2, num_frames=NUM_FRAMES, height=HEIGHT, width=WIDTH, speed=0.05)
        video = torch.from_numpy(frames).permute(0, 3, 1, 2).contiguous()
        if index % 2:
            video = functional.avg_pool2d(video.float(), 3, 1, 1).to(torch.uint8).flip(0)
        ways = {
            "public": lambda video=video: public_features(public, video),
            "ours": lambda video=video: ours.extract(video[None])[0],
        }
        for way, work in ways.items():
            elapsed, vector = timed(work)
            seconds[way].append(elapsed)
            vectors[way].append(vector)  # type: ignore[arg-type]
    per_clip = {way: statistics.median(times[1:]) for way, times in seconds.items()}
    sets = {
        way: (torch.stack(all_[0::2]), torch.stack(all_[1::2])) for way, all_ in vectors.items()
    }
    fvd_public = public_frechet(*(one.double().numpy() for one in sets["public"]))
    fvd_ours = frechet_distance(*sets["ours"])
    frechet = compare_frechet(options.frechet_clips, 400)
    whole = {
        way: 2 * options.frechet_clips * per_clip[way] + frechet[f"{way}_s"] for way in per_clip
    }
    print(f"I3D, clips/s: public {1 / per_clip['public']:.2f}, ours {1 / per_clip['ours']:.2f}")
    print(f"Frechet, N = {options.frechet_clips}: {frechet}")
    print(f"FVD of {options.clips} against {options.clips}: {fvd_public:.4f}, {fvd_ours:.4f}")
    result = {
        "i3d_clips_per_s": {way: round(1 / each, 3) for way, each in per_clip.items()},
        "i3d_ratio": round(per_clip["public"] / per_clip["ours"], 2),
        "frechet_s": {way: round(frechet[f"{way}_s"], 4) for way in per_clip},
        "frechet_ratio": round(frechet["public_s"] / frechet["ours_s"], 2),
        "frechet_difference": abs(frechet["public_value"] - frechet["ours_value"]),
        "fvd": {"public": fvd_public, "ours": fvd_ours},
        "fvd_relative_difference": abs(fvd_public - fvd_ours) / fvd_ours,
        "end_to_end_clips": options.frechet_clips,
        "end_to_end_s": {way: round(each, 1) for way, each in whole.items()},
        "end_to_end_ratio": round(whole["public"] / whole["ours"], 2),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
