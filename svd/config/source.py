"""Another place of raw video in a recipe: what a deployment's parameter `source` does."""

from pathlib import Path
from typing import Any

import yaml

from svd.errors import ConfigError


def with_source(recipe: str, source: str, licence: str) -> str:
    """Return a recipe whose only source is this one.

    Args:
        recipe: Text of a params.yaml.
        source: s3://bucket/prefix, a folder, or a text file with one place per line.
        licence: Of all videos there: an SPDX identifier, or the words of the source.

    Raises:
        ConfigError: There is nothing at that path, or no licence was named.
    """
    if not licence.strip():
        raise ConfigError(f"source={source} needs source_licence: which licence its videos have")
    tree = yaml.safe_load(recipe)
    tree["ingest"] = {**(tree.get("ingest") or {}), "sources": [_section(source, licence)]}
    return yaml.safe_dump(tree, sort_keys=False, allow_unicode=True)


def _section(source: str, licence: str) -> dict[str, Any]:
    if source.startswith("s3://"):
        return {"kind": "s3", "uri": source, "licence": licence}
    path = Path(source).expanduser().absolute()
    if not path.exists():
        raise ConfigError(f"source={source}: there is nothing at {path}")
    return {"kind": "folder" if path.is_dir() else "list", "path": str(path), "licence": licence}
