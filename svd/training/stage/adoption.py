"""Going on under another name: after a change of code or parameters that its owner vouches for.

A change gives a run a new name and thereby a clean start. Where weeks of training are behind it and
the change is a mended logging line, `adopt` lets the run of the new name begin with what the old
one has: its newest sound checkpoint, finished phases, rows, averages and cost. The old run stays as
it is, and the report of the new one says where it came from and what differed.
"""

import json
import logging
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from filelock import FileLock, Timeout

from svd.atomic import write_text
from svd.errors import ConfigError, IntegrityError, LaunchError, MissingInputError
from svd.training.checkpoints.checkpoint import (
    MARKER,
    fetch,
    find_checkpoints,
    home_of,
    open_home,
)
from svd.training.checkpoints.publish import final_weights
from svd.training.loop.history import read_rows
from svd.training.stage.job import Adoption, HistoryRow, RunFolder, TrainingJob
from svd.types.base import write_records

logger = logging.getLogger(__name__)


def note_identity(folder: RunFolder, identity: Mapping[str, str]) -> None:
    """Write down what a run's name was made of."""
    write_text(folder.identity, json.dumps(dict(identity), indent=2, sort_keys=True) + "\n")


def differences(folder: RunFolder, identity: Mapping[str, str]) -> tuple[str, ...]:
    """Return the parts in which a run differs from an identity, e.g. "dep:svd/training/loop"."""
    if not folder.identity.is_file():
        return ("unknown",)
    old = json.loads(folder.identity.read_text(encoding="utf-8"))
    return tuple(key for key in sorted({*old, *identity}) if old.get(key) != identity.get(key))


def unfinished(job: TrainingJob) -> Iterator[tuple[TrainingJob, int]]:
    """Yield other runs of a job's stage that have begun and not ended, with their last step."""
    for path in sorted(Path(job.run).parent.glob("*/job.json")):
        try:
            other = TrainingJob.parse(path.read_text(encoding="utf-8"), origin=str(path))
        except IntegrityError:  # of another version of svd
            continue
        rows = read_rows(RunFolder(Path(other.run)).history, HistoryRow)
        is_other = other.stage == job.stage and other.run != job.run
        if is_other and rows and not final_weights(other).is_file():
            yield other, rows[-1].step


def adopt(old: TrainingJob, new: TrainingJob, identity: Mapping[str, str]) -> Adoption:
    """Let a run begin with what another has.

    Args:
        old: The run that was made.
        new: The run of the same stage that the present parameters, inputs and code make.
        identity: What the new run's name is made of.

    Raises:
        ConfigError: It is the same run, of another stage, or the new one has begun by itself.
        LaunchError: The old run is at work.
        MissingInputError: The old run has neither a checkpoint nor a finished phase.
    """
    source, target = RunFolder(Path(old.run)), RunFolder(Path(new.run))
    _check(old, new, target)
    try:
        with FileLock(source.lock, timeout=0):
            steps = [_copy_phase(old, new, index) for index in range(len(new.config.phases))]
            found = [step for step in steps if step is not None]
            if not found:
                raise MissingInputError(
                    f"run {source.path.name} has neither a checkpoint nor a finished phase"
                )
            for folder in (source.samples, source.spent, source.path / "quarantine"):
                if folder.is_dir():
                    shutil.copytree(folder, target.path / folder.name, dirs_exist_ok=True)
            adoption = Adoption(
                run=source.path.name, step=sum(found), differs=differences(source, identity)
            )
            write_records(target.adoption, [adoption])
            shutil.copyfile(source.speed, target.speed)
            shutil.copyfile(source.history, target.history)  # last: with it the run has begun
    except Timeout as err:
        raise LaunchError(f"run {source.path.name} is at work: stop it first") from err
    return adoption


def _check(old: TrainingJob, new: TrainingJob, target: RunFolder) -> None:
    if old.stage != new.stage:
        raise ConfigError(f"{Path(old.run).name} is a run of {old.stage}, not of {new.stage}")
    if old.run == new.run:
        raise ConfigError(f"{Path(old.run).name} is the run that {new.stage} would go on with")
    if read_rows(target.history, HistoryRow):
        raise ConfigError(
            f"{target.path.name} has begun to train by itself: delete {target.path} to have it go "
            "on from another run"
        )


def _copy_phase(old: TrainingJob, new: TrainingJob, index: int) -> int | None:
    """Copy one phase, if the old run has it; return the steps it has come, None for none."""
    phase = new.config.phases[index]
    source = RunFolder(Path(old.run)).phase(index, phase.name)
    target = RunFolder(Path(new.run)).phase(index, phase.name)
    if index >= len(old.config.phases) or old.config.phases[index].name != phase.name:
        return None
    if source.is_dir():
        ignored = shutil.ignore_patterns("checkpoints", "staging", "*.partial")
        shutil.copytree(source, target, ignore=ignored, dirs_exist_ok=True)
    step = _copy_newest(old, new, index)
    is_finished = RunFolder(Path(new.run)).phase_weights(index, phase.name).is_file()
    return phase.num_steps if is_finished else step


def _copy_newest(old: TrainingJob, new: TrainingJob, index: int) -> int | None:
    """Copy a phase's newest sound checkpoint from store to store; return its step."""
    source, target = open_home(old, index), open_home(new, index)
    for prefix, record, problem in reversed(list(find_checkpoints(source))):
        if record is None:
            logger.warning("checkpoint left out", extra={"why": problem})
            continue
        try:
            with tempfile.TemporaryDirectory(dir=new.run) as folder:
                for file in record.files:
                    path = fetch(source, record, file, Path(folder))
                    target.put_file(path, prefix + file.name)
        except (IntegrityError, MissingInputError) as err:
            logger.warning("checkpoint left out", extra={"why": err})
            continue
        target.put_bytes(source.get_bytes(prefix + MARKER), prefix + MARKER)
        logger.info("checkpoint copied", extra={"to": f"{home_of(new, index)}/{prefix}"})
        return record.state.step
    return None
