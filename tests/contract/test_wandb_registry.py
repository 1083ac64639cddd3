"""What a W&B server is sent of the registry: seen by a stub on loopback, never by a real server."""

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import wandb

from svd.registry.mirror import mirror_stage, mirror_version
from svd.runtime.storage import open_store
from svd.runtime.tracking import open_tracker
from svd.types.version import ModelVersion, Promotion
from tests.contract.wandb_stub import WandbStub
from tests.unit.registry.registry_project import Project, make_project, sha256

# wandb gives a server 30 s, which a busy machine may not keep: a slow check.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(200)]


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    os.environ.pop("SVD_STORE", None)
    made = make_project(tmp_path_factory.mktemp("mirror"))
    made.train("good")
    assert made.register().status == "registered"
    return made


@pytest.fixture
def online(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[WandbStub]:
    with WandbStub() as server:
        settings = {
            "WANDB_MODE": "online", "WANDB_API_KEY": "0" * 40, "WANDB_BASE_URL": server.url,
            "WANDB_DIR": str(tmp_path), "WANDB_DATA_DIR": str(tmp_path),
        }  # fmt: skip
        for name, value in settings.items():
            monkeypatch.setenv(name, value)
        yield server
        wandb.teardown()


def latest(project: Project) -> ModelVersion:
    return project.catalog.record("v0.1.0")


def test_a_version_is_shown_with_its_facts_and_its_bytes_stay_in_the_store(
    project: Project, online: WandbStub
) -> None:
    version, store = latest(project), open_store("s3://bucket/models")
    with open_tracker("register", workspace=project.workspace, config={}):
        mirror_version(version, store)
    (made,) = [asked["input"] for name, asked in online.asked if name == "CreateArtifact"]
    assert made["artifactCollectionName"] == "svd-i2v"
    assert {"v0.1.0", "candidate"} <= {alias["alias"] for alias in made["aliases"]}
    assert json.loads(made["metadata"])["weights_sha256"] == sha256("good")
    (manifest,) = online.uploaded
    entry = manifest["contents"]["models/finetune-i2v/weights.safetensors"]
    assert entry["ref"].startswith("s3://bucket/models/objects/sha256/")
    linked = [asked for name, asked in online.asked if name == "LinkArtifact"]
    assert [one["input"]["artifactPortfolioName"] for one in linked] == ["svd-i2v"]


def test_a_server_without_the_version_costs_a_warning(
    project: Project, online: WandbStub, caplog: pytest.LogCaptureFixture
) -> None:
    (event,) = [one for one in project.catalog.events if one.stage == "candidate"]
    promotion = project.catalog.promotion(event)
    assert isinstance(promotion, Promotion)
    mirror_stage(promotion)
    assert [record.message for record in caplog.records if record.name.startswith("svd")] == [
        "not shown in the W&B Registry"
    ]


def test_offline_nothing_is_asked(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    with WandbStub() as server:
        monkeypatch.setenv("WANDB_BASE_URL", server.url)
        monkeypatch.setenv("WANDB_MODE", "offline")
        mirror_version(latest(project), open_store("s3://bucket/models"))
        assert server.asked == []
