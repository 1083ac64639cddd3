"""`svd registry` and `svd lineage` as people type them, and the remote a version's commit names."""

import json

import pytest
import typer
from typer.testing import CliRunner

from svd.commands import lineage, registry, store
from svd.errors import ConfigError, GateError
from svd.registry.remote import shared_config
from tests.unit.registry.registry_project import Project, sha256

app = typer.Typer()
for commands in (registry, lineage, store):
    commands.add_commands(app)


@pytest.fixture(autouse=True)
def _inside(released: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(released.root)
    monkeypatch.delenv("SVD_STORE", raising=False)


def svd(*arguments: str) -> str:
    result = CliRunner().invoke(app, list(arguments), catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def test_a_version_is_promoted_seen_compared_and_taken_back(released: Project) -> None:
    said = svd("registry", "promote", "v0.1.0", "production", "--by", "Ann", "-m", "first")
    assert "svd-i2v v0.1.0 is in production (approved by Ann)" in said
    assert "git push origin 'refs/tags/svd-i2v@*'" in said
    released.git("config", "user.name", "Bob")
    assert "in place of v0.1.0 (approved by Bob)" in svd(
        "registry", "promote", "latest", "production", "--replacing", "v0.1.0"
    )
    newest = svd("registry", "list").splitlines()[3]
    assert "v0.1.2" in newest
    assert "candidate, production" in newest
    assert "first-frame retrieval 0.9" in newest
    assert json.loads(svd("registry", "show", "production"))["version"] == "v0.1.2"
    assert "In use: candidate, production." in svd("registry", "card", "production")
    assert "models/finetune-i2v/weights.safetensors" in svd("registry", "diff", "v0.1.0")
    assert svd("registry", "diff", "latest", "production") == "v0.1.2 and v0.1.2 do not differ\n"
    assert "v0.1.0 is in production again, in place of v0.1.2" in svd(
        "registry", "rollback", "production", "--by", "Ann"
    )
    history = svd("registry", "history")
    for word in ("register", "promote", "rollback", "first", "Ann", "Bob"):
        assert word in history


def test_lineage_goes_both_ways(released: Project) -> None:
    down = svd("lineage", "latest", "--clips")
    assert str(released.catalog.record("v0.1.2").code_commit) in down
    assert "2 source videos, 4 clips in 2 shards" in down
    assert "clip-1-24" in down
    back = svd("lineage", "--video", sha256("video 1"))
    assert [f"svd-i2v v0.1.{n}" in back for n in range(3)] == [True] * 3
    assert "no registered version saw" in svd("lineage", "--video", "0" * 64)
    with pytest.raises(ConfigError, match="either a version or --video"):
        svd("lineage")


def test_fetch_inside_a_checkout_needs_no_address(released: Project) -> None:
    svd("registry", "fetch", "v0.1.1", "--out", "got")
    weights = released.root / "got" / "models" / "finetune-i2v" / "weights.safetensors"
    assert weights.read_text() == "two"


def test_another_name_has_nothing() -> None:
    assert "other has no version yet" in svd("registry", "list", "--name", "other")
    with pytest.raises(GateError, match="other has no version yet"):
        svd("registry", "show", "--name", "other")


def test_the_store_is_made_checked_and_known_to_dvc(released: Project) -> None:
    svd("store", "init")
    place = str(released.workspace.state / "store")
    assert f"url = {place}/dvc" in (released.root / ".dvc" / "config.local").read_text()
    assert "objects, " in svd("store", "verify")
    weights = next((released.workspace.state / "store" / "objects").rglob(sha256("two")))
    weights.write_text("twO")
    result = CliRunner().invoke(app, ["store", "verify"])
    assert result.exit_code == 1
    assert sha256("two") in result.output


def test_a_versions_remote_has_an_absolute_place_and_no_credentials(released: Project) -> None:
    folder = released.root / ".dvc"
    assert shared_config(released.root) is None
    (folder / "config.local").write_text(
        "['remote \"store\"']\n    url = ../cache/dvc\n    endpointurl = http://127.0.0.1:1\n"
        "    access_key_id = planted\n    secret_access_key = planted\n"
    )
    text = shared_config(released.root)
    assert text is not None
    assert f"url = {released.root}/cache/dvc" in text
    assert "endpointurl = http://127.0.0.1:1" in text
    assert "analytics = false" in text
    assert "planted" not in text
    (folder / "config").write_text(text)
    assert shared_config(released.root) is None
