"""Which changes make a checkout's code differ from its commit."""

from pathlib import Path

import pytest

from svd.runtime.revision import find_revision
from svd.runtime.workspace import Workspace


def test_a_committed_checkout_is_clean(checkout: Workspace) -> None:
    revision = find_revision(checkout.root)
    assert revision is not None
    assert len(revision.commit) == 40
    assert revision.is_clean


@pytest.mark.parametrize("name", ["svd/demo.py", "svd/new.py", ".gitignore"])
def test_edited_code_and_new_modules_are_changes(checkout: Workspace, name: str) -> None:
    (checkout.root / name).write_text("y = 2\n")
    revision = find_revision(checkout.root)
    assert revision is not None
    assert revision.changed == (name,)


@pytest.mark.parametrize("name", ["params.yaml", "dvc.lock", "notes.txt", "registry/a/v1.json"])
def test_recipe_lock_and_notes_are_not_code(checkout: Workspace, name: str) -> None:
    path = checkout.root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("demo: {lr: 1.0}\n")
    revision = find_revision(checkout.root)
    assert revision is not None
    assert revision.is_clean


def test_there_is_no_revision_outside_git(tmp_path: Path) -> None:
    assert find_revision(tmp_path) is None
