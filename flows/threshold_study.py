"""Which thresholds to use: `prefect deployment run threshold-study/threshold-study`."""

import os
import sys
from pathlib import Path
from typing import Final, Literal

from prefect import flow, get_run_logger, task
from prefect.artifacts import create_markdown_artifact
from prefect.cache_policies import NO_CACHE

from flows.policies import RETRIES, RETRY_DELAYS_S, gpu_turn, is_worth_retrying
from flows.processes import start
from flows.stage import failure_of
from svd.runtime.workspace import Workspace

STEPS: Final = ("encode", "train", "sample", "rank")


@flow(name="threshold-study")
def threshold_study(
    scores: list[str] | None = None,
    shares: list[float] | None = None,
    steps: int | None = None,
    num_prompts: int = 64,
    rank_by: Literal["judge", "people"] = "judge",
) -> str:
    """Train proxies on parts of the clips and rank them; a run that was killed goes on.

    Args:
        scores: Axes, as `svd curate study --score` takes them; None is the recipe's.
        shares: Of the clips, left out; None is the paper's.
        steps: Of each proxy; None is the recipe's.
        num_prompts: At most.
        rank_by: The automatic judge, or people; votes of people are taken between two runs.

    Returns:
        The folder of the study.
    """
    options = [
        *(text for score in scores or [] for text in ("--score", score)),
        *(text for share in shares or [] for text in ("--share", f"{share:g}")),
        *(() if steps is None else ("--steps", f"{steps}")),
        *("--num-prompts", f"{num_prompts}", "--rank-by", rank_by),
    ]
    home = Workspace.find(Path(os.environ.get("SVD_ROOT") or Path.cwd()))
    for step in STEPS:
        run_step(step, options, str(home.root))
    return str(home.root / "reports" / "threshold-study")


@task(
    task_run_name="{step}",
    cache_policy=NO_CACHE,  # the study's folder is the cache
    retries=RETRIES,
    retry_delay_seconds=RETRY_DELAYS_S,
    retry_condition_fn=is_worth_retrying,
)
def run_step(step: str, options: list[str], root: str) -> None:
    """Bring the study up to a step.

    Raises:
        StageFailedError: The step's process ended with an error.
    """
    logger = get_run_logger()
    command = [_svd(), "curate", "study", *options, "--until", step]
    lines: list[str] = []
    with (
        gpu_turn("pretrain-video"),
        start(command, Path(root), os.environ, holds=(), timeout_s=None) as process,
    ):
        for text in process.lines:
            lines.append(text)
            logger.info(text)
    if process.exit_code:
        raise failure_of(f"threshold-study {step}", process.exit_code, lines)
    proposal = Path(root) / "reports" / "threshold-study" / "proposal.yaml"
    if step == "rank" and proposal.is_file():
        text = proposal.read_text(encoding="utf-8")
        create_markdown_artifact(
            key="threshold-study",
            markdown=f"## Proposed thresholds\n\n```yaml\n{text}```\n",
            description="Thresholds that the study proposes",
        )


def _svd() -> str:
    return str(Path(sys.executable).parent / "svd")


if __name__ == "__main__":
    threshold_study()
