"""The stage `register` on a finished project, with real git and real DVC."""

import os
import shutil
import subprocess
import sys
from types import SimpleNamespace

import pytest

from svd.config.registry import RegisterConfig
from svd.registry.publish import promote
from svd.registry.register import run
from svd.runtime.storage import open_store
from svd.runtime.store import object_key
from svd.runtime.tracking import NullTracker
from svd.types.gate import Gate
from svd.types.version import Candidate
from tests.unit.registry.registry_project import DEFAULT_GATES, Project, read_json, sha256, write


def test_a_passing_model_becomes_a_version_on_a_commit_of_its_own(project: Project) -> None:
    project.train("good weights")
    head, status = project.git("rev-parse", "HEAD"), project.git("status", "--porcelain")
    candidate = project.register()
    assert candidate.status == "registered"
    assert candidate.version.version == "v0.1.0"
    assert candidate.version.weights_sha256 == sha256("good weights")
    assert candidate.version.code_commit == head
    assert candidate.version.wandb_run_id == "finetune-i2v-" + "f" * 20
    assert candidate.version.lineage.licences == {"CC-BY-3.0": 1, "CC0-1.0": 1}

    assert project.git("rev-parse", "HEAD") == head
    assert project.git("status", "--porcelain") == status
    assert project.git("branch", "--contains", "svd-i2v@v0.1.0") == ""
    assert project.git("rev-parse", "svd-i2v@v0.1.0^{commit}^") == head
    changed = project.git("diff", "--name-only", "HEAD", "svd-i2v@v0.1.0").splitlines()
    assert changed == ["dvc.lock", "registry/svd-i2v/v0.1.0.json"]
    assert project.git("show", "svd-i2v@v0.1.0:dvc.lock") == (
        (project.root / "dvc.lock").read_text().strip()
    )
    assert project.catalog.record("v0.1.0") == candidate.version
    assert project.catalog.in_stage("candidate") == "v0.1.0"


def test_the_bytes_are_in_the_store_before_the_tag(project: Project) -> None:
    project.train("good weights")
    version = project.register().version
    store = open_store(str(project.workspace.state / "store"))
    assert store.get_bytes(object_key(version.weights_sha256)) == b"good weights"
    assert all(store.exists(object_key(file.sha256)) for file in version.files)
    assert version.lineage_table_sha256 is not None
    assert store.exists(object_key(version.lineage_table_sha256))


def test_the_same_model_with_the_same_record_is_the_same_version(project: Project) -> None:
    project.train("good weights")
    first = project.register()
    assert project.register() == first
    write(project.root / "README.md", "words")
    project.git("add", "README.md")
    project.git("commit", "-qm", "words")
    assert project.register() == first
    assert project.catalog.versions == ("v0.1.0",)
    project.train("better weights")
    assert project.register().version.version == "v0.1.1"


def test_a_model_that_fails_its_gates_is_refused_with_the_reason(project: Project) -> None:
    project.train("bad weights", retrieval=0.5)
    candidate = project.register()
    assert candidate.status == "refused"
    assert candidate.version.version is None
    assert candidate.reasons == ("first-frame retrieval: 0.5 is not >= 0.8 (n=16)",)
    assert project.catalog.versions == ()
    assert not (project.workspace.state / "store").exists()


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("svd/stage.py", "code is not committed: svd/stage.py"),
        ("svd/new.py", "code is not committed: svd/new.py"),
        (".gitignore", "code is not committed: .gitignore"),
    ],
)
def test_uncommitted_code_is_refused(project: Project, name: str, reason: str) -> None:
    project.train("good weights")
    with (project.root / name).open("a") as file:
        file.write("# edited\n")
    candidate = project.register()
    assert candidate.status == "refused"
    assert reason in candidate.reasons


def test_a_changed_recipe_is_recorded_if_the_stages_ran_with_it(project: Project) -> None:
    params = project.root / "params.yaml"
    params.write_text(params.read_text().replace("seed: 1", "seed: 7"))
    project.train("good weights")
    assert project.register().status == "registered"
    assert "seed: 7" in project.git("show", "svd-i2v@v0.1.0:params.yaml")


@pytest.mark.parametrize(
    ("path", "text", "reason"),
    [
        ("params.yaml", "filter: {size: 2}", "stage filter: its input params.yaml"),
        ("data/filtered/verdicts.jsonl", "{}", "stage filter: its output data/filtered"),
        ("models/pretrain-video/weights.safetensors", "x", "stage pretrain-video: its output"),
    ],
    ids=["recipe", "data", "model"],
)
def test_what_is_not_as_locked_is_missing_lineage(
    project: Project, path: str, text: str, reason: str
) -> None:
    project.train("good weights")
    old = (project.root / path).read_text()
    new = old.replace("filter:\n  size: 1", "filter:\n  size: 2") if "params" in path else text
    (project.root / path).write_text(new)
    candidate = project.register()
    assert candidate.status == "refused"
    assert any(reason in sentence for sentence in candidate.reasons), candidate.reasons


@pytest.mark.parametrize("path", ["dvc.lock", "data/raw/index.jsonl", "data/latents/manifest.json"])
def test_a_lost_record_is_missing_lineage(project: Project, path: str) -> None:
    project.train("good weights")
    (project.root / path).unlink()
    candidate = project.register()
    assert candidate.status == "refused"
    assert any(path in sentence for sentence in candidate.reasons)
    assert candidate.version.lineage_table_sha256 is None


def test_metrics_of_another_checkpoint_are_refused(project: Project) -> None:
    project.train("good weights")
    records = (project.workspace.evaluation / "records.jsonl").read_text()
    project.train("other weights")
    (project.workspace.evaluation / "records.jsonl").write_text(records)
    project.commit_outs("evaluate")
    assert "the metrics are of another checkpoint: run `dvc repro evaluate`" in (
        project.register().reasons
    )


def test_a_folder_without_git_is_refused(project: Project) -> None:
    project.train("good weights")
    shutil.rmtree(project.root / ".git")
    candidate = project.register()
    assert candidate.status == "refused"
    assert candidate.reasons[0].startswith("not in a git repository")


def test_git_without_an_identity_still_registers(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    project.train("good weights")
    for name in ("GIT_CONFIG_GLOBAL", "GIT_CONFIG_SYSTEM"):
        monkeypatch.setenv(name, "/dev/null")
    project.git("config", "user.useConfigOnly", "true")
    assert project.register().status == "registered"
    assert "svd registry" in project.git("cat-file", "tag", "svd-i2v@v0.1.0")


def test_a_gate_on_production_compares_with_what_is_there(project: Project) -> None:
    gate = Gate(metric="first-frame retrieval", comparison="no-worse-than-production", margin=0.02)
    project.train("good weights", retrieval=0.95)
    project.register(gate)
    promote(project.catalog, "v0.1.0", "production", approver="Ann")
    project.train("worse weights", retrieval=0.9)
    candidate = project.register(gate)
    assert candidate.status == "refused"
    assert candidate.reasons == ("first-frame retrieval: 0.9 is not >= production's 0.93 (n=16)",)


def test_the_stage_writes_its_out_and_reports(project: Project) -> None:
    project.train("bad weights", num=3)
    params = SimpleNamespace(registration=RegisterConfig(gates=DEFAULT_GATES))
    report = run(params, project.workspace, tracker=NullTracker())  # type: ignore[arg-type]
    assert report.summary["status"] == "refused"
    assert report.warnings == ("first-frame retrieval: 3 examples, the gate wants 16",)
    text = (project.workspace.registration / "candidate.json").read_text()
    assert Candidate.parse(text, origin="out").reasons == report.warnings
    card = (project.workspace.registration / "card.md").read_text()
    assert card.startswith("# svd-i2v (not registered)")
    assert "- 1 under CC0-1.0" in card


@pytest.mark.e2e
def test_below_dvc_repro_the_stage_registers_and_a_second_repro_does_nothing(
    project: Project,
) -> None:
    script = """
import sys
from pathlib import Path
from types import SimpleNamespace
from svd.config.registry import RegisterConfig
from svd.registry.publish import promote
from svd.registry.register import run
from svd.runtime.tracking import NullTracker
from svd.runtime.workspace import Workspace
from svd.types.gate import Gate
gate = Gate(metric="first-frame retrieval", comparison="at-least", threshold=0.8)
params = SimpleNamespace(registration=RegisterConfig(gates=(gate,)))
print(run(params, Workspace(Path.cwd()), tracker=NullTracker()).warnings)
"""
    write(project.root / "run_register.py", script)
    dvc_yaml = project.root / "dvc.yaml"
    command = f"{sys.executable} run_register.py"
    dvc_yaml.write_text(dvc_yaml.read_text().replace("echo register", command))
    project.git("add", ".")
    project.git("commit", "-qm", "a register stage")
    project.train("good weights")
    environment = {**os.environ, "PYTHONPATH": ":".join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-m", "dvc", "repro", "register"],
        cwd=project.root,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    out = read_json(project.workspace.registration / "candidate.json")
    assert out["status"] == "registered", out["reasons"]
    assert "didn't change" in project.dvc("repro", "register")
