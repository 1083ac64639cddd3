"""A finished project under real git and real DVC, for tests of the registry."""

import contextlib
import hashlib
import json
import subprocess
import sys
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import yaml
from dvc.repo import Repo

from svd.config.registry import RegisterConfig
from svd.registry.catalog import Catalog
from svd.registry.register import register
from svd.runtime.workspace import Workspace
from svd.types.artifact import MetricRecord, ModelRecord
from svd.types.base import write_records
from svd.types.gate import Gate
from svd.types.shard import (
    ExampleEntry,
    LengthCount,
    MotionTable,
    ShardIndex,
    ShardInfo,
    ShardManifest,
)
from svd.types.stage import CHAIN, TRAINING_STAGES
from svd.types.version import Candidate
from svd.types.video import Clip, ClipSpan, RawVideo, VideoProbe

OUTS = {
    "ingest": "data/raw",
    "clip": "data/clips",
    "annotate": "data/annotations",
    "filter": "data/filtered",
    "autoencoder": "models/autoencoder",
    "encode": "data/latents",
    **{stage: f"models/{stage}" for stage in TRAINING_STAGES},
    "evaluate": "reports/evaluate",
    "register": "reports/register",
}
IDENTITY = ["-c", "user.name=Ann", "-c", "user.email=ann@example.org"]


def sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


@dataclass(frozen=True)
class Project:
    """A checkout and what tests do to it."""

    workspace: Workspace

    @property
    def root(self) -> Path:
        return self.workspace.root

    def git(self, *arguments: str) -> str:
        done = subprocess.run(
            ["git", *IDENTITY, *arguments], cwd=self.root, check=True, capture_output=True
        )
        return done.stdout.decode().strip()

    def commit_outs(self, *stages: str) -> None:
        """Write into dvc.lock what lies there, as if the stages had just run."""
        with contextlib.chdir(self.root), Repo(str(self.root)) as repo:  # its run cache needs both
            for stage in stages or (None,):
                repo.commit(stage, force=True)

    def dvc(self, *arguments: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "dvc", *arguments],
            cwd=self.root,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def train(self, weights: str, *, retrieval: float = 0.9, num: int = 16) -> None:
        """Write a new model and what was measured of it, as the stages would."""
        write_model(self.workspace, "finetune-i2v", weights)
        metric = MetricRecord(
            name="first-frame retrieval",
            value=retrieval,
            low=retrieval - 0.1,
            high=retrieval + 0.05,
            num=num,
            paired=True,
            higher_is_better=True,
            variant="retrieval-1",
            comparability="internal",
            seed=0,
            dataset_fingerprint="d",
            checkpoint_sha256=sha256(weights),
        )
        write_records(self.workspace.evaluation / "records.jsonl", [metric])
        self.commit_outs("finetune-i2v", "evaluate")

    def register(self, *gates: Gate) -> Candidate:
        return register(RegisterConfig(gates=gates or DEFAULT_GATES), self.workspace)

    @property
    def catalog(self) -> Catalog:
        return Catalog.read(self.root, "svd-i2v")


DEFAULT_GATES = (
    Gate(metric="first-frame retrieval", comparison="at-least", threshold=0.8, min_num=16),
)


def write_model(workspace: Workspace, stage: str, weights: str) -> None:
    folder = workspace.model(stage)
    write(folder / "weights.safetensors", weights)
    record = ModelRecord(
        stage=stage,
        kind="autoencoder" if stage == "autoencoder" else "denoiser",
        architecture={"width": 8},
        weights_sha256=sha256(weights),
        num_parameters=10,
        step=3,
        examples_seen=12,
        params_fingerprint="p",
        dataset_fingerprint="d",
        init_sha256=None,
        run_fingerprint="f" * 20,
    )
    write(folder / "model.json", record.canonical_json())


def write_data(workspace: Workspace) -> None:
    """Write two videos of two clips each, all in one training shard but the last, held out."""
    videos, clips = [], []
    for index, licence in enumerate(("CC-BY-3.0", "CC0-1.0")):
        video_id = sha256(f"video {index}")
        probe = VideoProbe(
            codec="h264",
            width=64,
            height=64,
            fps=Fraction(24),
            time_base=Fraction(1, 24),
            num_frames=48,
            num_keyframes=2,
            start_pts=0,
            duration_s=2.0,
            is_vfr=False,
            has_audio=False,
            pixel_format="yuv420p",
        )
        videos.append(
            RawVideo(
                video_id=video_id,
                uri=f"videos/{video_id}.mp4",
                origin=f"film-{index}.mp4",
                licence=licence,
                size_bytes=9,
                probe=probe,
            )
        )
        for start in (0, 24):
            span = ClipSpan(
                video_id=video_id,
                start_frame=start,
                stop_frame=start + 24,
                start_pts=start,
                stop_pts=start + 24,
                time_base=Fraction(1, 24),
                method="copy",
            )
            clips.append(
                Clip(
                    clip_id=f"clip-{index}-{start}",
                    span=span,
                    uri=f"clips/clip-{index}-{start}.mp4",
                    sha256=sha256(f"clip {index} {start}"),
                    width=64,
                    height=64,
                    fps=Fraction(24),
                    num_frames=24,
                    duration_s=1.0,
                )
            )
    write_records(workspace.raw / "index.jsonl", videos)
    write_records(workspace.clips / "index.jsonl", clips)
    write(workspace.annotations / "annotations.jsonl", "")
    write(workspace.filtered / "verdicts.jsonl", "")
    shards = [
        write_shard(workspace, "train", [clip.clip_id for clip in clips[:3]]),
        write_shard(workspace, "heldout", [clips[3].clip_id]),
    ]
    manifest = ShardManifest(
        shards=tuple(shards),
        fps=Fraction(24),
        block_frames=4,
        latent_channels=4,
        latent_downscale=8,
        latent_scale=1.0,
        embed_dim=8,
        encoders=(),
        motion_table=MotionTable(scorer="m", num_clips=3, thresholds=(0.0,) * 255),
    )
    write(workspace.latents / "manifest.json", manifest.canonical_json())


def write_shard(workspace: Workspace, split: str, clip_ids: list[str]) -> ShardInfo:
    name = sha256(split)
    index = ShardIndex(
        examples=tuple(ExampleEntry(key=key, num_frames=24, members={}) for key in clip_ids)
    )
    write(workspace.latents / "shards" / f"{name}.index.json", index.canonical_json())
    return ShardInfo(
        uri=f"shards/{name}.tar",
        sha256=name,
        size_bytes=1,
        index_uri=f"shards/{name}.index.json",
        index_sha256="0",
        split=split,  # type: ignore[arg-type]
        height=64,
        width=64,
        lengths=(LengthCount(num_frames=24, num_examples=len(clip_ids)),),
    )


def make_project(root: Path) -> Project:
    project = Project(Workspace(root))
    write(root / "svd" / "stage.py", "x = 1\n")
    write(root / ".gitignore", "/data/\n/models/\n/reports/\n.svd/\n")
    made = (*CHAIN, "finetune-t2v")
    tree = {"seed": 1, **{stage: {"size": 1} for stage in made}}
    write(root / "params.yaml", yaml.safe_dump(tree))
    stages = {}
    for index, stage in enumerate(made):
        before = [OUTS[made[index - 1]]] if index else []
        if stage == "finetune-t2v":  # beside the chain, not after it
            before = [OUTS["pretrain-video"]]
        stages[stage] = {
            "cmd": f"echo {stage}",
            "deps": ["svd/stage.py", *before],
            "params": [stage],
            "outs": [OUTS[stage]],
        }
    artifact = {"path": "models/finetune-i2v/weights.safetensors", "type": "model"}
    write(root / "dvc.yaml", yaml.safe_dump({"stages": stages, "artifacts": {"svd-i2v": artifact}}))
    subprocess.run(["git", "init", "-q", "-b", "main"], cwd=root, check=True)
    Repo.init(str(root)).close()
    write(root / ".dvc" / "config", "[core]\n    analytics = false\n")
    write_data(project.workspace)
    for stage in ("autoencoder", *TRAINING_STAGES):
        write_model(project.workspace, stage, f"weights of {stage}")
    write(project.workspace.evaluation / "records.jsonl", "")
    write(project.workspace.registration / "candidate.json", "{}")
    project.git("add", ".")
    project.git("commit", "-qm", "start")
    project.commit_outs()
    return project


def read_json(path: Path) -> dict[str, object]:
    loaded: dict[str, object] = json.loads(path.read_text())
    return loaded
