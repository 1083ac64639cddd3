"""Named recipes: params.yaml is the one in force, recipes/ holds the others."""

import re
from collections.abc import Collection
from pathlib import Path
from typing import Final

import yaml

from svd.atomic import new_file
from svd.config.derive import DERIVABLE
from svd.config.load import load_params
from svd.errors import ConfigError, MissingInputError

RECIPES = "recipes"  # folder below the root
_DERIVE: Final = re.compile(
    r"^derive:[^\n]*\n((?:  [a-z0-9-]+: (?:true|false)[^\n]*\n)+)", re.MULTILINE
)


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
    _put_in_force(root, recipe_path(root, name).read_text(encoding="utf-8"))


def plan_derived(root: Path, names: Collection[str]) -> None:
    """Plan the named finetunes in the recipe in force and no others; its other lines stay.

    Args:
        root: Folder of params.yaml.
        names: Keys of the section `derive`.

    Raises:
        MissingInputError: There is no such finetune.
        ConfigError: The recipe is not valid with them, or its section `derive` is not one key a
            line.
    """
    text = (root / "params.yaml").read_text(encoding="utf-8")
    unknown = sorted(set(names) - set(DERIVABLE))
    if unknown:
        raise MissingInputError(
            f"there is no finetune {unknown[0]!r}; there are: {', '.join(DERIVABLE)}"
        )
    found = _DERIVE.search(text)
    if found is None:
        raise ConfigError("params.yaml has no section `derive` with one key a line")
    lines = [f"  {name}: {str(name in names).lower()}\n" for name in DERIVABLE]
    _put_in_force(root, text[: found.start(1)] + "".join(lines) + text[found.end(1) :])


def _put_in_force(root: Path, text: str) -> None:
    with new_file(root / "params.yaml") as partial:
        partial.write_text(text, encoding="utf-8")
        load_params(partial)


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
