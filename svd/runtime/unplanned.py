"""What a derived stage leaves where the recipe does not plan it: a record that says so."""

import shutil

from svd.runtime.workspace import Workspace
from svd.types.base import Record

NAME = "not-planned.json"


class NotPlanned(Record):
    """The whole output of a stage that had nothing to do."""

    stage: str
    why: str


def leave_unplanned(workspace: Workspace, stage: str, why: str) -> None:
    """Write the record in place of the stage's output, and forget what an earlier run said."""
    out = workspace.derived(stage)
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    record = NotPlanned(stage=stage, why=why)
    (out / NAME).write_text(record.canonical_json() + "\n", encoding="utf-8")
    workspace.stage_run(stage).unlink(missing_ok=True)
