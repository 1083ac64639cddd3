"""The W&B view that a team opens: runs grouped by pipeline run, curves, samples, speed, cost.

It is made by code, so that every project has the same one and its changes are reviewed.
"""

from typing import Any

import wandb_workspaces.reports.v2.interface as panels
import wandb_workspaces.workspaces as ws

from svd.runtime.cost import COST
from svd.runtime.tracking import STEP

_ROWS = (
    ("loss", ("train/loss",), STEP),
    ("held-out loss", ("heldout/loss",), STEP),
    ("gradient norm", ("train/grad_norm",), STEP),
    ("held-out loss by cost", ("heldout/loss",), COST),
)
_SPEED = ("speed/examples_per_s", "speed/mfu", "speed/data_wait_share", "speed/checkpoint_wait_s")


def build_workspace(entity: str, project: str) -> ws.Workspace:
    """Return the view of a user's or team's project; it is on a server once `save` is called."""
    learning: list[Any] = [panels.LinePlot(title=title, x=x, y=list(y)) for title, y, x in _ROWS]
    samples: list[Any] = [
        panels.MediaBrowser(title="the same held-out clips", media_keys=["samples/sheet"]),
        panels.WeavePanelSummaryTable(table_name="samples/table"),
    ]
    speed: list[Any] = [panels.LinePlot(title=key, x=STEP, y=[key]) for key in _SPEED]
    cost: list[Any] = [
        panels.LinePlot(title="cost so far", x=STEP, y=[COST]),
        panels.BarPlot(title="cost of each run", metrics=[COST]),
    ]
    return ws.Workspace(
        entity=entity,
        project=project,
        name="svd: pipeline runs",
        sections=[
            ws.Section(name=name, is_open=True, panels=shown)
            for name, shown in (
                ("Learning", learning),
                ("Samples", samples),
                ("Speed", speed),
                ("Cost", cost),
            )
        ],
        settings=ws.WorkspaceSettings(x_axis=STEP),
        runset_settings=ws.RunsetSettings(groupby=[ws.Metric("Group"), ws.Metric("JobType")]),
    )


def definition(workspace: ws.Workspace) -> dict[str, Any]:
    """Return what the server would be sent."""
    model: dict[str, Any] = workspace._to_model().model_dump(mode="json", by_alias=True)
    return model
