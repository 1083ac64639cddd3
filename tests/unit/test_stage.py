"""The graph's stages and their order."""

import pytest
from typer.testing import CliRunner

from svd.cli import app
from svd.commands.stage import COMMANDS, HELP, HOMES
from svd.errors import ConfigError
from svd.types.stage import STAGES, stages_between


def test_every_stage_has_a_command_with_help():
    assert tuple(HOMES) == STAGES
    assert tuple(HELP) == tuple(stage for stage in STAGES if stage not in COMMANDS)


@pytest.mark.parametrize("command", sorted(set(COMMANDS.values())))
def test_a_stage_whose_command_is_not_its_name_has_one_with_help(command):
    shown = CliRunner().invoke(app, [*command.split(), "--help"])
    assert shown.exit_code == 0
    assert ("priors" if command.startswith("finetune-multiview") else "camera") in shown.output


def test_a_range_holds_both_ends():
    assert stages_between("clip", "filter") == ["clip", "annotate", "filter"]


def test_a_range_that_runs_backwards_is_refused():
    with pytest.raises(ConfigError, match="to_stage=clip comes before from_stage=filter"):
        stages_between("filter", "clip")
