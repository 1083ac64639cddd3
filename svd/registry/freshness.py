"""Whether the files of a checkout are those that dvc.lock names.

Asked of DVC in this process and without its locks: the register stage runs below `dvc repro`,
which cannot save a finished stage while another `dvc` command holds them.
"""

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from svd.data.lineage import making_stages

logger = logging.getLogger(__name__)


def stale_stages(root: Path) -> list[str]:
    """Return, as sentences, what differs from dvc.lock in the stages that made the model.

    A stage is as locked if its command, params, inputs, code and outs are. Bytes that DVC has
    hashed before and that have not been touched since are not read again.
    """
    from dvc.exceptions import DvcException
    from dvc.repo import Repo

    if not (root / ".dvc").is_dir():
        return ["there is no .dvc folder: run `dvc init`"]
    try:
        with Repo(str(root)) as repo:
            asked = making_stages(root)
            stages = [s for s in repo.index.stages if getattr(s, "name", None) in asked]
            return [sentence for stage in stages for sentence in _differences(stage)]
    except DvcException as err:
        return [f"DVC cannot tell what is fresh: {err}"]


def _differences(stage: Any) -> Iterator[str]:
    if stage.cmd_changed:
        yield f"stage {stage.name} has another command than in dvc.lock"
    for kind, items in (("input", stage.deps), ("output", stage.outs)):
        for item in items:
            for path, state in item.workspace_status().items():
                # Of a params file DVC tells key by key.
                said = (
                    state
                    if isinstance(state, str)
                    else ", ".join(f"{k} {v}" for k, v in state.items())
                )
                yield f"stage {stage.name}: its {kind} {path} is not as in dvc.lock ({said})"
