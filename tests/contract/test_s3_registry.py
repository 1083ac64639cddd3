"""The store on a real S3 server: what one person registers and pushes, another one gets."""

import os
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from svd.commands import lineage, registry, store
from svd.runtime.seaweed import S3Server
from svd.runtime.workspace import Workspace
from tests.contract.conftest import point_at
from tests.unit.registry.registry_project import Project, make_project, sha256

app = typer.Typer()
for commands in (registry, lineage, store):
    commands.add_commands(app)

pytestmark = pytest.mark.e2e


def svd(*arguments: str) -> str:
    result = CliRunner().invoke(app, list(arguments), catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def dvc(folder: Path, *arguments: str) -> None:
    command = [sys.executable, "-m", "dvc", *arguments]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="module")
def project(s3_server: S3Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    """A project whose store is a new bucket, registered, promoted and pushed to ../origin.git."""
    root = tmp_path_factory.mktemp("shared") / "mine"
    root.mkdir()
    with pytest.MonkeyPatch.context() as patch:
        point_at(s3_server, patch)
        patch.setenv("SVD_STORE", f"s3://svd-{uuid.uuid4().hex[:12]}/team")
        patch.setenv("DVC_NO_ANALYTICS", "1")
        made = make_project(root)
        patch.chdir(root)
        svd("store", "init")
        made.train("good weights")
        assert made.register().status == "registered"
        svd("registry", "promote", "latest", "production", "--by", "Ann")
        made.dvc("push", "--quiet")
        made.git("add", "dvc.lock")
        made.git("commit", "-qm", "lock")
        made.git("init", "-q", "--bare", "-b", "main", str(root.parent / "origin.git"))
        made.git("push", "-q", str(root.parent / "origin.git"), "main", "--tags")
        yield made


def test_a_fresh_clone_an_empty_folder_and_dvc_get_everything_back(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    origin = (project.root.parent / "origin.git").as_uri()
    clone = tmp_path / "theirs"
    project.git("clone", "-q", origin, str(clone))
    monkeypatch.chdir(clone)
    svd("store", "init")
    dvc(clone, "pull", "--quiet")
    pulled = clone / "models" / "finetune-i2v" / "weights.safetensors"
    assert pulled.read_text() == "good weights"
    assert sha256("good weights")[:12] in svd("registry", "list")
    assert "film-0.mp4" in svd("lineage", "production")
    assert "clip-0-24" in svd("lineage", "--video", sha256("video 0"))

    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    svd("registry", "fetch", "production", "--repo", origin, "--out", "got")
    fetched = tmp_path / "empty" / "got" / "models" / "finetune-i2v" / "weights.safetensors"
    assert fetched.read_text() == "good weights"

    # The version's commit names the remote, so DVC alone finds the bytes too.
    dvc(tmp_path / "empty", "artifacts", "get", origin, "svd-i2v", "--rev", "v0.1.0", "-o", "a.bin")
    assert (tmp_path / "empty" / "a.bin").read_text() == "good weights"


def test_no_credential_is_in_what_is_committed_logged_or_printed(
    project: Project, s3_server: S3Server
) -> None:
    keys = Path(s3_server.environment["AWS_SHARED_CREDENTIALS_FILE"]).read_text().split()
    secrets = [word.encode() for word in keys if len(word) >= 16 and "_" not in word]
    assert len(secrets) == 2
    objects = project.git("rev-list", "--objects", "--all").split()
    dump = subprocess.run(
        ["git", "cat-file", "--batch"],
        cwd=project.root,
        input="\n".join(objects).encode(),
        capture_output=True,
        check=False,
    ).stdout
    assert b"endpointurl" in dump
    shown = "".join(svd(*words) for words in (["registry", "show"], ["store", "verify"]))
    files = [p for p in project.root.rglob("*") if p.is_file() and ".git" not in p.parts]
    for secret in secrets:
        assert secret not in dump
        assert secret.decode() not in shown
        assert not [path for path in files if secret in path.read_bytes()]


def test_the_local_server_is_started_once_and_its_environment_holds_no_secret(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from svd.runtime.seaweed import stop_seaweed

    for name in [*os.environ, "SVD_STORE", "AWS_ENDPOINT_URL", "AWS_SHARED_CREDENTIALS_FILE"]:
        if name.startswith(("AWS_", "SVD_STORE")):
            monkeypatch.setenv(name, "")  # so that what the command sets is undone after the test
            monkeypatch.delenv(name)
    (tmp_path / "params.yaml").write_text("seed: 1\n")
    monkeypatch.chdir(tmp_path)
    workspace = Workspace(tmp_path)
    try:
        store.start_local_s3(workspace)
        lines = svd("store", "env").splitlines()
        assert lines[0].startswith("unset AWS_ACCESS_KEY_ID")
        assert "export SVD_STORE=s3://svd" in lines
        secret = (workspace.state / "s3" / "credentials").read_text().split()[-1]
        assert secret not in "\n".join(lines)
        assert (workspace.state / "s3" / "credentials").stat().st_mode & 0o077 == 0
        assert "0 objects" in svd("store", "verify")
    finally:
        stop_seaweed(workspace.state / "services", grace_s=0.5)
