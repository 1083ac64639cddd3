"""A checkout beside this one shares what is named by content and nothing else."""

import subprocess
import sys
from pathlib import Path

import pytest

from svd.errors import ConfigError
from svd.runtime.checkout import checkout_environment, checkouts, prepare_checkout
from svd.runtime.workspace import Workspace


def run(root: Path, *command: str) -> str:
    return subprocess.run(command, cwd=root, check=True, capture_output=True, text=True).stdout


def commit(root: Path, message: str) -> None:
    run(root, "git", "add", ".")
    run(root, "git", "-c", "user.name=t", "-c", "user.email=t@t", "commit", "-qm", message)


@pytest.fixture
def home(tmp_path: Path) -> Workspace:
    root = tmp_path / "home"
    root.mkdir()
    (root / "params.yaml").write_text("seed: 1\n")
    (root / "code.py").write_text("one = 1\n")
    (root / ".gitignore").write_text(".svd/\n/weights\n")
    run(root, "git", "init", "-q")
    run(root, sys.executable, "-m", "dvc", "init", "-q")
    commit(root, "start")
    return Workspace(root)


def test_it_has_the_commits_code_its_own_recipe_and_the_shared_cache(home: Workspace) -> None:
    (home.root / "code.py").write_text("one = 2  # not committed\n")
    (home.root / "weights").mkdir()
    there = prepare_checkout(home, "other-1a2b", "seed: 7\n")
    assert (there.root / "code.py").read_text() == "one = 1\n"
    assert there.params_file.read_text() == "seed: 7\n"
    assert home.params_file.read_text() == "seed: 1\n"
    assert (there.root / "weights").resolve() == home.root / "weights"
    cache = run(there.root, sys.executable, "-m", "dvc", "cache", "dir").strip()
    assert Path(cache) == home.root / ".dvc" / "cache"
    assert checkout_environment(home, there)["SVD_STORE"] == str(home.state / "store")
    assert checkouts(home) == [there]
    assert run(home.root, "git", "status", "--porcelain") == " M code.py\n"


def test_the_next_run_has_the_next_commit_and_goes_on_from_its_own_lock(home: Workspace) -> None:
    there = prepare_checkout(home, "nightly", "seed: 1\n")
    (there.root / "dvc.lock").write_text("what it has made\n")
    (there.root / "out").mkdir()
    (home.root / "code.py").write_text("one = 3\n")
    (home.root / "dvc.lock").write_text("what home has made\n")
    commit(home.root, "next")
    again = prepare_checkout(home, "nightly", "seed: 1\n")
    assert again == there
    assert (there.root / "code.py").read_text() == "one = 3\n"
    assert (there.root / "dvc.lock").read_text() == "what it has made\n"
    assert (there.root / "out").is_dir()


@pytest.mark.parametrize("name", ["", "../up", "a/b", ".hidden"])
def test_a_name_that_leads_elsewhere_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match="checkout="):
        prepare_checkout(Workspace(tmp_path), name, "seed: 1\n")


def test_without_a_commit_there_is_nothing_to_check_out(tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_text("seed: 1\n")
    with pytest.raises(ConfigError, match="no git commit"):
        prepare_checkout(Workspace(tmp_path), "x", "seed: 1\n")
