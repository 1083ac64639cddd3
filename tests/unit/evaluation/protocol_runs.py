"""Small runs of real protocols on synthetic data, with networks of a few kilobytes."""

from pathlib import Path

from svd.config.evaluation import BootstrapConfig
from svd.evaluation.protocols.base import EvaluationProtocol, PlanOptions, Shard
from svd.evaluation.protocols.catalogue import PROTOCOLS
from svd.evaluation.protocols.engine import finish, measure_shard, prepare
from svd.evaluation.protocols.networks import Networks
from svd.evaluation.protocols.run import ProtocolRun
from svd.evaluation.protocols.sources import TruthSource, VideoSource
from svd.types.protocol import PlannedClip, ProtocolReport

SIZE = (32, 48)


class NoisySource(TruthSource):
    """The truth with noise whose seed is the clip's: a model whose quality is known."""

    kind = "files"

    def __init__(self, std: float, size: tuple[int, int] | None = SIZE) -> None:
        super().__init__(size)
        self.std = std
        self.checkpoint_sha256 = f"{int(std):064d}"

    def video(self, clip: PlannedClip, real):
        import torch

        generator = torch.Generator().manual_seed(clip.seed)
        noise = torch.randn(real.shape, generator=generator) * self.std
        return (real + noise).round().clamp(0, 255).to(torch.uint8)


def make_run(
    data: Path,
    out: Path,
    source: VideoSource,
    *,
    seed: int = 0,
    shards: int = 1,
    classifier: Path | None = None,
    frame: str | None = None,
) -> ProtocolRun:
    return ProtocolRun(
        data=data,
        source=source,
        networks=Networks(
            out.parent / "cache",
            video="tiny",
            frame=frame,
            distance="tiny",
            classifier=None if classifier is None else str(classifier),
        ),
        out=out,
        cache=out.parent / "cache",
        seed=seed,
        bootstrap=BootstrapConfig(num_resamples=100),
        keep_videos=False,
        num_shards=shards,
    )


def run_whole(
    name: str,
    data: Path,
    out: Path,
    source: VideoSource,
    *,
    num_frames: int | None = 6,
    small: int | None = None,
    shards: int = 1,
    classifier: Path | None = None,
    frame: str | None = None,
) -> ProtocolReport:
    """Run a protocol in this process, shard after shard."""
    protocol: EvaluationProtocol = PROTOCOLS[name]
    options = PlanOptions(0, small, num_frames)
    new = make_run(data, out, source, shards=shards, classifier=classifier, frame=frame)
    plan, identity, ready = prepare(protocol, new, options)
    for index in range(shards):
        measure_shard(protocol, ready, plan, Shard(index, shards))
    return finish(protocol, ready, plan, identity)
