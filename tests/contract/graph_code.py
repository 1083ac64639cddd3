"""The code that each stage's result hangs on; `make graph` writes it into dvc.yaml.

A stage's code is every module of the working floors that its library function imports, directly or
not. The floors below them (types, config, runtime) change how a stage runs, not what it makes; what
of the recipe matters is named under `params`.

A folder of which a stage takes every file is named as one: DVC writes its whole lock anew, in pure
Python, after every stage, and that took 2 s a stage when each file was an entry.
"""

import io
from pathlib import Path
from typing import Any

import grimp
from ruamel.yaml import YAML

from svd.commands.stage import HOMES, TRAINING

ROOT = Path(__file__).parents[2]
FLOORS = ("media", "curation", "data", "models", "training", "sampling", "evaluation", "registry")
# Processes that the library function starts.
STARTED_BY_NAME = {TRAINING: ("svd.training.loop.rank",)}


def code_of_stages() -> dict[str, list[str]]:
    """Return the source files, or whole folders of them, of each stage, sorted."""
    graph = grimp.build_graph("svd")
    return {stage: _whole_folders(_files(graph, home)) for stage, home in HOMES.items()}


def _whole_folders(files: list[str]) -> list[str]:
    """Put a folder in the place of its files where all of them are there; __init__ counts not."""
    named = {ROOT / file for file in files}
    rooms = {parent for file in named for parent in file.parents if _is_room(parent)}
    for folder in sorted(rooms, key=lambda room: len(room.parts)):
        inside = {file for file in folder.rglob("*.py") if file.name != "__init__.py"}
        if inside <= named:
            named = {path for path in named if folder not in path.parents} | {folder}
    return sorted(path.relative_to(ROOT).as_posix() for path in named)


def _is_room(folder: Path) -> bool:
    """Whether it lies below a working floor: a floor itself grows too often to be one entry."""
    return folder.is_relative_to(ROOT / "svd") and len(folder.relative_to(ROOT).parts) > 2


def _files(graph: grimp.ImportGraph, home: str) -> list[str]:
    roots = {home, *STARTED_BY_NAME.get(home, ())}
    modules = roots.union(*(graph.find_upstream_modules(root) for root in roots))
    files = (f"{name.replace('.', '/')}.py" for name in modules if _is_working_code(name))
    return sorted(file for file in files if (ROOT / file).is_file())


def _is_working_code(module: str) -> bool:
    parts = module.split(".")
    return len(parts) > 2 and parts[1] in FLOORS


def rewrite(path: Path) -> None:
    """Put the code of every stage behind its data in the graph's `deps`."""
    yaml = YAML()
    yaml.width = 4096
    yaml.indent(mapping=2, sequence=4, offset=2)
    graph: Any = yaml.load(path.read_text(encoding="utf-8"))
    for stage, files in code_of_stages().items():
        section = graph["stages"][stage.partition("@")[0]]
        section = section.get("do", section)  # the stages of a foreach share one section
        data = [dep for dep in section.get("deps", []) if not dep.startswith("svd/")]
        section["deps"] = [*data, *files]
    text = io.StringIO()
    yaml.dump(graph, text)
    path.write_text(text.getvalue(), encoding="utf-8")


if __name__ == "__main__":
    rewrite(ROOT / "dvc.yaml")
