"""Fetching with two addresses, comparing versions, and the card."""

from pathlib import Path

import pytest

from svd.errors import GateError, IntegrityError, MissingInputError
from svd.registry.card import render_card
from svd.registry.diff import diff_versions
from svd.registry.fetch import fetch_version, read_remote_catalog
from svd.registry.publish import promote
from svd.runtime.storage import open_store
from svd.runtime.store import Store, object_key
from tests.unit.registry.registry_project import Project, sha256


@pytest.fixture
def origin(released: Project, tmp_path: Path) -> str:
    """A bare repository that the released project was pushed to."""
    promote(released.catalog, "v0.1.1", "production", approver="Ann")
    released.git("init", "-q", "--bare", str(tmp_path / "origin.git"))
    released.git("push", "-q", str(tmp_path / "origin.git"), "main", "--tags")
    return (tmp_path / "origin.git").as_uri()


def store_of(project: Project) -> Store:
    return open_store(str(project.workspace.state / "store"))


def test_an_empty_folder_and_two_addresses_are_enough(
    released: Project, origin: str, tmp_path: Path
) -> None:
    catalog = read_remote_catalog(origin, "svd-i2v", tmp_path / "tags")
    fetched = fetch_version(catalog, "production", store_of(released), tmp_path / "out")
    assert fetched.version == "v0.1.1"
    weights = tmp_path / "out" / "models" / "finetune-i2v" / "weights.safetensors"
    assert weights.read_text() == "two"
    assert sorted(path.name for path in (tmp_path / "out").rglob("*.*")) == [
        "model.json",
        "model.json",
        "version.json",
        "weights.safetensors",
        "weights.safetensors",
    ]


def test_a_tampered_checkpoint_is_refused(released: Project, tmp_path: Path) -> None:
    store = store_of(released)
    store.put_bytes(b"twO", object_key(sha256("two")))
    with pytest.raises(IntegrityError, match="sha256 is"):
        fetch_version(released.catalog, "v0.1.1", store, tmp_path / "out")
    assert not list((tmp_path / "out").rglob("weights*"))


def test_a_file_changed_after_fetching_is_fetched_again(released: Project, tmp_path: Path) -> None:
    store, out = store_of(released), tmp_path / "out"
    fetch_version(released.catalog, "v0.1.1", store, out)
    weights = out / "models" / "finetune-i2v" / "weights.safetensors"
    weights.write_text("mine")
    fetch_version(released.catalog, "v0.1.1", store, out)
    assert weights.read_text() == "two"


def test_bytes_that_are_gone_and_repositories_that_are_not_are_named(
    released: Project, tmp_path: Path
) -> None:
    with pytest.raises(MissingInputError, match="not in the store"):
        fetch_version(released.catalog, "v0.1.1", open_store(str(tmp_path / "s")), tmp_path / "out")
    with pytest.raises(GateError, match="git fetch failed"):
        read_remote_catalog(str(tmp_path / "nowhere.git"), "svd-i2v", tmp_path / "tags")


def test_a_record_cannot_write_outside_the_folder(released: Project, tmp_path: Path) -> None:
    import subprocess

    root = released.root
    record = released.git("show", "svd-i2v@v0.1.1:registry/svd-i2v/v0.1.1.json")
    evil = record.replace("models/finetune-i2v/weights", "../../evil/weights")
    commit = released.catalog.repo.commit_files(
        "HEAD", {"registry/svd-i2v/v0.2.0.json": evil}, "evil"
    )
    subprocess.run(["git", "tag", "-a", "-m", "x", "svd-i2v@v0.2.0", commit], cwd=root, check=True)
    with pytest.raises(GateError, match="lies outside"):
        fetch_version(released.catalog, "v0.2.0", store_of(released), tmp_path / "a" / "b")
    assert not (tmp_path / "evil").exists()


def test_the_difference_of_two_versions_names_recipe_weights_and_metrics(
    released: Project,
) -> None:
    params = released.root / "params.yaml"
    params.write_text(params.read_text().replace("seed: 1", "seed: 7"))
    released.train("four", retrieval=0.95)
    assert released.register().version.version == "v0.1.3"
    changes = diff_versions(released.catalog, "v0.1.2", "v0.1.3")
    assert ("recipe", "seed", "1", "7") in changes
    metric = next(change for change in changes if change.part == "metric")
    assert metric.key == "first-frame retrieval [retrieval-1]"
    assert (metric.before, metric.after) == ("0.9 (0.8 to 0.95)", "0.95 (0.85 to 1)")
    assert {change.part for change in changes} == {"recipe", "weights", "metric"}
    assert diff_versions(released.catalog, "v0.1.3", "v0.1.3") == []


def test_the_card_tells_what_it_is_how_good_and_what_from(released: Project) -> None:
    card = render_card(released.catalog.record("v0.1.1"), stages=("production",))
    for part in (
        "# svd-i2v v0.1.1",
        "In use: production.",
        "| first-frame retrieval | 0.9 | 0.8 to 0.95 | 16 | higher | only among our own versions |",
        "- pass: first-frame retrieval: 0.9 is >= 0.8 (n=16)",
        "4 clips in 2 shards, from 2 source videos:",
        "- 1 under CC-BY-3.0",
        "dvc artifacts get GIT_URL svd-i2v --rev v0.1.1",
        sha256("two"),
    ):
        assert part in card
