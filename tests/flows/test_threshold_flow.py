"""The study of thresholds as a flow: step by step, through the command that anybody may call."""

from pathlib import Path

import pytest

from flows import threshold_study as module
from flows.errors import StageFailedError

pytestmark = [pytest.mark.e2e, pytest.mark.usefixtures("prefect_server")]
COMMAND = """#!/bin/sh
echo "$@" >> calls.log
[ ! -e fault ] || { cat fault; exit 1; }
"""


@pytest.fixture
def calls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "params.yaml").write_text("seed: 1\n")
    command = tmp_path / "svd"
    command.write_text(COMMAND)
    command.chmod(0o755)
    monkeypatch.setattr(module, "_svd", lambda: str(command))
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SVD_ROOT", raising=False)
    return tmp_path / "calls.log"


def test_every_step_asks_for_the_same_study_in_order(calls: Path) -> None:
    folder = module.threshold_study(scores=["motion.dis_px"], shares=[0.25], steps=8, num_prompts=4)
    assert folder == str(calls.parent / "reports" / "threshold-study")
    asked = "curate study --score motion.dis_px --share 0.25 --steps 8 --num-prompts 4"
    assert calls.read_text().splitlines() == [
        f"{asked} --rank-by judge --until {step}" for step in ("encode", "train", "sample", "rank")
    ]


def test_what_a_second_try_cannot_mend_is_said_at_once(calls: Path) -> None:
    (calls.parent / "fault").write_text("svd: [ConfigError] no clip has the score x\n")
    with pytest.raises(StageFailedError, match="no clip has the score x"):
        module.threshold_study()
    assert len(calls.read_text().splitlines()) == 1
