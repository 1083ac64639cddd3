"""Withdrawing a source: who saw it, and that it is not used again."""

import json
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from svd.commands import takedown
from svd.curation.ingest.withdrawn import read_withdrawn
from svd.errors import ConfigError, GateError
from svd.registry.publish import promote
from svd.registry.takedown import find_exposure
from svd.runtime.storage import open_store
from svd.runtime.store import Store
from svd.types.shard import ShardManifest
from tests.unit.registry.registry_project import Project, sha256

FILM, HELD_OUT = sha256("video 0"), sha256("video 1")
app = typer.Typer()


@app.callback()
def _root() -> None:
    """Make the one command a subcommand, as it is below `svd`."""


takedown.add_commands(app)


def store_of(project: Project) -> Store:
    return open_store(str(project.workspace.state / "store"))


def run(project: Project, monkeypatch: pytest.MonkeyPatch, *arguments: str) -> str:
    monkeypatch.chdir(project.root)
    result = CliRunner().invoke(app, ["takedown", *arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def trained_on_what_lies_here(project: Project, stage: str) -> None:
    workspace = project.workspace
    manifest = ShardManifest.parse((workspace.latents / "manifest.json").read_text(), origin="")
    path = workspace.model(stage) / "model.json"
    record = json.loads(path.read_text()) | {"dataset_fingerprint": manifest.content_hash()}
    path.write_text(json.dumps(record))


def test_every_shard_checkpoint_and_version_that_saw_it_is_listed(
    released: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    promote(released.catalog, "v0.1.1", "production", approver="Ann")
    trained_on_what_lies_here(released, "pretrain-video")
    said = run(released, monkeypatch, FILM[:8], "--by", "Ann", "--reason", "asked to")
    assert f"{FILM} is withdrawn" in said
    assert f"shard here: {sha256('train')}" in said
    assert f"models/pretrain-video, {sha256('weights of pretrain-video')}" in said
    assert "models/autoencoder" in said
    assert "models/pretrain-image" not in said  # trained on other data than lies here
    for version, weights in (("v0.1.0", "one"), ("v0.1.1", "two"), ("v0.1.2", "three")):
        assert f"svd-i2v {version}" in said
        assert sha256(weights)[:16] in said
    assert "svd-i2v v0.1.1 holds production" in said
    entry = read_withdrawn(released.workspace)[FILM]
    assert (entry.by, entry.reason) == ("Ann", "asked to")


def test_looking_withdraws_nothing(released: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    run(released, monkeypatch, FILM, "--look")
    assert read_withdrawn(released.workspace) == {}


def test_withdrawing_twice_keeps_the_first_entry(
    released: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(released, monkeypatch, FILM, "--by", "Ann", "--reason", "first")
    assert "was withdrawn before" in run(released, monkeypatch, FILM, "--by", "Bob")
    assert [entry.by for entry in read_withdrawn(released.workspace).values()] == ["Ann"]


def test_an_unknown_video_can_be_withdrawn_ahead_by_its_whole_hash(
    released: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = run(released, monkeypatch, "0" * 64, "--by", "Ann")
    assert "nothing here knows this video" in said
    assert set(read_withdrawn(released.workspace)) == {"0" * 64}


@pytest.mark.parametrize("digits", ["000000", "nothex!!", "12"])
def test_digits_of_no_video_are_refused(released: Project, digits: str) -> None:
    with pytest.raises(GateError, match=r"no video here begins with|six or more"):
        find_exposure(released.workspace, store_of(released), digits)


def test_a_damaged_list_stops_curation(released: Project) -> None:
    released.workspace.withdrawn.write_text('{"video_id": "abc"}\n')
    with pytest.raises(ConfigError, match=r"withdrawn.jsonl:1.*restore the file from git"):
        read_withdrawn(released.workspace)


def test_a_line_is_added_after_one_without_its_end(
    released: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(released, monkeypatch, FILM, "--by", "Ann")
    path: Path = released.workspace.withdrawn
    path.write_text(path.read_text().rstrip("\n"))
    run(released, monkeypatch, HELD_OUT, "--by", "Ann")
    assert set(read_withdrawn(released.workspace)) == {FILM, HELD_OUT}
