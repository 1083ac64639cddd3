"""What changed between two versions: recipe, code, data, metrics."""

from collections.abc import Iterator, Mapping
from typing import NamedTuple

import yaml

from svd.registry.catalog import Catalog
from svd.types.artifact import MetricRecord
from svd.types.version import ModelVersion


class Change(NamedTuple):
    """One thing in which two versions differ."""

    part: str  # "recipe", "code", "data", "metric", "weights"
    key: str
    before: str
    after: str


def diff_versions(catalog: Catalog, before: str, after: str) -> list[Change]:
    """Return everything in which two versions differ; empty if nothing does.

    Raises:
        GateError: A version does not exist or has no record.
    """
    old, new = catalog.record(before), catalog.record(after)
    return [
        *_recipe(catalog, before, after),
        *_code(old, new),
        *_data(old, new),
        *_weights(old, new),
        *_metrics(old, new),
    ]


def _recipe(catalog: Catalog, before: str, after: str) -> Iterator[Change]:
    old, new = (
        dict(_leaves(yaml.safe_load(catalog.repo.read(catalog.commit(v), "params.yaml") or "{}")))
        for v in (before, after)
    )
    yield from _mapping("recipe", old, new)


def _code(old: ModelVersion, new: ModelVersion) -> Iterator[Change]:
    yield from _pair("code", "commit", str(old.code_commit)[:12], str(new.code_commit)[:12])
    yield from _mapping("code", _code_deps(old), _code_deps(new))


def _code_deps(version: ModelVersion) -> dict[str, str]:
    """Return the inputs that no stage made: the sources, with their hashes."""
    made = {path for stage in version.lineage.stages for path in stage.outs}
    return {
        f"{stage.stage}: {path}": md5[:12]
        for stage in version.lineage.stages
        for path, md5 in stage.deps.items()
        if path not in made
    }


def _data(old: ModelVersion, new: ModelVersion) -> Iterator[Change]:
    yield from _mapping("data", _short(old.lineage.manifests), _short(new.lineage.manifests))
    for key in ("num_videos", "num_clips", "num_shards"):
        before, after = getattr(old.lineage, key), getattr(new.lineage, key)
        yield from _pair("data", key.removeprefix("num_"), str(before), str(after))
    yield from _mapping("data", _licences(old), _licences(new))


def _licences(version: ModelVersion) -> dict[str, str]:
    return {f"videos under {key}": str(num) for key, num in version.lineage.licences.items()}


def _weights(old: ModelVersion, new: ModelVersion) -> Iterator[Change]:
    before = {file.path: file.sha256 for file in old.files}
    after = {file.path: file.sha256 for file in new.files}
    yield from _mapping("weights", _short(before), _short(after))


def _metrics(old: ModelVersion, new: ModelVersion) -> Iterator[Change]:
    """Yield metric by metric; records of different variants are told apart, not compared."""

    def values(version: ModelVersion) -> dict[str, str]:
        return {f"{m.name} [{m.variant}]": _value(m) for m in version.metrics}

    yield from _mapping("metric", values(old), values(new))


def _value(metric: MetricRecord) -> str:
    interval = "" if metric.low is None else f" ({metric.low:.4g} to {metric.high:.4g})"
    return f"{metric.value:.6g}{interval}"


def _mapping(part: str, old: Mapping[str, str], new: Mapping[str, str]) -> Iterator[Change]:
    for key in [*old, *(key for key in new if key not in old)]:
        yield from _pair(part, key, old.get(key, "(none)"), new.get(key, "(none)"))


def _pair(part: str, key: str, before: str, after: str) -> Iterator[Change]:
    if before != after:
        yield Change(part, key, before, after)


def _short(hashes: Mapping[str, str]) -> dict[str, str]:
    return {key: value[:12] for key, value in hashes.items()}


def _leaves(tree: object, prefix: str = "") -> Iterator[tuple[str, str]]:
    if isinstance(tree, dict):
        for key, value in tree.items():
            yield from _leaves(value, f"{prefix}.{key}" if prefix else str(key))
    else:
        yield prefix, str(tree)
