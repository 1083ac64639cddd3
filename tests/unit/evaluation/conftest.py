"""A workspace that is built once, and an evaluation of it."""

from pathlib import Path

import evaluation_workspace as building
import pytest

from svd.runtime.workspace import Workspace


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """Everything up to the evaluation; do not write into it."""
    return building.build_workspace(tmp_path_factory.mktemp("workspace"))


@pytest.fixture
def fresh(tmp_path: Path) -> Workspace:
    """A workspace of one's own."""
    return building.build_workspace(tmp_path / "workspace")
