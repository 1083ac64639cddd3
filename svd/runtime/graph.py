"""The stages of dvc.yaml as DVC sees them: those of a foreach written out, one by one."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import yaml

Declaration = Mapping[str, Any]


def expand_stages(stages: Mapping[str, Declaration]) -> dict[str, Declaration]:
    """Return every stage by the name DVC gives it: a foreach of x and y gives name@x and name@y.

    Args:
        stages: The section `stages` of dvc.yaml; the items of a foreach are a list of words.
    """
    expanded: dict[str, Declaration] = {}
    for name, stage in stages.items():
        if "foreach" not in stage:
            expanded[name] = stage
            continue
        for item in stage["foreach"]:
            text = json.dumps(stage["do"]).replace("${item}", str(item))
            expanded[f"{name}@{item}"] = json.loads(text)
    return expanded


class Node(NamedTuple):
    """A stage among the others."""

    reads: frozenset[str]  # outs of other stages that it depends on
    writes: frozenset[str]  # its own outs
    after: frozenset[str]  # the stages that make what it reads


def read_graph(root: Path) -> dict[str, Node]:
    """Return every stage of a project's dvc.yaml with what ties it to the others."""
    tree = yaml.safe_load((root / "dvc.yaml").read_text(encoding="utf-8"))
    stages = expand_stages(tree["stages"])
    outs = {name: frozenset(map(_path, one.get("outs") or ())) for name, one in stages.items()}
    maker = {out: name for name, made in outs.items() for out in made}
    nodes = {}
    for name, stage in stages.items():
        reads = frozenset(map(_path, stage.get("deps") or ())) & maker.keys()
        nodes[name] = Node(reads, outs[name], frozenset(maker[path] for path in reads))
    return nodes


def _path(entry: object) -> str:
    """Return the path of an entry of deps or outs: a word, or one key with its options."""
    return str(next(iter(entry)) if isinstance(entry, Mapping) else entry)
