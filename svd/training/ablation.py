"""Proxies: the same short training on different parts of the clips, and the same prompts sampled.

Each proxy is the stage pretrain-video, its first phase alone, run in a small checkout of its own:
a folder with the recipe, links to code and models, and latents of one part. So training, resuming
and fingerprints are those of the stage, and nothing of it is written twice. All clips are encoded
once; parts are cut out of the shards.
"""

import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import numpy as np
import yaml

import svd.data.encode
from svd.config.load import parse_params
from svd.config.params import Params
from svd.config.sampling import PlacementConfig
from svd.curation.filter.ablation import Part, clips_of
from svd.curation.filter.stage import filter_clips
from svd.data.kept import read_stage_records
from svd.data.stream.shards import MANIFEST, load_manifest, read_index
from svd.data.stream.subset import write_subset
from svd.errors import ConfigError, MissingInputError
from svd.media.formats import OutputFormat
from svd.runtime.fingerprint import path_identity
from svd.runtime.storage import open_store
from svd.runtime.tracking import open_tracker
from svd.runtime.workspace import Workspace
from svd.sampling.load import load_components
from svd.sampling.request import plan_draws, prompt_subjects, resolve_settings
from svd.sampling.samplers.record import read_model_record
from svd.sampling.session import Session, run_session
from svd.training.stage import stages
from svd.types.annotation import Annotation, SplitName
from svd.types.stage import TrainingStage

STAGE: Final[TrainingStage] = "pretrain-video"  # text-to-video from the image model, as the paper's
EVERYTHING: Final = "everything"  # the small checkout in which all clips are encoded
_GROUP: Final = "threshold-study"  # of the proxies' runs in W&B


def proxy_params(params: Params, *, num_steps: int | None) -> Params:
    """Return the recipe of a proxy: one phase of so many steps (None: as the recipe has it).

    Thresholds are gone; near-duplicates and the high-quality tier stay: only the part differs.
    """
    section = params.training(STAGE)
    phase = section.phases[0]
    steps = num_steps or phase.num_steps
    short = phase.model_copy(
        update={"num_steps": steps, "lr_warmup_steps": min(phase.lr_warmup_steps, steps // 10)}
    )
    tree = params.model_dump(mode="json", by_alias=True)
    tree[STAGE] |= {"phases": [short.model_dump(mode="json")], "samples": None}
    tree["filter"] |= {"preset": None, "thresholds": {}}
    return parse_params(yaml.safe_dump(tree), origin="recipe of the proxies")


def encode_everything(params: Params, home: Workspace, folder: Path) -> Workspace:
    """Encode every clip, whatever the recipe's thresholds say of it; return where it lies.

    Args:
        params: Of `proxy_params`.
        home: The checkout.
        folder: Of the study.

    Raises:
        MissingInputError: A stage before has not run.
    """
    place = _small_checkout(
        folder / EVERYTHING, home, params, links=("data/raw", "data/clips", "data/annotations")
    )
    if (place.latents / MANIFEST).is_file():  # the study's plan says of which clips and models
        return place
    filter_clips(
        params.filter, annotations=place.annotations, clips=place.clips, out=place.filtered
    )
    with open_tracker("encode", workspace=place, config={}, group=_GROUP) as tracker:
        svd.data.encode.run(params, place, tracker=tracker)
    return place


def proxy_identity(params: Params, home: Workspace) -> str:
    """Return a sha256 (hex) of all that decides a proxy but its part and its length."""
    section = params.training(STAGE)
    models = ["autoencoder", *([] if section.init_stage is None else [section.init_stage])]
    parts = [
        params.model_dump(mode="json", by_alias=True),
        [path_identity(home.model(name)) for name in models if home.model(name).is_dir()],
    ]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def fixed_prompts(params: Params, home: Workspace, *, num: int, seed: int) -> tuple[str, ...]:
    """Return captions of clips, of the source that the proxies train on most, each once.

    Raises:
        MissingInputError: No clip has such a caption.
    """
    weights = params.training(STAGE).phases[0].data.caption_weights
    wanted = max(weights, key=lambda source: weights[source], default=None)
    rows = read_annotations(home)
    texts = {one.text for row in rows for one in row.captions if one.source == wanted}
    if not texts:
        raise MissingInputError(f"no clip has a caption of source {wanted}: name --prompts FILE")
    order = np.random.default_rng(seed).permutation(np.array(sorted(texts)))
    return tuple(order[:num].tolist())


def read_annotations(home: Workspace) -> tuple[Annotation, ...]:
    """Return all annotations of a checkout.

    Raises:
        MissingInputError: annotate has not run.
    """
    path = home.annotations / "annotations.jsonl"
    return tuple(read_stage_records(path, Annotation, stage="annotate"))


def train_proxy(params: Params, home: Workspace, folder: Path, part: Part) -> int:
    """Train the proxy of a part, or go on where it was; return how many clips it trains on.

    All proxies are validated on the same held-out clips and see the same number of examples.

    Raises:
        ConfigError: The part holds no training clip.
        MissingInputError: `encode_everything` has not run.
    """
    place = _small_checkout(part_folder(folder, part), home, params, links=())
    num_clips = _write_part(params, home, Workspace(folder / EVERYTHING), place, part)
    with open_tracker(STAGE, workspace=place, config={"part": part.name}, group=_GROUP) as tracker:
        stages.run(STAGE, params, place, tracker=tracker)
    return num_clips


def sample_proxy(
    folder: Path,
    part: Part,
    prompts: Sequence[str],
    settings: dict[str, object],
    *,
    seed: int,
    on_video: Callable[[], None] = lambda: None,
) -> Path:
    """Sample every prompt with a proxy, all proxies from the same noise; return the videos' folder.

    Videos that are there already are left.

    Args:
        folder: Of the study.
        part: Whose proxy.
        prompts: What is asked for.
        settings: Dotted keys of the sampling section that differ from the model's defaults.
        seed: Of the noise.
        on_video: Called after each video.
    """
    place = Workspace(part_folder(folder, part))
    out = place.root / "samples"
    draws = plan_draws(prompt_subjects(prompts), first_seed=seed, num_samples=1)
    missing = [draw for draw in draws if not (out / f"{draw.name}.json").is_file()]
    if not missing:
        return out
    out.mkdir(exist_ok=True)
    record = read_model_record(place.model(STAGE), kind="denoiser")
    session = Session(
        components=load_components(
            place.model(STAGE),
            place.model("autoencoder"),
            placement=PlacementConfig(),
        ),
        record=record,
        config=resolve_settings(record, None, settings),
        out=out,
        formats=(OutputFormat.MP4,),
        watermark=False,  # nobody but raters sees them
    )
    for _ in run_session(session, missing, on_step=lambda: None):
        on_video()
    return out


def part_folder(folder: Path, part: Part) -> Path:
    """Return the small checkout of a part's proxy."""
    return folder / "proxies" / part.name


def _write_part(
    params: Params, home: Workspace, everything: Workspace, place: Workspace, part: Part
) -> int:
    manifest = everything.latents / MANIFEST
    if not manifest.is_file():
        raise MissingInputError(f"{manifest} is not there: all clips are encoded first")
    store = open_store(str(everything.latents.absolute()))
    encoded: dict[SplitName, set[str]] = {"train": set(), "heldout": set()}
    for shard in load_manifest(store).shards:
        encoded[shard.split] |= {entry.key for entry in read_index(store, shard).examples}
    train = encoded["train"] & clips_of(part, read_annotations(home), params.filter)
    if not train:
        raise ConfigError(f"{part.name}: none of {len(encoded['train'])} training clips is left")
    write_subset(store, {"train": train, "heldout": encoded["heldout"]}, place.latents)
    return len(train)


def _small_checkout(
    folder: Path, home: Workspace, params: Params, *, links: Sequence[str]
) -> Workspace:
    """Make a folder in which a stage runs as in a checkout, with this recipe."""
    (folder / "models").mkdir(parents=True, exist_ok=True)
    (folder / "data").mkdir(exist_ok=True)
    text = yaml.safe_dump(params.model_dump(mode="json", by_alias=True), sort_keys=False)
    (folder / "params.yaml").write_text(text, encoding="utf-8")
    models = [f"models/{path.name}" for path in (home.root / "models").glob("*") if path.is_dir()]
    models = [name for name in models if name != f"models/{STAGE}"]
    for name in ("svd", "dvc.yaml", "weights", *models, *links):
        link, target = folder / name, (home.root / name).absolute()
        if target.exists() and not link.is_symlink():
            link.symlink_to(target)
    return Workspace(folder)
