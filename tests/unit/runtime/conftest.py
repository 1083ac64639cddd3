"""A checkout with one stage, under git."""

import subprocess
from pathlib import Path

import pytest

from svd.runtime.workspace import Workspace


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    """A committed checkout whose stage `demo` depends on one source file."""
    for name in ("WANDB_MODE", "WANDB_DATA_DIR", "WANDB_CACHE_DIR", "SVD_PIPELINE_RUN", "RANK"):
        monkeypatch.setenv(name, "")  # so that what the code sets is undone after the test
        monkeypatch.delenv(name)
    files = {
        "dvc.yaml": "stages: {demo: {cmd: svd demo, deps: [svd], params: [demo]}}\n",
        "params.yaml": "demo: {lr: 1.0e-4}\n",
        "svd/demo.py": "x = 1\n",
        ".gitignore": "wandb/\n.svd/\n",
    }
    for name, text in files.items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    git = ["git", "-c", "user.name=t", "-c", "user.email=t@example.org"]
    subprocess.run([*git, "init", "-q"], cwd=tmp_path, check=True)
    subprocess.run([*git, "add", "."], cwd=tmp_path, check=True)
    subprocess.run([*git, "commit", "-qm", "start"], cwd=tmp_path, check=True)
    return Workspace(tmp_path)
