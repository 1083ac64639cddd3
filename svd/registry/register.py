"""The stage `register`: put what was measured through the gates and register a version.

The stage itself succeeds whatever the gates say; what it decided and why is its out.
"""

import hashlib
import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Final

import yaml

from svd.atomic import write_text
from svd.config.registry import RegisterConfig
from svd.data.lineage import clip_rows, keep_table, lineage_of, lock_sha256, table_path
from svd.errors import MissingInputError
from svd.registry.card import render_card
from svd.registry.catalog import Catalog
from svd.registry.freshness import stale_stages
from svd.registry.gate import decide
from svd.registry.git import GitRepo
from svd.registry.mirror import mirror_version
from svd.registry.publish import find_equal, production_metrics, register_version
from svd.registry.remote import shared_config
from svd.runtime.fingerprint import file_sha256
from svd.runtime.revision import Revision, find_revision
from svd.runtime.storage import default_store_uri, open_store, put_object
from svd.runtime.tracking import Tracker, tracker_run_id
from svd.runtime.workspace import Workspace
from svd.types.artifact import MetricRecord, ModelRecord, StageReport
from svd.types.base import read_records
from svd.types.version import Candidate, ModelVersion, VersionFile

if TYPE_CHECKING:
    from svd.config.params import Params

logger = logging.getLogger(__name__)

OFFERED_MODEL: Final = "finetune-i2v"
# What a person needs to make a video: the denoiser, and the autoencoder that decodes its latents.
_MODEL_FOLDERS: Final = (OFFERED_MODEL, "autoencoder")
_MODEL_FILES: Final = ("weights.safetensors", "model.json")
_OPTIONAL_FILES: Final = ("temporal_decoder.safetensors",)  # an autoencoder may have one
_DIRTY_SHOWN: Final = 5  # paths named in the sentence about uncommitted code


def run(params: "Params", workspace: Workspace, *, tracker: Tracker) -> StageReport:
    """Judge the evaluated model and register a version if nothing speaks against it.

    Raises:
        MissingInputError: The model or its metric records are not there.
        StoreError: The store failed after its retries; nothing is registered.
    """
    candidate = register(params.registration, workspace)
    out = workspace.registration
    write_text(out / "candidate.json", candidate.model_dump_json(indent=2) + "\n")
    write_text(out / "card.md", render_card(candidate.version, stages=()))
    version, decision = candidate.version, candidate.version.decision
    tracker.log_table(
        "gates",
        ("metric", "comparison", "verdict", "reason"),
        [(v.gate.metric, v.gate.comparison, v.verdict, v.reason) for v in decision.verdicts],
    )
    passed = sum(item.verdict == "pass" for item in decision.verdicts)
    return StageReport(
        stage="register",
        summary={
            "status": candidate.status,
            "version": f"{version.name} {version.version or '(none)'}",
            "gates passed": f"{passed} of {len(decision.verdicts)}",
            "source videos": version.lineage.num_videos,
            "checkpoint sha256": version.weights_sha256[:16],
        },
        warnings=candidate.reasons,
        outputs=("reports/register/candidate.json", "reports/register/card.md"),
    )


def register(config: RegisterConfig, workspace: Workspace) -> Candidate:
    """Decide about the model in a workspace and register it if it passes; see `run`."""
    root = workspace.root
    revision = find_revision(root)
    version = _describe(config, workspace, revision)
    reasons = [*_refusals(version, workspace, revision), *version.decision.reasons]
    if revision is not None:
        equal = find_equal(Catalog.read(root, config.name), version)
        if equal is not None:
            return Candidate(status="registered", reasons=(), version=equal)
    if reasons:
        logger.warning("candidate refused", extra={"model": config.name, "reasons": len(reasons)})
        return Candidate(status="refused", reasons=tuple(reasons), version=version)
    _upload(version, workspace)
    config_text = shared_config(root)
    extra = {} if config_text is None else {".dvc/config": config_text}
    registered = register_version(root, version, series=config.series, extra_files=extra)
    mirror_version(registered, open_store(default_store_uri(workspace)))
    logger.info("version registered", extra={"model": config.name, "version": registered.version})
    return Candidate(status="registered", reasons=(), version=registered)


def _describe(
    config: RegisterConfig, workspace: Workspace, revision: Revision | None
) -> ModelVersion:
    files = tuple(_files(workspace))
    model_json = workspace.model(OFFERED_MODEL) / "model.json"
    model = ModelRecord.parse(model_json.read_text(encoding="utf-8"), origin=str(model_json))
    metrics = _metrics(workspace)
    production = None
    if revision is not None:
        production = production_metrics(Catalog.read(workspace.root, config.name))
    lineage = lineage_of(workspace)
    table = None if lineage.missing else keep_table(workspace, clip_rows(workspace))
    return ModelVersion(
        name=config.name,
        version=None,
        model=model,
        files=files,
        code_commit=None if revision is None else revision.commit,
        uncommitted=() if revision is None else revision.changed,
        params_sha256=_params_sha256(workspace.params_file),
        dvc_lock_sha256=lock_sha256(workspace.root),
        metrics=metrics,
        decision=decide(config.gates, metrics, production),
        lineage=lineage,
        lineage_table_sha256=table,
        wandb_run_id=tracker_run_id(OFFERED_MODEL, model.run_fingerprint),
    )


def _refusals(
    version: ModelVersion, workspace: Workspace, revision: Revision | None
) -> Iterator[str]:
    """Yield why this candidate may not become a version, whatever its metrics are."""
    if revision is None:
        yield "not in a git repository with a commit: nothing to tie a version to"
    else:
        if GitRepo(workspace.root).text("rev-parse", "--show-prefix").strip():
            yield "the project is not at the top of its git repository"
        if not revision.is_clean:
            shown = ", ".join(revision.changed[:_DIRTY_SHOWN])
            more = len(revision.changed) - _DIRTY_SHOWN
            yield f"code is not committed: {shown}" + (f" and {more} more" if more > 0 else "")
    yield from (f"lineage: {sentence}" for sentence in version.lineage.missing)
    if not version.lineage.missing:
        yield from (f"lineage: {sentence}" for sentence in stale_stages(workspace.root))
    if version.model.weights_sha256 != version.weights_sha256:
        yield f"model.json of {OFFERED_MODEL} tells of other weights than lie beside it"
    measured = {metric.checkpoint_sha256 for metric in version.metrics}
    if measured - {version.weights_sha256}:
        yield "the metrics are of another checkpoint: run `dvc repro evaluate`"


def _files(workspace: Workspace) -> Iterator[VersionFile]:
    for stage in _MODEL_FOLDERS:
        for name in (*_MODEL_FILES, *_OPTIONAL_FILES):
            path = workspace.model(stage) / name
            if not path.is_file():
                if name in _OPTIONAL_FILES:
                    continue
                raise MissingInputError(f"{path} is not there: run `dvc repro {stage}`")
            yield VersionFile(
                path=path.relative_to(workspace.root).as_posix(),
                sha256=file_sha256(path),
                size_bytes=path.stat().st_size,
            )


def _metrics(workspace: Workspace) -> tuple[MetricRecord, ...]:
    path = workspace.evaluation / "records.jsonl"
    if not path.is_file():
        raise MissingInputError(f"{path} is not there: run `dvc repro evaluate`")
    return tuple(read_records(path, MetricRecord))


def _params_sha256(path: Path) -> str:
    tree = yaml.safe_load(path.read_text(encoding="utf-8"))
    return hashlib.sha256(json.dumps(tree, sort_keys=True, default=str).encode()).hexdigest()


def _upload(version: ModelVersion, workspace: Workspace) -> None:
    """Put the version's bytes into the store before any tag names them."""
    store = open_store(default_store_uri(workspace))
    for file in version.files:
        put_object(store, workspace.root / file.path)
    if version.lineage_table_sha256 is not None:
        put_object(store, table_path(workspace, version.lineage_table_sha256))
