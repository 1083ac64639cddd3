"""What lies before a run: which stages nothing has changed for, and which the recipe leaves out.

Asked once, before the first stage. One `dvc status` takes as long as two or three of the calls of
`dvc repro` that it spares, of which a run would make one for each stage.
"""

import json
import os
import subprocess
from collections.abc import Mapping
from pathlib import Path

from prefect import get_run_logger
from pydantic import ConfigDict

from flows.run import PipelineRun, dvc_program
from svd.config.base import StageTree
from svd.config.derive import DeriveConfig
from svd.config.load import parse_section
from svd.runtime.graph import Node, read_graph
from svd.types.stage import STAGES, StageName


class _Plans(StageTree):
    """The one section of a recipe that the flows read; the stages read, and judge, all of it."""

    model_config = ConfigDict(extra="ignore")

    derive: DeriveConfig = DeriveConfig()


def look_ahead(run: PipelineRun) -> PipelineRun:
    """Return the run with what is known of its stages before the first of them starts."""
    unchanged = [] if run.refresh_sources else _unchanged(run)
    return run.model_copy(update={"unchanged": unchanged, "unplanned": unplanned_stages(run)})


def unplanned_stages(run: PipelineRun) -> list[StageName]:
    """Return the stages that only leave a record, because the recipe does not plan them."""
    text = run.workspace.params_file.read_text(encoding="utf-8")
    recipe = parse_section(text, _Plans, origin="params.yaml")
    return [stage for stage in STAGES if not recipe.derive.plans(stage)]


def undisturbed(status: Mapping[str, object], graph: Mapping[str, Node]) -> list[StageName]:
    """Return the stages that are as their lock says, and so are all that they hang on.

    Args:
        status: What `dvc status --json` prints: an entry for each stage that has changed.
        graph: Every stage and what it comes after.
    """
    disturbed = set(status)
    while more := {name for name, node in graph.items() if node.after & disturbed} - disturbed:
        disturbed |= more
    return [stage for stage in STAGES if stage in graph and stage not in disturbed]


def _unchanged(run: PipelineRun) -> list[StageName]:
    command = [dvc_program(), "--wait-for-lock", "status", "--json"]
    environment = {**os.environ, **run.environment}
    done = subprocess.run(
        command, cwd=run.root, env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode:  # each stage will say what is wrong
        get_run_logger().warning("dvc status: %s", done.stderr.strip()[-500:])
        return []
    return undisturbed(json.loads(done.stdout), read_graph(Path(run.root)))
