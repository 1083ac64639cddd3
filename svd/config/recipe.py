"""Named recipes: params.yaml is the one in force, recipes/ holds the others."""

import shutil
from pathlib import Path

import yaml

from svd.config.load import load_params
from svd.errors import MissingInputError

RECIPES = "recipes"  # folder below the root


def recipe_names(root: Path) -> list[str]:
    """Return the names of the recipes that this checkout offers."""
    return sorted(path.stem for path in (root / RECIPES).glob("*.yaml"))


def recipe_path(root: Path, name: str) -> Path:
    """Return the file of a named recipe; "params" is the one in force.

    Raises:
        MissingInputError: There is no such recipe.
    """
    path = root / "params.yaml" if name == "params" else root / RECIPES / f"{name}.yaml"
    if name not in ("params", *recipe_names(root)):
        known = ", ".join(("params", *recipe_names(root)))
        raise MissingInputError(f"there is no recipe {name!r}; there are: {known}")
    return path


def use_recipe(root: Path, name: str) -> None:
    """Make a named recipe the one in force, after validating it."""
    source = recipe_path(root, name)
    load_params(source)
    target = root / "params.yaml"
    partial = target.with_name("params.yaml.partial")
    shutil.copyfile(source, partial)
    partial.replace(target)


def diff_recipes(root: Path, left: str, right: str) -> list[tuple[str, object, object]]:
    """Return (key, left value, right value) for each key on which two recipes differ.

    A key that one of them lacks has None there.
    """
    flat_left, flat_right = (
        _flatten(yaml.safe_load(recipe_path(root, name).read_text(encoding="utf-8")))
        for name in (left, right)
    )
    keys = [*flat_left, *(key for key in flat_right if key not in flat_left)]
    pairs = ((key, flat_left.get(key), flat_right.get(key)) for key in keys)
    return [pair for pair in pairs if pair[1] != pair[2]]


def _flatten(tree: object, prefix: str = "") -> dict[str, object]:
    if isinstance(tree, dict) and tree:
        items = [(f"{prefix}.{key}", value) for key, value in tree.items()]
    elif isinstance(tree, list) and tree:
        items = [(f"{prefix}[{index}]", value) for index, value in enumerate(tree)]
    else:
        return {prefix.removeprefix("."): tree}
    flat: dict[str, object] = {}
    for key, value in items:
        flat.update(_flatten(value, key))
    return flat
