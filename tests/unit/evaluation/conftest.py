"""Workspaces as the stages leave them, and an evaluation with its page."""

from datetime import UTC, datetime
from pathlib import Path

import evaluation_workspace as building
import pytest
import yaml

from svd.config.evaluation import EvaluateConfig
from svd.config.load import parse_section
from svd.evaluation.evaluate import evaluate
from svd.evaluation.report.governance import RegisteredVersion
from svd.evaluation.report.page import write_report
from svd.runtime.tracking import NullTracker
from svd.runtime.workspace import Workspace
from svd.types.artifact import ModelRecord


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """Everything up to the evaluation; do not write into it."""
    return building.build_workspace(tmp_path_factory.mktemp("workspace"))


@pytest.fixture
def fresh(tmp_path: Path) -> Workspace:
    """A workspace of one's own."""
    return building.build_workspace(tmp_path / "workspace")


@pytest.fixture(scope="session")
def full_page(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """A workspace in which everything has run, with its page; do not write into it."""
    workspace = building.build_workspace(tmp_path_factory.mktemp("page"))
    section = yaml.safe_dump(building.evaluate_section())
    config = parse_section(section, EvaluateConfig, origin="test")
    evaluate(config, workspace, workspace.runs / "x", seed=1, tracker=NullTracker())
    building.make_stage_runs(workspace)
    model = workspace.model("finetune-i2v") / "model.json"
    building.make_candidate(workspace, ModelRecord.parse(model.read_text(), origin=""))
    write_report(
        workspace,
        versions=[RegisteredVersion("v0.1.0", ("production",))],
        rendered_at=datetime(2026, 1, 2, 3, 4, tzinfo=UTC),
    )
    return workspace
