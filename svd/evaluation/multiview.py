"""Stage evaluate-multiview: unseen objects from all around, from each prior, against the renders.

Source: SVD paper, section 4.5 and Fig. 10a: PSNR, LPIPS and CLIP-S of the multi-view model beside
models with the same budget that start from the image model and from nothing.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
import torch
from einops import rearrange
from jaxtyping import Float, UInt8
from torch import Tensor

from svd.atomic import new_folder
from svd.config.orbits import EvaluateMultiviewConfig
from svd.data.kept import read_stage_records
from svd.data.orbits.archive import over_white_views, read_orbit
from svd.errors import MissingInputError
from svd.evaluation.evaluate import metric_key, reconstruct
from svd.evaluation.heldout import sample_seed
from svd.evaluation.measures.base import RunFacts
from svd.evaluation.protocols.likeness import LIKENESS, Likeness, likeness_scores
from svd.evaluation.protocols.networks import Networks
from svd.media.encode import write_video
from svd.media.gallery import write_contact_sheet
from svd.runtime.progress import track
from svd.runtime.tracking import Tracker
from svd.runtime.workspace import Workspace
from svd.sampling.load import load_components
from svd.sampling.samplers.components import Components
from svd.sampling.samplers.record import read_model_record
from svd.sampling.samplers.sampler import image_to_video
from svd.types.artifact import MetricRecord, StageReport
from svd.types.base import write_records
from svd.types.orbit import PRIORS, OrbitMeta, PriorName

if TYPE_CHECKING:
    from svd.config.params import Params

Frames = UInt8[Tensor, "t c H W"]
PerMetric = Mapping[str, Float[Tensor, " n"]]  # printed name -> one value per orbit
_METRICS: Final[tuple[Likeness, ...]] = ("psnr", "lpips", "clip-s")
# The paper's order: each is to beat the next.
_STEPS: Final = tuple(pairwise(PRIORS))
_SHEET_ORBITS, _SHEET_COLUMNS = 4, 11
_STILL, _DECODED = "the given view throughout", "autoencoder alone"


def run(params: "Params", workspace: Workspace, *, tracker: Tracker) -> StageReport:
    """Make the views of held-out objects from their first ones and compare them.

    Raises:
        MissingInputError: A model or the orbits are not there, or no held-out orbit is long enough.
    """
    config = params.evaluate_multiview
    torch.set_num_threads(config.num_threads)
    metas, truths = _held_out(config, workspace)
    networks = Networks(
        workspace.state / "cache", distance=config.lpips, embedder=config.clip or "tiny"
    )
    videos: dict[PriorName, list[list[Frames]]] = {}
    decoded: list[Frames] = []
    for prior in PRIORS:
        components = load_components(
            workspace.model(f"finetune-multiview@{prior}"),
            workspace.model("autoencoder"),
            placement=config.placement,
        )
        videos[prior] = _sample(components, metas, truths, config, description=prior)
        decoded = decoded or [reconstruct(components, truth) for truth in truths]
    scores: dict[str, PerMetric] = {
        prior: _mean_over_seeds(videos[prior], truths, networks) for prior in PRIORS
    }
    scores[_STILL] = _scores([truth[:1].expand_as(truth) for truth in truths], truths, networks)
    scores[_DECODED] = _scores(decoded, truths, networks)
    records = _records(params, workspace, metas, scores, networks)
    _write(workspace.multiview_evaluation, records, metas, truths, videos, config)
    tracker.log_table(
        "multiview",
        ("metric", "value", "low", "high", "N"),
        [(r.name, r.value, _text(r.low), _text(r.high), r.num) for r in records],
    )
    return StageReport(
        stage="evaluate-multiview",
        summary={record.name: round(record.value, 4) for record in records},
        outputs=("reports/multiview/metrics.json", "reports/multiview/sheet.png"),
    )


def _held_out(
    config: EvaluateMultiviewConfig, workspace: Workspace
) -> tuple[list[OrbitMeta], list[Frames]]:
    """Return the first held-out orbits by id that are long enough, with their views."""
    found = read_stage_records(workspace.orbits / "index.jsonl", OrbitMeta, stage="orbits")
    wanted = config.sampling.num_frames
    heldout = [meta for meta in found if meta.split == "heldout" and meta.num_views == wanted]
    metas = sorted(heldout, key=lambda meta: meta.orbit_id)[: config.num_orbits]
    if not metas:
        raise MissingInputError(f"data/orbits holds no held-out orbit of {wanted} views")
    truths = [
        torch.from_numpy(
            np.ascontiguousarray(
                rearrange(
                    over_white_views(read_orbit(workspace.orbits, meta)), "t H W c -> t c H W"
                )
            )
        )
        for meta in metas
    ]
    return metas, truths


def _sample(
    components: Components,
    metas: Sequence[OrbitMeta],
    truths: Sequence[Frames],
    config: EvaluateMultiviewConfig,
    *,
    description: str,
) -> list[list[Frames]]:
    """Return the videos of every orbit, one per seed."""
    shown = track(
        list(zip(metas, truths, strict=True)),
        total=len(metas),
        description=description,
        unit="orbits",
    )
    videos = []
    for meta, truth in shown:
        elevation = meta.poses[0].elevation_deg if meta.poses else config.sampling.elevation_deg
        sampling = config.sampling.model_copy(update={"elevation_deg": elevation})
        given = rearrange(truth[0], "c H W -> H W c")
        made = image_to_video(
            components,
            torch.stack([given] * len(config.seeds)).contiguous(),
            config=sampling,
            seeds=[sample_seed(meta.orbit_id, seed) for seed in config.seeds],
        )
        videos.append([rearrange(one, "t H W c -> t c H W").contiguous() for one in made])
    return videos


def _mean_over_seeds(
    videos: Sequence[Sequence[Frames]], truths: Sequence[Frames], networks: Networks
) -> PerMetric:
    by_seed = [_scores(some, truths, networks) for some in zip(*videos, strict=True)]
    return {name: torch.stack([one[name] for one in by_seed]).mean(dim=0) for name in by_seed[0]}


def _scores(videos: Sequence[Frames], truths: Sequence[Frames], networks: Networks) -> PerMetric:
    """Return each metric over the views that were not given."""
    found = [
        likeness_scores(_METRICS, video[1:], truth[1:], networks)
        for video, truth in zip(videos, truths, strict=True)
    ]
    return {
        name: torch.tensor([one[name] for one in found], dtype=torch.float64) for name in found[0]
    }


def _records(
    params: "Params",
    workspace: Workspace,
    metas: Sequence[OrbitMeta],
    scores: Mapping[str, PerMetric],
    networks: Networks,
) -> list[MetricRecord]:
    """Return each metric of each prior, what each gains over the next, and the controls."""
    facts = {
        prior: _facts(params, workspace, metas, f"finetune-multiview@{prior}") for prior in PRIORS
    }
    size = params.evaluate_multiview.sampling
    where = f"{size.num_frames}views/views-1-on/{size.width}x{size.height}"
    records: list[MetricRecord] = []
    for metric in (LIKENESS[name] for name in _METRICS):
        name, better = metric.printed(networks), metric.higher_is_better
        variant, card = f"{metric.variant(networks)}/{where}", metric.card(networks)
        records += [
            facts[prior].mean_record(
                f"{name} of unseen views, {prior}",
                scores[prior][name],
                variant=variant,
                higher_is_better=better,
                card=card,
            )
            for prior in PRIORS
        ]
        for first, second in _STEPS:
            gain = scores[first][name] - scores[second][name]
            records.append(
                facts[first].mean_record(
                    f"{name} of unseen views, {first} better than {second} by",
                    gain if better else -gain,
                    variant=f"{variant}/paired",
                    higher_is_better=True,
                    card=card,
                    note="paired: the same objects and seeds; above 0 is the paper's order",
                )
            )
        records += [
            facts[PRIORS[0]].mean_record(
                f"{name} of unseen views (control: {label})",
                scores[label][name],
                variant=variant,
                higher_is_better=better,
                card=card,
                control_of=f"{name} of unseen views, {PRIORS[0]}",
            )
            for label in (_STILL, _DECODED)
        ]
    return records


def _facts(
    params: "Params", workspace: Workspace, metas: Sequence[OrbitMeta], stage: str
) -> RunFacts:
    config = params.evaluate_multiview
    settings = json.dumps(config.sampling.model_dump(mode="json"), sort_keys=True)
    orbits = "\n".join(meta.canonical_json() for meta in metas)
    record = read_model_record(workspace.model(stage), kind="denoiser")
    return RunFacts(
        seed=params.seed,
        dataset_fingerprint=hashlib.sha256(orbits.encode()).hexdigest(),
        checkpoint_sha256=record.weights_sha256,
        sampling_fingerprint=hashlib.sha256(settings.encode()).hexdigest(),
        bootstrap=config.bootstrap,
        clip_ids=tuple(meta.orbit_id for meta in metas),
    )


def _write(
    out: Path,
    records: Sequence[MetricRecord],
    metas: Sequence[OrbitMeta],
    truths: Sequence[Frames],
    videos: Mapping[PriorName, Sequence[Sequence[Frames]]],
    config: EvaluateMultiviewConfig,
) -> None:
    """Write numbers, a sheet (truth, then each prior, per orbit) and the same as videos."""
    with new_folder(out) as partial:
        (partial / "videos").mkdir()
        write_records(partial / "records.jsonl", records)
        flat = {metric_key(record.name): record.value for record in records}
        (partial / "metrics.json").write_text(json.dumps(flat, indent=2) + "\n", encoding="utf-8")
        rows = []
        for index, meta in enumerate(metas[:_SHEET_ORBITS]):
            shown = [truths[index], *(videos[prior][index][0] for prior in PRIORS)]
            pictures = [rearrange(one, "t c H W -> t H W c").numpy() for one in shown]
            rows += pictures
            beside = np.concatenate(pictures, axis=2)
            write_video(partial / "videos" / f"{meta.orbit_id}.mp4", beside, config.sampling.fps)
        write_contact_sheet(partial / "sheet.png", rows, columns=_SHEET_COLUMNS)


def _text(value: float | None) -> str:
    return "" if value is None else f"{value:.6g}"
