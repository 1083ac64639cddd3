"""What a stage would compute, as one short name: the key of its live state below `.runs/`.

Two runs with equal fingerprints compute the same bytes, so the second may resume the first; any
change of parameters, inputs or code gives a new name and thereby a clean start. The parts are
those dvc.yaml declares for the stage; outs play no role.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping
from fnmatch import fnmatch
from pathlib import Path

import yaml

from svd.errors import ConfigError, MissingInputError
from svd.runtime.graph import expand_stages
from svd.runtime.workspace import Workspace

FINGERPRINT_LENGTH = 20  # hex digits: 80 bits, no collision among any number of runs people make
_SCHEME = "1"  # part of every fingerprint; raise it when the meaning of one changes

# A stage's out folder holds one of these; it names the hashes of the large files beside it.
CONTENT_FILES = (
    "manifest.json",
    "index.jsonl",
    "annotations.jsonl",
    "verdicts.jsonl",
    "model.json",
    "records.jsonl",
)
# Parts of a stage's section, at any depth, that say how it is computed and kept, not what: a run
# goes on under the same name with more processes, with its checkpoints elsewhere, or reading ahead
# further.
_NO_RESULT = frozenset(
    {
        *("compute", "checkpoint"),
        *("micro_batch_size", "read_threads", "prefetch_batches", "max_quarantined"),
    }
)
_IGNORED = ("__pycache__", "*.pyc", "*.partial", ".DS_Store", ".gitignore", ".*_cache")


def stage_fingerprint(workspace: Workspace, stage: str) -> str:
    """Return the name of what this stage computes from the present params, inputs and code.

    Args:
        workspace: The checkout; dvc.yaml and params.yaml are read from its root.
        stage: A stage's name in dvc.yaml, e.g. "pretrain-video".

    Raises:
        ConfigError: dvc.yaml has no such stage, or params.yaml lacks a key the stage names.
        MissingInputError: dvc.yaml or an input of the stage is not there.
    """
    return fingerprint_of(stage, stage_identity(workspace, stage))


def fingerprint_of(stage: str, identity: Mapping[str, str]) -> str:
    """Return the fingerprint of a stage whose identity is already known."""
    text = json.dumps([_SCHEME, stage, dict(identity)], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:FINGERPRINT_LENGTH]


def stage_identity(workspace: Workspace, stage: str) -> dict[str, str]:
    """Return the parts of the fingerprint: "params:<key>" and "dep:<path>" -> sha256 (hex).

    Comparing two of these tells why two runs have different fingerprints.

    Raises:
        ConfigError: dvc.yaml has no such stage, or params.yaml lacks a key the stage names.
        MissingInputError: dvc.yaml or an input of the stage is not there.
    """
    declared = _declaration(workspace.root, stage)
    parts = {
        f"params:{file}:{key}": _sha256_json(_what_counts(value))
        for file, key, value in _params(workspace.root, stage, declared.get("params") or [])
    }
    for entry in declared.get("deps") or []:
        dep = str(next(iter(entry)) if isinstance(entry, Mapping) else entry)
        parts[f"dep:{dep}"] = _dep_identity(workspace.root, stage, dep)
    return parts


def file_sha256(path: Path) -> str:
    """Return the sha256 (hex) of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def path_identity(path: Path) -> str:
    """Return a sha256 (hex) that changes when a file or folder does.

    A file is its bytes. A folder with one of `CONTENT_FILES` is the bytes of the JSON at its top,
    and the names and sizes of all else: those records carry the hashes of the large files, so
    a terabyte of shards is not read again. Any other folder is the bytes of every file in it.
    Compiled Python, caches and `*.partial` do not count.
    """
    if path.is_file():
        return file_sha256(path)
    trusts_records = any((path / name).is_file() for name in CONTENT_FILES)
    lines = []
    for file in _files(path):
        name = file.relative_to(path).as_posix()
        is_record = file.parent == path and file.suffix in {".json", ".jsonl"}
        if trusts_records and not is_record:
            lines.append(f"{name} {file.stat().st_size}")
        else:
            lines.append(f"{name} {file_sha256(file)}")
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def _declaration(root: Path, stage: str) -> dict[str, list[object]]:
    path = root / "dvc.yaml"
    if not path.is_file():
        raise MissingInputError(f"{path} is not there: stages are declared in it")
    tree = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    stages = expand_stages(tree.get("stages") or {})
    if stage not in stages:
        known = ", ".join(stages) or "none"
        raise ConfigError(f"{path} has no stage {stage!r}; it has: {known}")
    return dict(stages[stage])


def _params(root: Path, stage: str, entries: list[object]) -> Iterator[tuple[str, str, object]]:
    """Yield (file, key, value) of DVC's params list: "key", or {file: [key, ...] or null}."""
    for entry in entries:
        by_file = entry if isinstance(entry, Mapping) else {"params.yaml": [entry]}
        for file, keys in by_file.items():
            path = root / str(file)
            if not path.is_file():
                raise MissingInputError(f"{path} is not there: stage {stage} takes params from it")
            tree = yaml.safe_load(path.read_text(encoding="utf-8"))
            if not keys:
                yield str(file), "", tree
            for key in keys or []:
                yield str(file), str(key), _lookup(tree, str(key), path=path, stage=stage)


def _what_counts(value: object) -> object:
    """Return a parameter without the parts that change no result."""
    if isinstance(value, list):
        return [_what_counts(part) for part in value]
    if not isinstance(value, Mapping):
        return value
    return {key: _what_counts(part) for key, part in value.items() if key not in _NO_RESULT}


def _lookup(tree: object, key: str, *, path: Path, stage: str) -> object:
    node = tree
    for part in key.split("."):
        if not isinstance(node, Mapping) or part not in node:
            raise ConfigError(f"{path} has no key {key}, which stage {stage} of dvc.yaml names")
        node = node[part]
    return node


def _dep_identity(root: Path, stage: str, dep: str) -> str:
    if "://" in dep:
        return hashlib.sha256(dep.encode()).hexdigest()  # DVC tracks the bytes of remote inputs
    path = root / dep
    if not path.exists():
        raise MissingInputError(f"{path} is not there: run `dvc repro {stage}` to make it")
    return path_identity(path)


def _files(folder: Path) -> list[Path]:
    found: list[Path] = []
    for entry in sorted(folder.iterdir()):
        if any(fnmatch(entry.name, pattern) for pattern in _IGNORED):
            continue
        found.extend(_files(entry) if entry.is_dir() else [entry])
    return found


def _sha256_json(value: object) -> str:
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).hexdigest()
