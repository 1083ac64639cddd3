"""Gates, registry and lineage: may this model be used, and what is it made of."""

from collections import Counter, defaultdict
from dataclasses import dataclass

from svd.evaluation.report import words
from svd.evaluation.report.sources import Sources
from svd.evaluation.report.svg import number, tick_label
from svd.evaluation.report.training import DENOISER_STAGES
from svd.types.annotation import Verdict
from svd.types.artifact import ModelRecord
from svd.types.gate import GateVerdict
from svd.types.shard import ShardManifest
from svd.types.version import Candidate
from svd.types.video import Clip, RawVideo


@dataclass(frozen=True, slots=True)
class RegisteredVersion:
    """One line of the registry, as the command that makes the page read it from git."""

    version: str
    stages: tuple[str, ...]  # that hold it, e.g. "production"


@dataclass(frozen=True, slots=True)
class GateRow:
    """What one gate said."""

    verdict: str
    metric: str
    rule: str
    value: str
    num: str
    reason: str


@dataclass(frozen=True, slots=True)
class Registration:
    """What register decided, and what the registry holds."""

    status: str
    name: str
    version: str | None
    reasons: tuple[str, ...]
    gates: tuple[GateRow, ...]
    weights: str


@dataclass(frozen=True, slots=True)
class Link:
    """A node of the chain from the sources to the model.

    Attributes:
        title: What it is.
        facts: Lines below the title.
        digest: The hash that names it, or "".
        checked: Whether its hash is the one that its neighbour's record names; None if there is
            nothing to compare.
    """

    title: str
    facts: tuple[str, ...]
    digest: str
    checked: bool | None


@dataclass(frozen=True, slots=True)
class SourceRow:
    """A source video and what became of it; `name` is the last part of `origin`."""

    name: str
    origin: str
    digest: str
    licence: str
    length: str
    picture: str
    num_clips: int
    num_train: int
    num_heldout: int


@dataclass(frozen=True, slots=True)
class Lineage:
    """The chain, and every source at its end."""

    chain: tuple[Link, ...]
    rows: tuple[SourceRow, ...]
    num_unused: int  # sources none of whose clips was kept


def read_registration(sources: Sources) -> Registration | None:
    """Return what register decided, or None if it has not run."""
    path = sources.workspace.registration / "candidate.json"
    candidate = sources.record(path, Candidate)
    if candidate is None:
        return None
    version = candidate.version
    return Registration(
        status=candidate.status,
        name=version.name,
        version=version.version,
        reasons=candidate.reasons,
        gates=tuple(_gate_row(item) for item in version.decision.verdicts),
        weights=words.short(version.weights_sha256),
    )


def read_lineage(sources: Sources) -> Lineage | None:
    """Return the chain from source videos to the model, or None before ingest has run."""
    workspace = sources.workspace
    videos = sources.records(workspace.raw / "index.jsonl", RawVideo)
    if not videos:
        return None
    clips = sources.records(workspace.clips / "index.jsonl", Clip)
    verdicts = sources.records(workspace.filtered / "verdicts.jsonl", Verdict)
    split_of = {verdict.clip_id: verdict.split for verdict in verdicts if verdict.kept}
    clips_of: dict[str, Counter[str]] = defaultdict(Counter)
    for clip in clips:
        clips_of[clip.span.video_id]["all"] += 1
        split = split_of.get(clip.clip_id)
        if split is not None:
            clips_of[clip.span.video_id][split] += 1
    rows = [_source_row(video, clips_of[video.video_id]) for video in videos]
    rows.sort(key=lambda row: (-row.num_train - row.num_heldout, row.origin))
    used = [row for row in rows if row.num_train + row.num_heldout]
    chain = [
        Link("Source videos", (words.plural(len(videos), "video"),), "", None),
        Link(
            "Clips",
            (words.plural(len(clips), "clip"), f"{words.count(len(split_of))} kept"),
            "",
            None,
        ),
        *_model_chain(sources),
    ]
    candidate = sources.record(workspace.registration / "candidate.json", Candidate)
    if candidate is not None:
        chain.append(_version_link(candidate, chain[-1]))
    return Lineage(tuple(chain), tuple(rows), num_unused=len(rows) - len(used))


def _version_link(candidate: Candidate, last: Link) -> Link:
    """Return the end of the chain; ticked if the version holds the last stage's weights."""
    version = candidate.version
    digest = words.short(version.weights_sha256)
    label = version.version or f"{candidate.status}, no version"
    return Link(version.name, (label,), digest, digest == last.digest)


def _gate_row(item: GateVerdict) -> GateRow:
    gate = item.gate
    if gate.threshold is None:
        rule = "no worse than production" + (
            f" by {tick_label(gate.margin)}" if gate.margin else ""
        )
    else:
        rule = f"{gate.comparison.replace('-', ' ')} {tick_label(gate.threshold)}"
    judged = " (unfavourable end of the interval)" if gate.judged_on == "interval" else ""
    return GateRow(
        verdict=item.verdict,
        metric=gate.metric,
        rule=f"{rule}{judged}, N at least {gate.min_num}",
        value="-" if item.value is None else number(item.value),
        num="-" if item.num is None else str(item.num),
        reason=item.reason,
    )


def _model_chain(sources: Sources) -> list[Link]:
    """Return shards, autoencoder and stages; each is checked against the hash its reader names."""
    workspace = sources.workspace
    manifest = sources.record(workspace.latents / "manifest.json", ShardManifest)
    models = {
        stage: sources.record(workspace.model(stage) / "model.json", ModelRecord)
        for stage in ("autoencoder", *DENOISER_STAGES)
    }
    trained = [models[stage] for stage in DENOISER_STAGES]
    links = []
    autoencoder = models["autoencoder"]
    if autoencoder is not None:
        named = manifest and [one.sha256 for one in manifest.encoders if one.role == "autoencoder"]
        digest = autoencoder.weights_sha256
        checked = digest in named if named else None
        size = f"{words.count(autoencoder.num_parameters)} parameters"
        links.append(Link("Autoencoder", (size,), words.short(digest), checked))
    if manifest is not None:
        digest = manifest.content_hash()
        readers = [model.dataset_fingerprint for model in trained if model is not None]
        checked = all(reader == digest for reader in readers) if readers else None
        num = sum(shard.num_examples for shard in manifest.shards)
        facts = (words.plural(len(manifest.shards), "shard"), words.plural(num, "example"))
        links.append(Link("Latents", facts, words.short(digest), checked))
    for title, model in zip(DENOISER_STAGES.values(), trained, strict=True):
        if model is None:
            continue
        links.append(
            Link(
                title,
                (f"{words.count(model.num_parameters)} parameters", f"step {model.step:,}"),
                words.short(model.weights_sha256),
                _is_followed(model, trained),
            )
        )
    return links


def _is_followed(model: ModelRecord, trained: list[ModelRecord | None]) -> bool | None:
    """Return whether the next stage started from these very weights; None for the last."""
    index = trained.index(model)
    following = trained[index + 1] if index + 1 < len(trained) else None
    return None if following is None else following.init_sha256 == model.weights_sha256


def _source_row(video: RawVideo, counts: Counter[str]) -> SourceRow:
    probe = video.probe
    return SourceRow(
        name=video.origin.rsplit("/", 1)[-1],
        origin=video.origin,
        digest=words.short(video.video_id),
        licence=video.licence,
        length=words.duration(probe.duration_s),
        picture=f"{probe.width}x{probe.height}, {tick_label(float(probe.fps))} fps, {probe.codec}",
        num_clips=counts["all"],
        num_train=counts["train"],
        num_heldout=counts["heldout"],
    )
