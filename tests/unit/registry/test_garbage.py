"""What gc takes and what it must never take."""

import os
import subprocess
import time
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from svd.commands import store as store_commands
from svd.errors import GateError
from svd.registry.fetch import fetch_version
from svd.registry.garbage import find_garbage
from svd.runtime.storage import open_store, put_object
from svd.runtime.store import Store
from tests.unit.registry.registry_project import Project

app = typer.Typer()
store_commands.add_commands(app)


def store_of(project: Project) -> Store:
    return open_store(str(project.workspace.state / "store"))


def add_orphan(project: Project, text: str = "a model that nobody registered") -> str:
    path = project.root / "orphan.bin"
    path.write_text(text)
    return put_object(store_of(project), path)


def gc(project: Project, monkeypatch: pytest.MonkeyPatch, *arguments: str) -> str:
    monkeypatch.chdir(project.root)
    result = CliRunner().invoke(app, ["store", "gc", *arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def test_only_what_no_version_names_goes_and_every_version_can_still_be_fetched(
    released: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    orphan = add_orphan(released)
    said = gc(released, monkeypatch, "--delete", "--min-age-hours", "0")
    assert orphan in said
    assert not store_of(released).exists(orphan)
    for version in released.catalog.versions:
        fetch_version(released.catalog, version, store_of(released), tmp_path / version)


def test_without_being_told_to_it_deletes_nothing(
    released: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    orphan = add_orphan(released)
    said = gc(released, monkeypatch, "--min-age-hours", "0")
    assert f"unreferenced  {30:>14,}  {orphan}" in said
    assert "--delete deletes them" in said
    assert store_of(released).exists(orphan)


def test_bytes_whose_tag_may_be_on_its_way_are_kept(released: Project) -> None:
    orphan = add_orphan(released)
    store, day = store_of(released), 24 * 3600.0
    young = find_garbage(store, released.root, now_s=time.time(), min_age_s=day)
    assert young.unreferenced == ()
    old = find_garbage(store, released.root, now_s=time.time() + 2 * day, min_age_s=day)
    assert [entry.key for entry in old.unreferenced] == [orphan]
    assert old.size_bytes == len("a model that nobody registered")


def test_it_refuses_while_a_remote_knows_versions_that_we_do_not(
    released: Project, tmp_path: Path
) -> None:
    origin = tmp_path / "origin.git"
    released.git("init", "-q", "--bare", str(origin))
    released.git("remote", "add", "origin", str(origin))
    released.git("push", "-q", "origin", "main", "--tags")
    released.git("tag", "-d", "svd-i2v@v0.1.2")
    with pytest.raises(GateError, match=r"origin has 1 tags .*svd-i2v@v0.1.2.*fetch --tags"):
        find_garbage(store_of(released), released.root, now_s=time.time(), min_age_s=0)


def test_dvc_keeps_what_a_tag_names_and_clears_the_rest(
    released: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(released.root)
    env = {**os.environ, "SVD_STORE": str(released.workspace.state / "store")}
    result = CliRunner().invoke(app, ["store", "init"], env=env, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    released.dvc("push", "--all-tags", "--quiet")
    released.train("never registered")
    released.dvc("push", "--quiet")
    released.train("three")  # as registered last

    def pushed() -> set[str]:
        return {entry.key for entry in store_of(released).list("dvc/files")}

    assert b"never registered" in {read(released, key) for key in pushed()}
    gc(released, monkeypatch, "--delete", "--min-age-hours", "0")
    assert b"never registered" not in {read(released, key) for key in pushed()}
    released.dvc("pull", "--quiet", "--force")
    weights = released.workspace.model("finetune-i2v") / "weights.safetensors"
    assert weights.read_text() == "three"
    subprocess.run(["git", "checkout", "-qf", "svd-i2v@v0.1.0"], cwd=released.root, check=True)
    released.dvc("pull", "--quiet", "--force")
    assert weights.read_text() == "one"


def read(project: Project, key: str) -> bytes:
    return (project.workspace.state / "store" / key).read_bytes()
