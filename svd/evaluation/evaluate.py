"""Stage evaluate: sample from held-out first frames, measure, and leave records and videos."""

import hashlib
import json
import logging
import re
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from einops import rearrange
from jaxtyping import UInt8
from torch import Tensor

from svd.atomic import new_folder
from svd.config.evaluation import EvaluateConfig
from svd.errors import MissingInputError
from svd.evaluation.heldout import HeldOutSet, load_held_out, sample_seed
from svd.evaluation.keep import keep_videos
from svd.evaluation.measure import SampledSet, measure
from svd.evaluation.measures.base import RunFacts
from svd.evaluation.samples import sample_held_out
from svd.runtime.fingerprint import stage_fingerprint
from svd.runtime.tracking import Tracker
from svd.runtime.workspace import Workspace
from svd.sampling.load import load_components
from svd.sampling.samplers.components import Components
from svd.sampling.samplers.decode import to_frames, to_pixels
from svd.sampling.samplers.record import read_model_record
from svd.sampling.samplers.sampler import image_to_video
from svd.types.artifact import MetricRecord, StageReport, Value
from svd.types.base import write_records
from svd.types.evaluation import EvaluationReport

if TYPE_CHECKING:
    from svd.config.params import Params

logger = logging.getLogger(__name__)

STAGE = "evaluate"
MODEL_STAGE = "finetune-i2v"


def run(params: "Params", workspace: Workspace, *, tracker: Tracker) -> StageReport:
    """Measure the image-to-video model of this checkout.

    Raises:
        MissingInputError: A model, the latents or the clips are not there, or metric weights are
            neither cached nor to be had.
    """
    live = workspace.runs / stage_fingerprint(workspace, STAGE)
    return evaluate(params.evaluate, workspace, live, seed=params.seed, tracker=tracker)


def evaluate(
    config: EvaluateConfig, workspace: Workspace, live: Path, *, seed: int, tracker: Tracker
) -> StageReport:
    """Do the stage's work; see `run`.

    Args:
        config: The stage's section.
        workspace: Where to read and write.
        live: Folder for finished samples of this very recipe and model; lets a killed run go on.
        seed: Of the run.
        tracker: Told of numbers and samples.
    """
    torch.set_num_threads(config.num_threads)
    model = read_model_record(workspace.model(MODEL_STAGE), kind="denoiser")
    held_out = load_held_out(config, workspace, seed=seed)
    if len(held_out.clips) < 4:
        raise MissingInputError(
            f"{len(held_out.clips)} held-out clips can be read, but metrics over a set need 4; "
            "hold out more in filter.split"
        )
    started = time.monotonic()
    components = load_components(
        workspace.model(MODEL_STAGE), workspace.model("autoencoder"), placement=config.placement
    )
    seeds = [sample_seed(item.clip.clip_id, seed) for item in held_out.clips]
    samples = sample_held_out(
        held_out.clips,
        seeds,
        lambda frames, batch: image_to_video(
            components, frames, config=config.sampling, seeds=batch
        ),
        live / "samples",
        batch_size=config.sampling.batch_size,
    )
    sampled_in_s = time.monotonic() - started
    conditions = torch.stack([item.cond_frame for item in held_out.clips])
    facts = RunFacts(
        seed=seed,
        dataset_fingerprint=held_out.fingerprint,
        checkpoint_sha256=model.weights_sha256,
        sampling_fingerprint=_fingerprint(config),
        bootstrap=config.bootstrap,
        clip_ids=tuple(item.clip.clip_id for item in held_out.clips),
    )
    sampled = SampledSet(held_out, samples, tuple(seeds), reconstruct(components, conditions))
    records, report = measure(config, facts, sampled, cache=workspace.state / "cache")
    _write(workspace, config, sampled, records, report)
    _tell(tracker, workspace, records, held_out)
    return StageReport(
        stage=STAGE,
        summary=_summary(records, held_out, sampled_in_s),
        warnings=_warnings(config, held_out),
        outputs=("reports/evaluate/metrics.json", "reports/evaluate/samples"),
    )


@torch.no_grad()
def reconstruct(
    components: Components, pictures: UInt8[Tensor, "n c H W"]
) -> UInt8[Tensor, "n c H W"]:
    """Return pictures after the autoencoder alone: as well as the model can do on them."""
    frames = []
    for picture in pictures:
        pixels = to_pixels(rearrange(picture, "c H W -> 1 H W c"))
        latents = components.encode_frame(pixels)
        with components.at_work(components.decoder):
            decoded = components.decode_clip(rearrange(latents, "1 c h w -> 1 1 c h w"))
        frames.append(rearrange(to_frames(decoded.float().cpu()), "1 1 H W c -> c H W"))
    return torch.stack(frames)


def metric_key(name: str) -> str:
    """Return a metric's name as a key of metrics.json: lower case, words joined by "_"."""
    return re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_")


def _write(
    workspace: Workspace,
    config: EvaluateConfig,
    sampled: SampledSet,
    records: Sequence[MetricRecord],
    report: EvaluationReport,
) -> None:
    """Write the out folder under a temporary name and put it in place at once."""
    target = workspace.evaluation
    with new_folder(target) as partial:
        (partial / "samples").mkdir()
        keep_videos(sampled, partial / "samples", crf=config.video_crf)
        write_records(partial / "records.jsonl", records)
        (partial / "report.json").write_text(report.canonical_json() + "\n", encoding="utf-8")
        flat = {metric_key(record.name): record.value for record in records}
        (partial / "metrics.json").write_text(json.dumps(flat, indent=2) + "\n", encoding="utf-8")


def _tell(
    tracker: Tracker, workspace: Workspace, records: Sequence[MetricRecord], held_out: HeldOutSet
) -> None:
    columns = ("metric", "value", "low", "high", "N", "variant", "comparability")
    rows = [
        (r.name, r.value, _text(r.low), _text(r.high), r.num, r.variant, r.comparability)
        for r in records
    ]
    tracker.log_table("metrics", columns, rows)
    for item in held_out.clips[:8]:
        path = workspace.evaluation / "samples" / f"{item.clip.clip_id}.mp4"
        tracker.log_media(f"samples/{item.clip.clip_id}", path)


def _text(value: float | None) -> str:
    return "" if value is None else f"{value:.6g}"


def _summary(
    records: Sequence[MetricRecord], held_out: HeldOutSet, sampled_in_s: float
) -> dict[str, Value]:
    summary: Mapping[str, Value] = {
        "held-out clips": len(held_out.clips),
        "chance of retrieval": 1 / len(held_out.clips),
        "sampling, seconds": round(sampled_in_s, 1),
    }
    return dict(summary) | {
        record.name: record.value for record in records if record.control_of is None
    }


def _warnings(config: EvaluateConfig, held_out: HeldOutSet) -> tuple[str, ...]:
    warnings = []
    if len(held_out.clips) < config.num_clips:
        warnings.append(
            f"evaluate.num_clips={config.num_clips}, but {len(held_out.clips)} of "
            f"{held_out.num_available} held-out clips could be used"
        )
    warnings += [
        f"held-out clip {clip_id} skipped: {reason}"
        for clip_id, reason in held_out.unusable.items()
    ]
    if config.video_distance.extractor == "tiny":
        warnings.append("the video distance is of a random network; it is not FVD")
    return tuple(warnings)


def _fingerprint(config: EvaluateConfig) -> str:
    text = json.dumps(config.sampling.model_dump(mode="json"), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()
