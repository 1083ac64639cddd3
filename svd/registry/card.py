"""The model card: a version's records as a page for people."""

from collections.abc import Iterator, Sequence

from svd.types.artifact import MetricRecord
from svd.types.version import ModelVersion

_COMPARABILITY = {
    "published-protocol": "as published numbers",
    "port": "close to published numbers, not the same code",
    "internal": "only among our own versions",
}


def render_card(version: ModelVersion, *, stages: Sequence[str]) -> str:
    """Return the card as Markdown.

    Args:
        version: What is known of the version.
        stages: Where it is in use now, e.g. ("staging",).
    """
    parts = (_head, _use, _metrics, _gates, _data, _making, _limits)
    lines = [line for part in parts for line in part(version, stages)]
    return "\n".join(lines).rstrip() + "\n"


def _head(version: ModelVersion, stages: Sequence[str]) -> Iterator[str]:
    model = version.model
    yield f"# {version.name} {version.version or '(not registered)'}"
    yield ""
    yield (
        f"A {model.kind} of {model.num_parameters:,} parameters from the stage `{model.stage}`, "
        f"after {model.step:,} steps and {model.examples_seen:,} examples."
    )
    yield f"In use: {', '.join(stages) or 'nowhere'}."
    yield ""


def _use(version: ModelVersion, stages: Sequence[str]) -> Iterator[str]:
    del stages
    if version.version is None:
        return
    yield "## Get it"
    yield ""
    yield "```"
    yield f"svd registry fetch {version.version} --repo GIT_URL --store STORE --out FOLDER"
    yield f"dvc artifacts get GIT_URL {version.name} --rev {version.version}"
    yield "```"
    yield ""
    yield "| file | bytes | sha256 |"
    yield "|---|---|---|"
    for file in version.files:
        yield f"| {file.path} | {file.size_bytes:,} | `{file.sha256}` |"
    yield ""


def _metrics(version: ModelVersion, stages: Sequence[str]) -> Iterator[str]:
    del stages
    yield "## Metrics"
    yield ""
    yield "| metric | value | interval | n | better | comparable | variant |"
    yield "|---|---|---|---|---|---|---|"
    yield from (_metric_row(metric) for metric in version.metrics)
    yield ""


def _metric_row(metric: MetricRecord) -> str:
    interval = "" if metric.low is None else f"{metric.low:.4g} to {metric.high:.4g}"
    cells = (
        metric.name,
        f"{metric.value:.6g}",
        interval,
        str(metric.num),
        "higher" if metric.higher_is_better else "lower",
        _COMPARABILITY[metric.comparability],
        f"`{metric.variant}`",
    )
    return f"| {' | '.join(cells)} |"


def _gates(version: ModelVersion, stages: Sequence[str]) -> Iterator[str]:
    del stages
    yield "## Gates"
    yield ""
    yield from (f"- {item.verdict}: {item.reason}" for item in version.decision.verdicts)
    yield ""


def _data(version: ModelVersion, stages: Sequence[str]) -> Iterator[str]:
    del stages
    lineage = version.lineage
    yield "## Data"
    yield ""
    yield (
        f"{lineage.num_clips:,} clips in {lineage.num_shards:,} shards, "
        f"from {lineage.num_videos:,} source videos:"
    )
    yield ""
    yield from (f"- {num:,} under {licence}" for licence, num in lineage.licences.items())
    yield from (f"- missing: {sentence}" for sentence in lineage.missing)
    yield ""


def _making(version: ModelVersion, stages: Sequence[str]) -> Iterator[str]:
    del stages
    yield "## How it was made"
    yield ""
    yield f"- code: commit `{version.code_commit}`"
    yield f"- recipe: params.yaml of the version's commit, sha256 `{version.params_sha256[:16]}`"
    yield f"- stages: {', '.join(stage.stage for stage in version.lineage.stages) or 'unknown'}"
    yield f"- W&B run of the training: `{version.wandb_run_id}`"
    yield f"- started from weights `{(version.model.init_sha256 or 'none')[:16]}`"
    yield ""


def _limits(version: ModelVersion, stages: Sequence[str]) -> Iterator[str]:
    del stages
    yield "## Limits"
    yield ""
    yield "- It has seen only the videos above; what they lack it cannot draw well."
    if any(metric.comparability == "internal" for metric in version.metrics):
        yield "- Numbers marked as ours must not be compared with published ones."
    yield "- Its licence is bound by the licences of its sources."
