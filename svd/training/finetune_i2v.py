"""Stage III: the model learns to continue a picture."""

from typing import TYPE_CHECKING

from svd.runtime.tracking import Tracker
from svd.runtime.workspace import Workspace
from svd.training import stages
from svd.types.artifact import StageReport

if TYPE_CHECKING:
    from svd.config.params import Params


def run(params: "Params", workspace: Workspace, *, tracker: Tracker) -> StageReport:
    """Run the stage; see `svd.training.stages.run`."""
    return stages.run("finetune-i2v", params, workspace, tracker=tracker)
