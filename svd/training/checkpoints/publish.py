"""The out folder of a training stage: averaged weights, their card, and the curves."""

import hashlib
import json
import math
import shutil
from pathlib import Path

from safetensors import safe_open

from svd.atomic import new_folder
from svd.runtime.fingerprint import file_sha256
from svd.training.stage.job import RunFolder, TrainingJob
from svd.training.stage.plan import StagePlan
from svd.training.stage.runs import read_adoptions
from svd.types.artifact import ModelRecord


def final_weights(job: TrainingJob) -> Path:
    """Return where the last phase leaves its weights."""
    return _phase_weights(job, len(job.config.phases) - 1)


def publish(plan: StagePlan, out: Path) -> ModelRecord:
    """Write the out folder, complete or not at all; nothing in it hangs on the clock.

    The last phase's model lies at its top; those of phases that are to be kept, below phases/.
    """
    job = plan.job
    with new_folder(out) as partial:
        last = len(job.config.phases) - 1
        for index, phase in enumerate(job.config.phases[:-1]):
            if phase.keep:
                _publish_phase(plan, index, partial / "phases" / phase.name)
        record = _publish_phase(plan, last, partial)
        shutil.copyfile(RunFolder(Path(job.run)).history, partial / "history.jsonl")
        if RunFolder(Path(job.run)).samples.is_dir():
            shutil.copytree(RunFolder(Path(job.run)).samples, partial / "samples")
    return record


def _phase_weights(job: TrainingJob, index: int) -> Path:
    return RunFolder(Path(job.run)).phase_weights(index, job.config.phases[index].name)


def _publish_phase(plan: StagePlan, index: int, folder: Path) -> ModelRecord:
    folder.mkdir(parents=True, exist_ok=True)
    weights = folder / "weights.safetensors"
    shutil.copyfile(_phase_weights(plan.job, index), weights)
    record = model_record(plan, index, weights)
    (folder / "model.json").write_text(record.canonical_json(), encoding="utf-8")
    return record


def model_record(plan: StagePlan, index: int, weights: Path) -> ModelRecord:
    """Return the card of weights that lie in a file, as those of a finished phase."""
    job, manifest = plan.job, plan.manifest
    phases = job.config.phases_to(index)
    adopted = read_adoptions(RunFolder(Path(job.run)))
    return ModelRecord(
        stage=job.stage,
        kind="denoiser" if job.config.adapter is None else "lora",
        architecture=(job.config.adapter or job.denoiser).model_dump(mode="json"),
        weights_sha256=file_sha256(weights),
        num_parameters=_count_parameters(weights),
        step=sum(phase.num_steps for phase in phases),
        examples_seen=sum(phase.num_steps * phase.data.batch_size for phase in phases),
        params_fingerprint=_fingerprint(job),
        dataset_fingerprint=manifest.content_hash(),
        init_sha256=plan.init_sha256,
        run_fingerprint=plan.name,
        extras={
            "objective": job.objective,
            "phases": [phase.name for phase in phases],
            "num_frames": phases[-1].data.num_frames,
            "height": phases[-1].data.height,
            "width": phases[-1].data.width,
            **({"went_on_from": [one.run for one in adopted]} if adopted else {}),
            **({"pose": list(job.config.pose)} if job.config.pose else {}),
            "fps": manifest.model_dump(mode="json")["fps"],
            "latent_scale": manifest.latent_scale,
            "motion_table": manifest.motion_table.model_dump(mode="json"),
            "encoders": [encoder.model_dump(mode="json") for encoder in manifest.encoders],
            **{
                role: section.model_dump(mode="json")
                for role, section in plan.context_encoder.items()
            },
        },
    )


def _fingerprint(job: TrainingJob) -> str:
    sections = {name: getattr(job, name).model_dump(mode="json") for name in ("config", "denoiser")}
    return hashlib.sha256(json.dumps([job.seed, sections], sort_keys=True).encode()).hexdigest()


def _count_parameters(weights: Path) -> int:
    with safe_open(weights, framework="np") as file:
        return sum(math.prod(file.get_slice(name).get_shape()) for name in file.keys())  # noqa: SIM118
