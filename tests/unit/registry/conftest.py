"""Finished projects to register models from, made once and copied for every test."""

import os
import shutil
from pathlib import Path

import pytest

from svd.runtime.workspace import Workspace
from tests.unit.registry.registry_project import Project, make_project


@pytest.fixture(scope="session")
def project_template(tmp_path_factory: pytest.TempPathFactory) -> Project:
    os.environ["DVC_NO_ANALYTICS"] = "1"
    os.environ.pop("SVD_STORE", None)
    return make_project(tmp_path_factory.mktemp("project"))


@pytest.fixture(scope="session")
def released_template(
    project_template: Project, tmp_path_factory: pytest.TempPathFactory
) -> Project:
    project = copy(project_template, tmp_path_factory.mktemp("released"))
    for weights in ("one", "two", "three"):
        project.train(weights)
        assert project.register().status == "registered"
    return project


@pytest.fixture
def project(project_template: Project, tmp_path: Path) -> Project:
    """A finished project; its model passes the default gate once trained."""
    return copy(project_template, tmp_path)


@pytest.fixture
def released(released_template: Project, tmp_path: Path) -> Project:
    """A project with the versions v0.1.0, v0.1.1 and v0.1.2."""
    return copy(released_template, tmp_path)


def copy(project: Project, folder: Path) -> Project:
    root = folder / "checkout"
    shutil.copytree(project.root, root, symlinks=True)
    return Project(Workspace(root))
