"""The graph's stages and their order."""

import pytest

from svd.commands.stage import HELP, HOMES
from svd.errors import ConfigError
from svd.types.stage import STAGES, stages_between


def test_every_stage_has_a_command_with_help():
    assert tuple(HOMES) == STAGES
    assert tuple(HELP) == STAGES


def test_a_range_holds_both_ends():
    assert stages_between("clip", "filter") == ["clip", "annotate", "filter"]


def test_a_range_that_runs_backwards_is_refused():
    with pytest.raises(ConfigError, match="to_stage=clip comes before from_stage=filter"):
        stages_between("filter", "clip")
