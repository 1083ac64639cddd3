"""Reading a recipe: YAML in, one validated tree out, or one sentence that names the key."""

import difflib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar, get_args

import yaml
from pydantic import BaseModel, ValidationError

from svd.config.params import Params
from svd.errors import ConfigError, MissingInputError

M = TypeVar("M", bound=BaseModel)


def load_params(path: Path) -> Params:
    """Read and validate a recipe.

    Raises:
        MissingInputError: The file is not there.
        ConfigError: It is not YAML, or a key is unknown, mistyped or out of bounds.
    """
    if not path.is_file():
        raise MissingInputError(f"{path} is not there: `svd recipe use laptop` writes one")
    return parse_params(path.read_text(encoding="utf-8"), origin=path.name)


def parse_params(text: str, *, origin: str) -> Params:
    """Validate the text of a recipe; see `load_params`."""
    return parse_section(text, Params, origin=origin)


def parse_section(text: str, kind: type[M], *, origin: str) -> M:
    """Validate YAML text against a section class.

    YAML goes through JSON because strict Python mode would refuse YAML's lists and strings
    where the tree has tuples, paths and enums, while strict JSON mode takes them.
    """
    try:
        tree = yaml.safe_load(text)
    except yaml.YAMLError as err:
        raise ConfigError(f"{origin} is not YAML: {' '.join(str(err).split())}") from err
    if not isinstance(tree, dict):
        raise ConfigError(f"{origin} must hold a mapping of sections, not {type(tree).__name__}")
    try:
        return kind.model_validate_json(json.dumps(tree, default=str))
    except ValidationError as err:
        raise ConfigError(f"{origin}: {_sentence(err, tree, kind)}") from err


def _sentence(err: ValidationError, tree: Mapping[str, object], kind: type[BaseModel]) -> str:
    problems = [_explain(dict(item), tree, kind) for item in _causes(err)]
    more = len(problems) - 1
    return problems[0] + (f" (and {more} more: {'; '.join(problems[1:])})" if more else "")


def _causes(err: ValidationError) -> list[Mapping[str, Any]]:
    """Leave out errors of a whole that only follow from an error of one of its parts."""
    items = err.errors(include_url=False)
    places = [tuple(item["loc"]) for item in items]
    return [
        dict(item)
        for item, place in zip(items, places, strict=True)
        if not any(len(other) > len(place) and other[: len(place)] == place for other in places)
    ]


def _explain(item: dict[str, Any], tree: Mapping[str, object], kind: type[BaseModel]) -> str:
    location = tuple(item["loc"])
    key = _dotted(location, tree)
    if item["type"] == "extra_forbidden":
        known = _known_keys(location[:-1], kind)
        close = difflib.get_close_matches(str(location[-1]), known, n=1, cutoff=0.5)
        if close:
            return f"{key} is not a known key; did you mean {close[0]}?"
        return f"{key} is not a known key" + (f"; known here: {', '.join(known)}" if known else "")
    if item["type"] == "missing":
        return f"{key} is missing"
    if item["type"] == "value_error":
        said = str(item["ctx"]["error"])
        return said if not key or said.startswith(key) else f"{key}: {said}"
    value = item["input"]
    shown = json.dumps(value, default=str)
    shown = shown if len(shown) <= 80 else shown[:77] + "..."
    return f"{key}={shown} is not allowed: {_lower(item['msg'])}{_yaml_float_hint(item, value)}"


def _yaml_float_hint(item: Mapping[str, Any], value: object) -> str:
    if item["type"] == "float_type" and isinstance(value, str):
        try:
            float(value)
        except ValueError:
            return ""
        return f" (YAML reads {value} as text: write 1.0e-4, with a point)"
    return ""


def _lower(message: str) -> str:
    return message[:1].lower() + message[1:]


def _dotted(location: Sequence[str | int], tree: Mapping[str, object]) -> str:
    """Name a key as a person would: a.b[2].c, leaving out the tags of unions."""
    here: object = tree
    text = ""
    for part in location:
        if isinstance(part, int):
            text += f"[{part}]"
            here = here[part] if isinstance(here, list) and part < len(here) else None
        elif isinstance(here, dict) and part not in here and _is_union_tag(part, here):
            continue
        else:
            text += f".{part}" if text else part
            here = here.get(part) if isinstance(here, dict) else None
    return text


def _is_union_tag(part: str, here: Mapping[str, object]) -> bool:
    return here.get("kind") == part


def _known_keys(location: Sequence[str | int], kind: type[BaseModel]) -> list[str]:
    """Return the keys allowed at a place of the tree; [] where a union leaves that open."""
    for part in location:
        if isinstance(part, int):  # the items of the tuple that the last key led to
            continue
        nested = next(
            (
                _models_in(field.annotation)
                for name, field in kind.model_fields.items()
                if part in (name, field.alias)
            ),
            [],
        )
        if len(nested) != 1:
            return []
        kind = nested[0]
    return [field.alias or name for name, field in kind.model_fields.items()]


def _models_in(annotation: object) -> list[type[BaseModel]]:
    """Return the section classes that an annotation such as `tuple[Phase, ...]` speaks of."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for part in get_args(annotation) for model in _models_in(part)]
