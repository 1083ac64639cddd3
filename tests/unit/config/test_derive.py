"""What a recipe derives: planned by a key, written by a command, and left alone otherwise."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from svd.cli import app
from svd.config.derive import DERIVABLE
from svd.config.load import load_params
from svd.runtime.unplanned import NAME, NotPlanned
from svd.runtime.workspace import Workspace
from svd.types.stage import CHAIN, STAGES

ROOT = Path(__file__).parents[3]


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "params.yaml").write_bytes((ROOT / "params.yaml").read_bytes())
    monkeypatch.chdir(tmp_path)
    return tmp_path


def derive(*names: str) -> str:
    done = CliRunner().invoke(app, ["recipe", "derive", *names])
    return done.output if done.exit_code == 0 else f"{done.exception}"


def test_the_main_chain_is_always_planned_and_the_laptop_derives_nothing(root: Path) -> None:
    planned = load_params(root / "params.yaml").derive
    assert [stage for stage in STAGES if planned.plans(stage)] == list(CHAIN)


def test_planning_all_changes_the_section_and_no_other_line(root: Path) -> None:
    before = (root / "params.yaml").read_text()
    derive("all")
    after = (root / "params.yaml").read_text()
    section = yaml.safe_load(after)["derive"]
    assert section == dict.fromkeys(DERIVABLE, True)
    assert all(load_params(root / "params.yaml").derive.plans(stage) for stage in STAGES)
    derive("none")
    assert (root / "params.yaml").read_text() == before


def test_an_unknown_finetune_is_refused_and_the_recipe_stays(root: Path) -> None:
    before = (root / "params.yaml").read_bytes()
    assert "no finetune 'lor'; there are: finetune-t2v" in derive("lor")
    assert (root / "params.yaml").read_bytes() == before


def test_what_starts_from_something_that_is_not_made_is_refused(root: Path) -> None:
    text = (root / "params.yaml").read_text()
    start = text.index("\nfinetune-interpolation:\n")
    changed = text[start:].replace("init: finetune-i2v", "init: finetune-t2v", 1)
    (root / "params.yaml").write_text(text[:start] + changed)
    said = derive("finetune-interpolation")
    assert "derive.finetune-interpolation=true, but finetune-interpolation starts from" in said
    assert "derive.finetune-t2v=false" in said


def test_a_stage_that_is_not_planned_leaves_a_record_in_place_of_its_output(root: Path) -> None:
    workspace = Workspace(root)
    (workspace.model("lora@zoom")).mkdir(parents=True)
    (workspace.model("lora@zoom") / "weights.safetensors").touch()
    done = subprocess.run(
        [sys.executable, "-m", "svd.cli", "lora", "zoom"],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "see derive.lora in params.yaml" in done.stderr
    (left,) = workspace.model("lora@zoom").iterdir()
    assert left.name == NAME
    assert NotPlanned.parse(left.read_text(), origin=NAME).stage == "lora@zoom"
