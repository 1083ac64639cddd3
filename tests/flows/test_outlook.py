"""What a run knows before its first stage spares it processes that would find nothing to do."""

import subprocess
import sys
from itertools import chain, combinations
from pathlib import Path

import pytest

from flows.full_pipeline import full_pipeline
from flows.outlook import undisturbed, unplanned_stages
from flows.parts import DERIVED
from flows.units import order_units
from svd.config.derive import DERIVABLE
from svd.errors import ConfigError
from svd.runtime.graph import read_graph
from svd.types.stage import CHAIN, STAGES, stages_between
from tests.flows.conftest import instant_project, ran_in, run_in

ROOT = Path(__file__).parents[2]
PLANS = [*chain.from_iterable(combinations(DERIVABLE, n) for n in range(len(DERIVABLE) + 1))]


def test_a_changed_stage_disturbs_all_that_hang_on_it():
    graph = read_graph(ROOT)
    assert undisturbed({}, graph) == list(STAGES)
    assert undisturbed({"ingest": ["changed"]}, graph) == ["orbits"]  # which renders its own
    left = undisturbed({"evaluate": [], "lora@zoom": []}, graph)
    assert set(STAGES) - set(left) == {"evaluate", "register", "lora@zoom", "evaluate-finetunes"}


@pytest.mark.parametrize("planned", PLANS, ids=lambda plan: "+".join(plan) or "none")
def test_whatever_is_planned_what_is_derived_has_an_order(planned):
    graph = read_graph(ROOT)
    run = run_in(ROOT)
    is_planned = dict.fromkeys(DERIVABLE, False) | dict.fromkeys(planned, True)
    run = run.model_copy(update={"unplanned": _unplanned(is_planned)})
    units = order_units(run, DERIVED, graph)
    flat = [stage for unit in units for stage in unit]
    assert sorted(flat) == sorted(DERIVED)
    assert len(units) == len(set(DERIVED) - set(run.unplanned)) + bool(
        set(DERIVED) & set(run.unplanned)
    )
    seen = set()
    for unit, before in units.items():
        assert before <= seen
        waited_for = {stage for one in before for stage in one} | set(unit)
        assert all(graph[stage].after & set(DERIVED) <= waited_for for stage in unit)
        seen.add(unit)


def _unplanned(is_planned):
    from svd.config.derive import DeriveConfig

    derive = DeriveConfig.model_validate(is_planned)
    return [stage for stage in STAGES if not derive.plans(stage)]


def test_a_section_that_is_wrong_is_one_sentence(tmp_path):
    (tmp_path / "params.yaml").write_text("seed: 1\nderive: {lora: 3}\n")
    with pytest.raises(ConfigError, match=r"derive\.lora"):
        unplanned_stages(run_in(tmp_path))


@pytest.mark.e2e
@pytest.mark.usefixtures("prefect_server")
@pytest.mark.parametrize(
    ("first", "lost"),
    [("register", "register"), pytest.param("ingest", "filter", marks=pytest.mark.slow)],
)
def test_what_is_not_planned_runs_in_one_process_and_a_second_run_starts_none(
    tmp_path, monkeypatch, first, lost
):
    project = instant_project(tmp_path, planned=[])
    monkeypatch.chdir(project)
    monkeypatch.setattr("flows.full_pipeline.publish_report", lambda run: None)
    started: list[list[str]] = []
    from flows import stage

    real = stage.start

    def counted(command, *args, **kwargs):
        started.append(command)
        return real(command, *args, **kwargs)

    monkeypatch.setattr(stage, "start", counted)
    before, chain = CHAIN[: CHAIN.index(first)], CHAIN[CHAIN.index(first) :]
    if before:
        (project / "out").mkdir()
        for done in before:
            (project / "out" / done).write_text("there")
        commit = [sys.executable, "-m", "dvc", "commit", "-q", "--force", *before]
        subprocess.run(commit, cwd=project, check=True)
    wanted = sorted(stages_between(first, STAGES[-1]))
    full_pipeline(from_stage=first)
    assert sorted(ran_in(project)) == wanted
    assert [stage for stage in ran_in(project) if stage in CHAIN] == list(chain)
    alone = [command[-1] for command in started if len(command) == 5]
    assert sorted(alone) == sorted({*chain, "camera-motion", "finetune-t2v"})
    assert len(started) == len(alone) + 1
    repro = [sys.executable, "-m", "dvc", "repro"]
    subprocess.run(repro, cwd=project, check=True)
    assert sorted(ran_in(project)) == wanted
    started.clear()
    full_pipeline(from_stage=first)
    assert started == []
    assert sorted(ran_in(project)) == wanted
    (project / "out" / lost).unlink()
    full_pipeline(from_stage=first, to_stage=lost)
    assert [command[-1] for command in started] == [lost]
    assert sorted(ran_in(project)) == wanted  # restored from DVC's cache
