"""A small workspace as the stages leave it: real videos, real shards, real tiny models."""

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import torch
import yaml
from numpy.typing import NDArray

from svd.config.model import AutoencoderConfig, DenoiserConfig, ImageEncoderConfig
from svd.curation.clip.bank import write_bank
from svd.curation.clip.track import BankFrame, FrameTrack
from svd.curation.ingest.paintings import paint
from svd.data.motion import fit_motion_table
from svd.data.stream.examples import EncodedClip, pack
from svd.data.stream.shards import save_shard
from svd.media.encode import write_video
from svd.models.checkpoints.weights import save_weights
from svd.models.networks.autoencoder import Autoencoder
from svd.models.networks.denoiser import Denoiser
from svd.runtime.fingerprint import file_sha256
from svd.runtime.workspace import Workspace
from svd.types.annotation import Reason, Verdict
from svd.types.artifact import ModelRecord, StageReport
from svd.types.base import Record, write_records
from svd.types.curation import FilterReport, Histogram, TableRow
from svd.types.gate import Decision, Gate, GateVerdict
from svd.types.shard import EncoderIdentity, ExampleMeta, ShardManifest
from svd.types.stage import STAGES, StageRun
from svd.types.version import Candidate, LineageRecord, ModelVersion, VersionFile
from svd.types.video import Clip, ClipSpan, RawVideo, RejectedFile, VideoProbe

HEIGHT, WIDTH, NUM_FRAMES, FPS = 32, 48, 8, 8
CLIP_FRAMES = 10  # a little more than a sample needs

AUTOENCODER = AutoencoderConfig(
    base_channels=8, channel_mult=(1, 1, 2), num_res_blocks=1, norm_groups=4, latent_scale=0.5
)
DENOISER = DenoiserConfig.model_validate_json(
    json.dumps(
        {
            "unet": {
                "in_channels": 8,
                "model_channels": 8,
                "channel_mult": [1, 2],
                "num_res_blocks": 1,
                "attention_factors": [2],
                "head_dim": 8,
                "context_dim": 16,
                "added_cond_dim": 24,
                "added_id_dim": 8,
                "norm_groups": 4,
            }
        }
    )
)
IMAGE_ENCODER = ImageEncoderConfig(
    kind="tiny", width=16, layers=1, heads=2, image_size=28, patch_size=14
)


@dataclass(frozen=True, slots=True)
class Source:
    """One painted video."""

    record: RawVideo
    frames: NDArray[np.uint8]  # t H W 3


def hash_of(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def pan(key: int, *, num_frames: int, height: int, width: int, speed: float) -> NDArray[np.uint8]:
    """Return a camera pan over a painting."""
    picture = paint(key, width=2 * width, height=height)
    starts = [round(width / 2 + width / 2.2 * math.sin(speed * i + key)) for i in range(num_frames)]
    return np.stack([picture[:, start : start + width] for start in starts])


def make_sources(num: int, *, num_frames: int) -> list[Source]:
    sources = []
    for index in range(num):
        frames = pan(index, num_frames=num_frames, height=144, width=216, speed=0.02 * index + 0.02)
        probe = VideoProbe(
            codec="h264",
            width=216,
            height=144,
            fps=Fraction(FPS),
            time_base=Fraction(1, 512),
            num_frames=num_frames,
            num_keyframes=3,
            start_pts=0,
            duration_s=num_frames / FPS,
            is_vfr=False,
            has_audio=False,
            pixel_format="yuv420p",
        )
        record = RawVideo(
            video_id=hash_of(f"video {index}"),
            uri=f"videos/{hash_of(f'video {index}')}.mp4",
            origin=f"painted/pan-{index:02d}.mp4" if index else "painted/<b>bold & sly</b>.mp4",
            licence="CC-BY-3.0" if index % 3 else "CC0-1.0",
            size_bytes=1_000_000 + 7919 * index,
            probe=probe,
        )
        sources.append(Source(record, frames))
    return sources


def make_clips(workspace: Workspace, sources: Sequence[Source]) -> list[Clip]:
    """Cut each source into clips of CLIP_FRAMES, with files and frame banks."""
    (workspace.clips / "clips").mkdir(parents=True)
    clips = []
    for source in sources:
        video_id = source.record.video_id
        for start in range(0, len(source.frames) - CLIP_FRAMES + 1, CLIP_FRAMES):
            clip_id = hash_of(f"{video_id} {start}")[:16]
            path = workspace.clips / "clips" / f"{clip_id}.mp4"
            write_video(path, source.frames[start : start + CLIP_FRAMES], FPS)
            span = ClipSpan(
                video_id=video_id,
                start_frame=start,
                stop_frame=start + CLIP_FRAMES,
                start_pts=start * 64,
                stop_pts=(start + CLIP_FRAMES) * 64,
                time_base=Fraction(1, 512),
                method="copy",
            )
            clips.append(
                Clip(
                    clip_id=clip_id,
                    span=span,
                    uri=f"clips/{clip_id}.mp4",
                    sha256=file_sha256(path),
                    width=216,
                    height=144,
                    fps=Fraction(FPS),
                    num_frames=CLIP_FRAMES,
                    duration_s=CLIP_FRAMES / FPS,
                )
            )
        _write_bank(workspace.clips / "bank" / video_id, source.frames)
    write_records(workspace.clips / "index.jsonl", clips)
    return clips


def _write_bank(folder: Path, frames: NDArray[np.uint8]) -> None:
    count = len(frames)
    pts = np.arange(count, dtype=np.int64)
    none = np.zeros(0, dtype=np.int64)
    score = np.zeros(0, dtype=np.float32)
    maps = np.zeros((0, 4, 4, 2), dtype=np.float16)
    track = FrameTrack(
        pts=pts,
        mean_rgb=np.zeros(count, dtype=np.float32),
        contrast=np.zeros(count, dtype=np.float32),
        thumbs=np.zeros((count, 18, 32), dtype=np.uint8),
        native_pts=none,
        native_score=score,
        mid_pts=none,
        mid_score=score,
        low_pts=none,
        low_score=score,
        flow_pts=np.zeros((0, 2), dtype=np.int64),
        dis_px=score,
        farneback_px=score,
        dis_map=maps,
        farneback_map=maps,
    )
    pictures = []
    for index in range(0, count, 4):
        done, jpeg = cv2.imencode(".jpg", frames[index][:, :, ::-1])
        assert done
        pictures.append(BankFrame(pts=index, jpeg=jpeg.tobytes(), still=None))
    write_bank(folder, track, pictures)


def make_verdicts(clips: Sequence[Clip], *, num_heldout: int) -> list[Verdict]:
    """Drop every third clip for one of three reasons; hold out the first of the kept."""
    rules = (
        ("motion.dis_px", "below", 0.4, 1.2, "motion 0.4 px is below 1.2 px"),
        ("text.area", "above", 0.31, 0.07, "text covers 31 % of the picture, more than 7 %"),
        ("near-duplicate", "near-duplicate", None, None, "a near-duplicate of another clip"),
    )
    verdicts, num_kept = [], 0
    for index, clip in enumerate(clips):
        dropped = index % 3 == 2
        score, rule, value, bound, sentence = rules[index // 3 % 3]
        reason = Reason(score=score, rule=rule, value=value, bound=bound, sentence=sentence)
        split = None if dropped else ("heldout" if num_kept < num_heldout else "train")
        num_kept += not dropped
        verdicts.append(
            Verdict(
                clip_id=clip.clip_id,
                group_id=clip.clip_id,
                kept=not dropped,
                reasons=(reason,) if dropped else (),
                split=split,
            )
        )
    return verdicts


def make_filter_report(verdicts: Sequence[Verdict]) -> FilterReport:
    dropped = [verdict for verdict in verdicts if not verdict.kept]
    counts: dict[str, int] = {}
    for verdict in dropped:
        counts[verdict.reasons[0].score] = counts.get(verdict.reasons[0].score, 0) + 1
    generator = np.random.default_rng(1)
    histograms = []
    for name, low, high in (("motion.dis_px", 1.2, None), ("text.area", None, 0.07)):
        values = generator.gamma(2.0, 2.0 if low else 0.02, size=len(verdicts) * 4)
        kept = values[(values >= (low or -1)) & (values <= (high or 1e9))]
        edges = np.linspace(0, values.max(), 25)
        histograms.append(
            Histogram(
                score=name,
                edges=tuple(edges.tolist()),
                counts=tuple(np.histogram(values, edges)[0].tolist()),
                counts_kept=tuple(np.histogram(kept, edges)[0].tolist()),
                low=low,
                high=high,
                num_missing=2 if high else 0,
            )
        )
    num_heldout = sum(verdict.split == "heldout" for verdict in verdicts)
    num_kept = len(verdicts) - len(dropped)
    row = TableRow(
        name="all clips",
        num_clips=len(verdicts),
        mean_clip_s=1.25,
        total_h=len(verdicts) * 1.25 / 3600,
        mean_num_frames=10,
        mean_clips_per_video=6.0,
        has_motion_annotation=True,
    )
    return FilterReport(
        table=(row, row.model_copy(update={"name": "kept", "num_clips": num_kept})),
        num_kept=num_kept,
        num_train=num_kept - num_heldout,
        num_heldout=num_heldout,
        num_groups_train=num_kept - num_heldout,
        num_groups_heldout=num_heldout,
        num_by_reason=counts,
        num_only_by_reason=counts,
        histograms=tuple(histograms),
        pictures=(),
        clips_per_video_native=2.1,
        clips_per_video_cascade=6.0,
    )


def make_models(workspace: Workspace) -> dict[str, ModelRecord]:
    """Write an autoencoder and three stages of a denoiser, random but real."""
    torch.manual_seed(0)
    records = {}
    folder = workspace.model("autoencoder")
    save_weights(Autoencoder(AUTOENCODER), folder / "weights.safetensors")
    records["autoencoder"] = _model_record("autoencoder", folder, AUTOENCODER, init=None)
    init = None
    for stage in ("pretrain-image", "pretrain-video", "finetune-i2v"):
        folder = workspace.model(stage)
        denoiser = Denoiser(DENOISER)
        save_weights(denoiser.unet, folder / "weights.safetensors")
        records[stage] = _model_record(stage, folder, DENOISER, init=init)
        init = records[stage].weights_sha256
    return records


def _model_record(stage: str, folder: Path, config: object, *, init: str | None) -> ModelRecord:
    is_autoencoder = stage == "autoencoder"
    return ModelRecord(
        stage=stage,
        kind="autoencoder" if is_autoencoder else "denoiser",
        architecture=config.model_dump(mode="json"),
        weights_sha256=file_sha256(folder / "weights.safetensors"),
        num_parameters=1_234_567,
        step=600,
        examples_seen=4800,
        params_fingerprint=hash_of("params"),
        dataset_fingerprint=hash_of("pending"),
        init_sha256=init,
        run_fingerprint="0" * 20,
        extras={} if is_autoencoder else {"image_encoder": IMAGE_ENCODER.model_dump(mode="json")},
    )


def finish_models(
    workspace: Workspace, records: dict[str, ModelRecord], manifest: ShardManifest
) -> None:
    """Write model.json and history.jsonl of every model, now that the data are known."""
    generator = np.random.default_rng(2)
    for stage, record in records.items():
        folder = workspace.model(stage)
        final = record.model_copy(update={"dataset_fingerprint": manifest.content_hash()})
        (folder / "model.json").write_text(final.canonical_json())
        rows = []
        for step in range(20, 601, 20):
            level = 0.6 * math.exp(-step / 150) + 0.2
            noisy = level * float(generator.uniform(0.93, 1.07))
            if stage == "autoencoder":
                rows.append({"step": step, "loss": noisy, "reconstruction": noisy * 0.8})
                continue
            bins = {"sigma<0.1": 4.0, "sigma<1": 1.0, "sigma<10": 0.4, "sigma>=10": 0.15}
            row = {
                "step": step,
                "phase": "a",
                "examples_seen": step * 8,
                "loss": noisy,
                "loss_by_sigma": {name: noisy * scale for name, scale in bins.items()},
                "grad_norm": 1.0,
                "lr": 1e-4,
                "heldout_loss": level * 1.05 if step % 100 == 0 else None,
                "heldout_loss_by_sigma": {},
            }
            rows.append(row)
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (folder / "history.jsonl").write_text(text)


def make_latents(
    workspace: Workspace, clips: Sequence[Clip], verdicts: Sequence[Verdict], autoencoder: str
) -> ShardManifest:
    """Write shards; the latents are zeros, for nothing here trains on them."""
    shards = []
    for split in ("train", "heldout"):
        chosen = {verdict.clip_id for verdict in verdicts if verdict.split == split}
        packed = [pack(_encoded(clip), block_frames=4) for clip in clips if clip.clip_id in chosen]
        if packed:
            shards.append(
                save_shard(workspace.latents, packed, split=split, height=HEIGHT, width=WIDTH)
            )
    manifest = ShardManifest(
        shards=tuple(shards),
        fps=Fraction(FPS),
        block_frames=4,
        latent_channels=4,
        latent_downscale=4,
        latent_scale=0.5,
        embed_dim=16,
        encoders=(EncoderIdentity(role="autoencoder", name="tiny", sha256=autoencoder, config={}),),
        motion_table=fit_motion_table([0.1, 0.2, 0.3], scorer="fake 1"),
    )
    (workspace.latents / "manifest.json").write_text(manifest.canonical_json())
    return manifest


def _encoded(clip: Clip) -> EncodedClip:
    meta = ExampleMeta(
        clip_id=clip.clip_id,
        video_id=clip.span.video_id,
        clip_sha256=clip.sha256,
        num_frames=CLIP_FRAMES,
        fps=Fraction(FPS),
        captions=(),
        motion_score=1.0,
        motion_bucket_id=100,
    )
    num_blocks = -(-CLIP_FRAMES // 4)
    return EncodedClip(
        meta=meta,
        moments=torch.zeros(CLIP_FRAMES, 2, 4, HEIGHT // 4, WIDTH // 4),
        cond_frames=torch.zeros(num_blocks, 3, HEIGHT, WIDTH, dtype=torch.uint8),
        image_embeds=torch.zeros(num_blocks, 16),
    )


def make_stage_runs(workspace: Workspace, *, upto: str = STAGES[-1]) -> None:
    for index, stage in enumerate(STAGES):
        run = StageRun(
            fingerprint="0" * 20,
            pipeline_run="brisk-otter",
            started_at=f"2026-01-02T10:{index:02d}:00+00:00",
            wall_s=3.0 + 11.0 * (index % 5),
            report=StageReport(
                stage=stage,
                summary={"clips": 120, "share kept": 0.666, "note": "as planned"},
                warnings=("one file was refused; see data/raw/rejected.jsonl",)
                if stage == "ingest"
                else (),
            ),
        )
        path = workspace.stage_run(stage)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(run.canonical_json())
        if stage == upto:
            return


def make_candidate(workspace: Workspace, model: ModelRecord) -> Candidate:
    """Write what register would have decided: one gate passed, one fell short."""
    gate = Gate(metric="first-frame retrieval", comparison="at-least", threshold=0.8, min_num=16)
    motion = Gate(metric="motion energy ratio", comparison="at-least", threshold=0.05)
    verdicts = (
        GateVerdict(
            gate=gate, verdict="pass", value=0.94, reference=0.8, num=16, reason="0.94 >= 0.8"
        ),
        GateVerdict(
            gate=motion, verdict="fail", value=0.01, reference=0.05, num=16, reason="0.01 < 0.05"
        ),
    )
    version = ModelVersion(
        name="svd-i2v",
        version=None,
        model=model,
        files=(
            VersionFile(
                path="models/finetune-i2v/weights.safetensors",
                sha256=model.weights_sha256,
                size_bytes=10,
            ),
        ),
        code_commit=None,
        uncommitted=(),
        params_sha256=hash_of("params"),
        dvc_lock_sha256=None,
        metrics=(),
        decision=Decision(passed=False, verdicts=verdicts),
        lineage=LineageRecord(
            stages=(),
            manifests={},
            num_videos=4,
            num_clips=20,
            num_shards=2,
            licences={},
            missing=(),
        ),
        lineage_table_sha256=None,
        wandb_run_id="run",
    )
    candidate = Candidate(
        status="refused", reasons=("motion energy ratio: 0.01 < 0.05",), version=version
    )
    _write(workspace.registration / "candidate.json", candidate)
    return candidate


def evaluate_section(**changes: object) -> dict[str, object]:
    """Return a section `evaluate` that fits the workspace, as YAML would hold it."""
    return {
        "num_clips": 6,
        "sampling": {
            "num_frames": NUM_FRAMES,
            "height": HEIGHT,
            "width": WIDTH,
            "fps": FPS,
            "schedule": {"num_steps": 2},
            "decode_chunk_size": NUM_FRAMES,
            "decode_overlap": 0,
            "batch_size": 2,
        },
        "video_distance": {"extractor": "tiny", "num_resamples": 20, "size_draws": 3},
        "controls": {"num_clips": 4},
        "lpips": "none",
        "bootstrap": {"num_resamples": 100},
        "placement": {"device": "cpu"},
    } | changes


def build_workspace(
    root: Path, *, num_videos: int = 3, num_frames: int = 60, num_heldout: int = 8
) -> Workspace:
    """Write everything up to, and not including, the evaluation."""
    workspace = Workspace(root)
    sources = make_sources(num_videos, num_frames=num_frames)
    write_records(workspace.raw / "index.jsonl", [source.record for source in sources])
    rejected = RejectedFile(
        origin="holiday.mp4",
        sha256=None,
        size_bytes=0,
        reason="empty-file",
        detail="the file has no bytes",
    )
    write_records(workspace.raw / "rejected.jsonl", [rejected])
    clips = make_clips(workspace, sources)
    verdicts = make_verdicts(clips, num_heldout=num_heldout)
    write_records(workspace.filtered / "verdicts.jsonl", verdicts)
    _write(workspace.filtered / "report.json", make_filter_report(verdicts))
    models = make_models(workspace)
    manifest = make_latents(workspace, clips, verdicts, models["autoencoder"].weights_sha256)
    finish_models(workspace, models, manifest)
    (root / "params.yaml").write_text(yaml.safe_dump({"seed": 1, "evaluate": evaluate_section()}))
    return workspace


def _write(path: Path, record: Record) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(record.canonical_json())
