"""The page people open, rendered from what the stages left behind."""

import os
import subprocess
import sys
from pathlib import Path

from prefect import get_run_logger, task
from prefect.artifacts import create_link_artifact
from prefect.cache_policies import NO_CACHE

from flows.run import PipelineRun


@task(task_run_name="report", cache_policy=NO_CACHE)
def publish_report(run: PipelineRun) -> None:
    """Render reports/index.html and leave a link to it."""
    workspace = run.workspace
    svd = Path(sys.executable).parent / "svd"
    environment = {**os.environ, **run.environment}
    subprocess.run([str(svd), "report"], cwd=workspace.root, env=environment, check=True)
    get_run_logger().info("report: %s", workspace.report)
    create_link_artifact(
        key="report", link=workspace.report.as_uri(), description="The report of this run"
    )
