"""Offline runs, tracked for real and read back."""

import json
from pathlib import Path

import numpy as np
import pytest
import typer
from PIL import Image
from typer.testing import CliRunner

from svd.commands import runs
from svd.commands.runs_page import differences, render_page
from svd.commands.runs_workspace import build_workspace, definition
from svd.errors import MissingInputError
from svd.runtime.cost import COST, DEVICE_HOURS, VARIABLE
from svd.runtime.runs import Run, find_run, parse_attempt, read_runs
from svd.runtime.tracking import open_tracker
from svd.runtime.workspace import Workspace


def lines(run_id: str, start: str, points: dict[int, float], code: int | None) -> list[str]:
    records: list[dict[str, object]] = [
        {
            "type": "run",
            "run": {
                "run_id": run_id,
                "display_name": "train",
                "run_group": "g",
                "start_time": start,
                "config": {"update": {"_wandb": {}, "lr": 1}},
            },
        },
        *(
            {
                "type": "history",
                "history": {"item": {"train/step": step, "train/loss": loss, "_runtime": step}},
            }
            for step, loss in points.items()
        ),
    ]
    if code is not None:
        records.append({"type": "exit", "exit": {"exit_code": code}})
    return [json.dumps(record) for record in records]


def test_attempts_of_a_run_make_one_curve_in_which_the_later_one_counts() -> None:
    killed = lines("r", "2026-01-01T00:00:00Z", {1: 3.0, 2: 2.0, 3: 1.5}, None)
    resumed = lines("r", "2026-01-01T01:00:00Z", {3: 1.4, 4: 1.0}, 0)
    run = Run(
        run_id="r",
        attempts=(parse_attempt(killed, folder="a"), parse_attempt(resumed, folder="b")),
    )
    assert run.curves == {"train/loss": [(1, 3.0), (2, 2.0), (3, 1.4), (4, 1.0)]}
    assert run.state == "finished"
    assert run.busy_s == 3 + 4
    assert run.config == {"lr": 1}


def told(run_id: str, start: str, step: int, hours: float, cost: float) -> list[str]:
    """A killed attempt of a training stage whose last row tells the sum so far."""
    item = {"train/step": step, DEVICE_HOURS: hours, COST: cost, "_runtime": 1}
    row = {"type": "history", "history": {"item": item}}
    return [*lines(run_id, start, {}, None), json.dumps(row)]


def test_what_a_run_cost_is_the_sum_over_its_attempts() -> None:
    killed = told("r", "2026-01-01T00:00:00Z", 30, 1.5, 3.0)
    resumed = told("r", "2026-01-01T01:00:00Z", 20, 2.0, 4.0)  # from an earlier checkpoint
    attempts = (parse_attempt(killed, folder="a"), parse_attempt(resumed, folder="b"))
    run = Run(run_id="r", attempts=attempts)
    assert (run.device_hours, run.cost) == (2.0, 4.0)


def test_a_stage_that_tells_its_hours_at_the_end_costs_what_the_price_says(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    update = {"type": "summary", "summary": {"update": {DEVICE_HOURS: 0.5}}}
    attempts = tuple(
        parse_attempt(
            [*lines("r", f"2026-01-01T0{hour}:00:00Z", {}, 0), json.dumps(update)], folder=str(hour)
        )
        for hour in (0, 1)
    )
    run = Run(run_id="r", attempts=attempts)
    assert (run.device_hours, run.cost) == (1.0, None)
    monkeypatch.setenv(VARIABLE, "2.5")
    assert run.cost == 2.5


def test_a_killed_run_without_a_row_lasted_until_its_last_sign_of_life() -> None:
    head = lines("r", "2026-01-01T00:00:00Z", {}, None)
    sign = {"type": "stats", "stats": {"item": {}, "timestamp": "2026-01-01T00:00:30.25Z"}}
    assert parse_attempt([*head, json.dumps(sign)], folder="a").ended_s == 30.25


def test_a_run_that_ended_says_how_long_it_took() -> None:
    head = lines("r", "2026-01-01T00:00:00Z", {1: 3.0}, None)
    end = {"type": "exit", "exit": {"exit_code": 0, "runtime": 18}}
    assert parse_attempt([*head, json.dumps(end)], folder="a").ended_s == 18


@pytest.mark.parametrize(("code", "state"), [(None, "unfinished"), (0, "finished"), (1, "failed")])
def test_the_state_is_that_of_the_last_attempt(code: int | None, state: str) -> None:
    attempt = parse_attempt(lines("r", "2026-01-01T00:00:00Z", {}, code), folder="a")
    assert Run(run_id="r", attempts=(attempt,)).state == state


def test_a_curve_of_one_row_is_a_point() -> None:
    attempt = parse_attempt(lines("r", "2026-01-01T00:00:00Z", {6: 0.5}, 0), folder="a")
    page = render_page([Run(run_id="r", attempts=(attempt,))], Path())
    assert page.count("<circle") == 1
    assert "<polyline" not in page


def test_the_teams_view_groups_by_pipeline_run_and_draws_against_our_steps() -> None:
    spec = definition(build_workspace("team", "svd"))["spec"]["section"]
    assert [key["name"] for key in spec["runSets"][0]["grouping"]] == ["group", "jobType"]
    sections = spec["panelBankConfig"]["sections"]
    assert [section["name"] for section in sections] == ["Learning", "Samples", "Speed", "Cost"]
    drawn = {panel["config"].get("xAxis") for panel in sections[0]["panels"]}
    assert drawn == {"train/step", COST}


def test_a_tracked_stage_is_read_back_and_drawn(checkout: Workspace) -> None:
    picture = checkout.root / "p.png"
    Image.fromarray(np.zeros((4, 4, 3), np.uint8)).save(picture)
    for attempt in range(2):  # the same fingerprint: a second attempt of the same run
        with open_tracker("demo", workspace=checkout, config={"demo": {"lr": 1e-4}}) as tracker:
            for step in range(3):
                tracker.log({"loss": 1.0 / (1 + step + attempt)}, step=step + 2 * attempt)
            tracker.log_media("sample", picture, step=2)
            tracker.log_table("<clips>", ["a"], [["b"]])
            tracker.summarize({"clips kept": 7})
    (run,) = read_runs(checkout)
    assert run.name == "demo"
    assert len(run.attempts) == 2
    assert [x for x, _ in run.curves["train/loss"]] == [0, 1, 2, 3, 4]
    assert run.summary["clips kept"] == 7
    assert [item.key for item in run.media if item.kind == "image-file"] == ["sample", "sample"]

    page = render_page([run], checkout.root)
    assert page.count("data:image/png;base64,") == 2
    assert "<polyline" in page
    assert "&lt;clips&gt;" not in page  # tables are not drawn
    assert "http" not in page.replace("http-equiv", "")  # nothing is loaded from elsewhere
    assert read_runs(checkout) == [run]  # now from what was kept
    assert list((checkout.state / "runs").glob("*.json"))


def test_a_run_is_found_by_its_beginning(checkout: Workspace) -> None:
    attempt = parse_attempt(lines("train-1", "2026-01-01T00:00:00Z", {}, 0), folder="a")
    run = Run(run_id="train-1", attempts=(attempt,))
    assert find_run([run], "train") == run
    with pytest.raises(MissingInputError, match="no run 'eval' below wandb/; there are: train-1"):
        find_run([run], "eval")


def test_settings_are_compared_leaf_by_leaf() -> None:
    before, after = {"a": {"b": 1, "c": [1]}}, {"a": {"b": 2, "c": [1], "d": "x"}}
    assert differences([before, after]) == [("a.b", ("1", "2")), ("a.d", ("", "x"))]


def test_a_folder_without_runs_has_none(tmp_path: Path) -> None:
    assert read_runs(Workspace(tmp_path)) == []


def test_the_commands_list_show_and_compare(
    checkout: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    for rate in ("1.0e-4", "2.0e-4"):
        checkout.params_file.write_text(f"demo: {{lr: {rate}}}\n")
        config = {"demo": {"lr": float(rate)}}
        with open_tracker("demo", workspace=checkout, config=config, group="g7") as tracker:
            tracker.log({"loss": 1.0}, step=1)
            tracker.log({"loss": 0.5}, step=2)
            tracker.summarize({"clips kept": 7})
    monkeypatch.chdir(checkout.root)
    listed = svd("list")
    assert listed.count("clips kept 7") == 2
    assert svd("list", "--group", "other") == "no run yet: every `svd <stage>` tracks one\n"
    shown = svd("show", "demo", "--html", "run.html")
    assert "finished" in shown
    assert "1 -> 0.5" in shown
    ids = [run.run_id for run in read_runs(checkout)]
    compared = svd("compare", *ids, "--html", "both.html")
    assert "demo.lr" in compared
    page = (checkout.root / "both.html").read_text()
    assert page.count("<polyline") == 2
    assert "Settings that differ" in page


def svd(*arguments: str) -> str:
    app = typer.Typer()
    runs.add_commands(app)
    result = CliRunner().invoke(app, ["runs", *arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output
