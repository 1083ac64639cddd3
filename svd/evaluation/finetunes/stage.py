"""Stage evaluate-finetunes: each finetune against what it was derived from, in one run."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from einops import rearrange
from jaxtyping import UInt8
from torch import Tensor

from svd.atomic import new_folder
from svd.config.finetunes import EvaluateFinetunesConfig
from svd.config.sampling import SamplingConfig
from svd.errors import MissingInputError
from svd.evaluation.evaluate import metric_key
from svd.evaluation.extractors.lpips import load_lpips
from svd.evaluation.features import FeatureCache
from svd.evaluation.finetunes.between import measure_between
from svd.evaluation.finetunes.buckets import measure_buckets
from svd.evaluation.finetunes.camera import measure_adapters
from svd.evaluation.finetunes.decoders import Networks, decode_both, measure_decoders
from svd.evaluation.heldout import HeldOutSet, load_held_out, sample_seed
from svd.evaluation.measure import build_video_extractor
from svd.evaluation.measures.base import Measured, RunFacts
from svd.media.gallery import write_contact_sheet
from svd.runtime.progress import track
from svd.runtime.tracking import Tracker
from svd.runtime.workspace import Workspace
from svd.sampling.interpolate import Interpolator
from svd.sampling.load import load_autoencoder, load_components
from svd.sampling.samplers.adapters import AdapterUse
from svd.sampling.samplers.components import Components, pick_device
from svd.sampling.samplers.record import read_model_record
from svd.sampling.samplers.sampler import image_to_video
from svd.types.artifact import StageReport
from svd.types.base import write_records
from svd.types.camera import ADAPTERS

if TYPE_CHECKING:
    from svd.config.params import Params

STAGE = "evaluate-finetunes"
BASE, BETWEEN, DECODER = "finetune-i2v", "finetune-interpolation", "finetune-decoder"
_SHEET_ROWS, _SHEET_COLUMNS = 8, 8
Videos = list[UInt8[Tensor, "t H W 3"]]


def run(params: "Params", workspace: Workspace, *, tracker: Tracker) -> StageReport:
    """Measure what the recipe derives, and the motion buckets, on held-out clips.

    Raises:
        MissingInputError: A model, the latents or the clips are not there.
    """
    config = params.evaluate_finetunes
    torch.set_num_threads(config.num_threads)
    out = workspace.finetune_evaluation
    with new_folder(out) as partial:
        trials = _Trials(params, workspace, partial)
        measured = [trials.buckets()]
        if params.derive.finetune_interpolation:
            measured.append(trials.between())
        if params.derive.finetune_decoder:
            measured.append(trials.decoders())
        if params.derive.lora:
            measured.append(trials.camera())
        records = [record for part in measured for record in part.records]
        write_records(partial / "records.jsonl", records)
        flat = {metric_key(record.name): record.value for record in records}
        (partial / "metrics.json").write_text(json.dumps(flat, indent=2) + "\n", encoding="utf-8")
    tracker.log_table(
        "finetunes",
        ("metric", "value", "low", "high", "N"),
        [(r.name, r.value, _text(r.low), _text(r.high), r.num) for r in records],
    )
    return StageReport(
        stage=STAGE,
        summary={record.name: round(record.value, 4) for record in records},
        outputs=("reports/finetunes/metrics.json", "reports/finetunes"),
    )


class _Trials:
    """The three comparisons; each reads its held-out clips and loads its models when it runs."""

    def __init__(self, params: "Params", workspace: Workspace, folder: Path) -> None:
        self._params = params
        self._config: EvaluateFinetunesConfig = params.evaluate_finetunes
        self._workspace = workspace
        self._folder = folder

    def between(self) -> Measured:
        """Fill held-out clips from their ends."""
        trial = self._config.interpolation
        stride, sampling = trial.frame_stride, trial.sampling
        span = (sampling.num_frames - 1) * stride + 1
        held_out = self._held_out(sampling, num_frames=span, num_clips=trial.num_clips)
        clips = [item.frames[::stride].contiguous() for item in held_out.clips]
        interpolator = Interpolator(self._load(BETWEEN), sampling)
        facts = self._facts(held_out, BETWEEN, sampling)
        measured, videos = measure_between(facts, clips, interpolator, self._config.seeds)
        rows = [
            rearrange(video, "t c H W -> t H W c")
            for pair in zip(clips, videos, strict=True)
            for video in pair
        ]
        self._draw("interpolation", rows)
        return measured

    def decoders(self) -> Measured:
        """Reconstruct held-out clips with the temporal decoder and with the image decoder."""
        trial, evaluate = self._config.decoder, self._params.evaluate
        held_out = self._held_out(
            evaluate.sampling, num_frames=trial.num_frames, num_clips=trial.num_clips
        )
        clips = [item.frames for item in held_out.clips]
        device = pick_device(self._config.placement.device)
        autoencoder, decoder, scale = load_autoencoder(self._workspace.model(DECODER))
        if decoder is None:
            raise MissingInputError("models/finetune-decoder holds no temporal decoder")
        autoencoder, decoder = autoencoder.to(device), decoder.to(device)
        cache = self._workspace.state / "cache"
        extractor = build_video_extractor(
            evaluate.video_distance, cache, source_frames=trial.num_frames
        )
        picture = None if evaluate.lpips == "none" else load_lpips(cache, evaluate.lpips)
        networks = Networks(
            picture,
            extractor,
            FeatureCache(cache / "features", extractor),
            evaluate.video_distance.divisor,
        )
        facts = self._facts(held_out, DECODER, evaluate.sampling, kind="autoencoder")
        parts = []
        for of, std in (("reconstructions", 0.0), ("noisy latents", trial.latent_noise / scale)):
            made = decode_both(
                clips, autoencoder, decoder, trial=trial, noise_std=std, seed=self._params.seed
            )
            self._draw(
                f"decoders-{of.replace(' ', '-')}",
                [
                    rearrange(video, "t c H W -> t H W c")
                    for three in zip(clips, *made[::-1], strict=True)
                    for video in three
                ],
            )
            parts.append(measure_decoders(facts, clips, *made, networks, of=of))
        return Measured(
            tuple(record for part in parts for record in part.records),
            {name: values for part in parts for name, values in part.per_clip.items()},
        )

    def camera(self) -> Measured:
        """Sample with each adapter and without."""
        trial = self._config.camera
        held_out = self._held_out(
            trial.sampling, num_frames=trial.sampling.num_frames, num_clips=trial.num_clips
        )
        base = self._sample(held_out, trial.sampling, "without adapter")
        adapted = {}
        for name in ADAPTERS:
            path = self._workspace.model(f"lora@{name}") / "weights.safetensors"
            use = AdapterUse(path, trial.scale)
            adapted[name] = self._sample(held_out, trial.sampling, f"lora@{name}", (use,))
        self._draw(
            "adapters", [row for rows in zip(base, *adapted.values(), strict=True) for row in rows]
        )
        return measure_adapters(
            self._facts(held_out, BASE, trial.sampling),
            base,
            adapted,
            self._params.camera_motion,
            fps=trial.sampling.fps,
        )

    def buckets(self) -> Measured:
        """Sample in several motion buckets."""
        trial = self._config.motion
        held_out = self._held_out(
            trial.sampling, num_frames=trial.sampling.num_frames, num_clips=trial.num_clips
        )
        videos = {}
        for bucket in trial.buckets:
            sampling = trial.sampling.model_copy(update={"motion_bucket_id": bucket})
            videos[bucket] = self._sample(held_out, sampling, f"bucket {bucket}")
        self._draw("motion", [row for rows in zip(*videos.values(), strict=True) for row in rows])
        facts = self._facts(held_out, BASE, trial.sampling)
        return measure_buckets(facts, videos, fps=trial.sampling.fps)

    def _held_out(self, sampling: SamplingConfig, *, num_frames: int, num_clips: int) -> HeldOutSet:
        size = sampling.model_copy(update={"num_frames": num_frames})
        config = self._params.evaluate.model_copy(update={"sampling": size, "num_clips": num_clips})
        return load_held_out(config, self._workspace, seed=self._params.seed)

    def _load(self, stage: str, adapters: tuple[AdapterUse, ...] = ()) -> Components:
        return load_components(
            self._workspace.model(stage),
            self._workspace.model("autoencoder"),
            placement=self._config.placement,
            adapters=adapters,
        )

    def _sample(
        self,
        held_out: HeldOutSet,
        sampling: SamplingConfig,
        description: str,
        adapters: tuple[AdapterUse, ...] = (),
    ) -> Videos:
        """Return one video per held-out first frame and seed; seeds are the outer order."""
        components = self._load(BASE, adapters)
        draws = [(item, seed) for seed in self._config.seeds for item in held_out.clips]
        size = sampling.batch_size
        batches = [draws[start : start + size] for start in range(0, len(draws), size)]
        shown = track(batches, total=len(batches), description=description, unit="batches")
        videos: Videos = []
        for batch in shown:
            pictures = torch.stack(
                [rearrange(item.cond_frame, "c H W -> H W c") for item, _ in batch]
            )
            seeds = [sample_seed(item.clip.clip_id, seed) for item, seed in batch]
            videos += list(image_to_video(components, pictures, config=sampling, seeds=seeds))
        return videos

    def _facts(
        self,
        held_out: HeldOutSet,
        stage: str,
        sampling: SamplingConfig,
        *,
        kind: Literal["denoiser", "autoencoder"] = "denoiser",
    ) -> RunFacts:
        settings = json.dumps(sampling.model_dump(mode="json"), sort_keys=True)
        record = read_model_record(self._workspace.model(stage), kind=kind)
        return RunFacts(
            seed=self._params.seed,
            dataset_fingerprint=held_out.fingerprint,
            checkpoint_sha256=record.weights_sha256,
            sampling_fingerprint=hashlib.sha256(settings.encode()).hexdigest(),
            bootstrap=self._config.bootstrap,
        )

    def _draw(self, name: str, videos: Sequence[UInt8[Tensor, "t H W 3"]]) -> None:
        """Write a contact sheet with the first videos, one a row."""
        rows = [video.numpy() for video in videos[:_SHEET_ROWS]]
        columns = min(_SHEET_COLUMNS, *(len(row) for row in rows))
        chosen = [row[np.linspace(0, len(row) - 1, columns).round().astype(int)] for row in rows]
        write_contact_sheet(self._folder / f"{name}.png", chosen, columns=columns)


def _text(value: float | None) -> str:
    return "" if value is None else f"{value:.6g}"
