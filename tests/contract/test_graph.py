"""dvc.yaml, params.yaml, the recipes, the classes and the commands name the same stages."""

from pathlib import Path

import pytest
import yaml

from svd.commands.stage import COMMANDS
from svd.config.derive import derive_key
from svd.config.load import load_params
from svd.config.params import Params
from svd.config.recipe import recipe_names, recipe_path
from svd.runtime.graph import expand_stages
from svd.runtime.workspace import Workspace
from svd.types.stage import CHAIN, STAGES
from tests.contract.graph_code import code_of_stages

ROOT = Path(__file__).parents[2]
GRAPH = expand_stages(yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"])
SECTIONS = {field.alias or name for name, field in Params.model_fields.items()}


def test_the_graph_has_the_stages_in_their_order():
    assert tuple(GRAPH) == STAGES


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_runs_its_own_command(stage):
    assert GRAPH[stage]["cmd"] == f"svd {COMMANDS.get(stage, stage)}"


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_hangs_on_its_own_section_and_on_sections_that_exist(stage):
    assert stage.partition("@")[0] in GRAPH[stage]["params"]
    assert {key.partition(".")[0] for key in GRAPH[stage]["params"]} <= SECTIONS


@pytest.mark.parametrize("stage", sorted(set(STAGES) - set(CHAIN)))
def test_a_derived_stage_hangs_on_the_key_that_plans_it(stage):
    assert derive_key(stage) in GRAPH[stage]["params"]


@pytest.mark.parametrize("stage", sorted(set(STAGES) - set(CHAIN)))
def test_a_derived_stage_writes_where_the_workspace_says(stage):
    place = Workspace(ROOT).derived(stage).relative_to(ROOT)
    assert GRAPH[stage]["outs"] == [place.as_posix()]


def test_a_stage_hangs_on_all_of_its_code_and_on_no_other():
    listed = {
        stage: [dep for dep in section["deps"] if dep.startswith("svd/")]
        for stage, section in GRAPH.items()
    }
    assert listed == code_of_stages(), "run `make graph`"


def test_every_output_is_read_by_someone_or_is_the_end():
    outs = {out for stage in GRAPH.values() for out in stage["outs"]}
    deps = {dep for stage in GRAPH.values() for dep in stage["deps"]}
    ends = {"reports/register", "reports/finetunes", "reports/multiview"}
    assert outs - deps == ends


@pytest.mark.parametrize("name", ["params", *recipe_names(ROOT)])
def test_a_recipe_is_valid(name):
    load_params(recipe_path(ROOT, name))


def test_the_recipe_in_force_is_the_laptop_recipe():
    laptop = recipe_path(ROOT, "laptop").read_text()
    assert (ROOT / "params.yaml").read_text() == laptop
