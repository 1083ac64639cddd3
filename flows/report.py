"""The page people open, rendered from what the stages left behind."""

import subprocess
import sys
from pathlib import Path

from prefect import get_run_logger, task
from prefect.artifacts import create_link_artifact
from prefect.cache_policies import NO_CACHE

from svd.runtime.workspace import Workspace


@task(task_run_name="report", cache_policy=NO_CACHE)
def publish_report() -> None:
    """Render reports/index.html and leave a link to it."""
    workspace = Workspace.find()
    svd = Path(sys.executable).parent / "svd"
    subprocess.run([str(svd), "report"], cwd=workspace.root, check=True)
    get_run_logger().info("report: %s", workspace.report)
    create_link_artifact(
        key="report", link=workspace.report.as_uri(), description="The report of this run"
    )
