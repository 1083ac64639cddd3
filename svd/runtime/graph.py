"""The stages of dvc.yaml as DVC sees them: those of a foreach written out, one by one."""

import json
from collections.abc import Mapping
from typing import Any

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
