"""One run of the pipeline: which stages, in which checkout, with which store."""

import hashlib
import os
import shutil
import sys
from pathlib import Path

from prefect import get_run_logger
from pydantic import BaseModel, ConfigDict

from svd.config.recipe import recipe_path
from svd.config.source import with_source
from svd.runtime.checkout import checkout_environment, prepare_checkout
from svd.runtime.workspace import Workspace
from svd.types.stage import StageName


class PipelineRun(BaseModel):
    """What the parts of a run have in common; it is seen on the server, so it holds no secret."""

    model_config = ConfigDict(frozen=True)

    home: str  # the checkout that the deployment belongs to
    root: str  # the checkout it runs in
    stages: list[StageName]  # to bring up to date; the others are left alone
    unchanged: list[StageName] = []  # that DVC is known to skip
    unplanned: list[StageName] = []  # by the recipe; they only leave a record that says so
    store: str | None = None  # URI; None is that of the worker's environment
    timeout_hours: float | None = None  # of one stage; None is no limit
    refresh_sources: bool = False  # list the sources anew even if the recipe did not change

    @property
    def workspace(self) -> Workspace:
        """Where its stages run."""
        return Workspace(Path(self.root))

    @property
    def environment(self) -> dict[str, str]:
        """What its stages need beside the worker's environment."""
        elsewhere = self.root != self.home
        there = checkout_environment(Workspace(Path(self.home)), self.workspace)
        return {
            **(there if elsewhere else {}),
            **({} if self.store is None else {"SVD_STORE": self.store}),
        }


def dvc_program() -> str:
    """Return the path of DVC, which lies beside the Python that runs."""
    beside = Path(sys.executable).parent / "dvc"
    return str(beside) if beside.exists() else shutil.which("dvc") or "dvc"


def find_place(
    recipe: str | None, source: str | None, source_licence: str, checkout: str | None
) -> tuple[Workspace, Workspace]:
    """Return the deployment's checkout, and the one for a run with these parameters.

    They are one and the same if the recipe is the one in force there and no other was asked for.
    Else the run gets a checkout of its own, named as asked for, or by the recipe's name and
    content, so that a second run with the same recipe goes on where the first one ended.
    """
    home = Workspace.find(Path(os.environ.get("SVD_ROOT") or Path.cwd()))
    name = recipe or "params"
    in_force = home.params_file.read_text(encoding="utf-8")
    text = recipe_path(home.root, name).read_text(encoding="utf-8")
    if source is not None:
        text = with_source(text, source, source_licence)
    if checkout is None and text == in_force:
        return home, home
    digest = hashlib.sha256(text.encode()).hexdigest()[:8]
    there = prepare_checkout(home, checkout or f"{name}-{digest}", text)
    get_run_logger().info("this run has a checkout of its own: %s", there.root)
    return home, there
