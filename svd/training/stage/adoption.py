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

from svd.atomic import write_text
from svd.config.training import PhaseConfig
from svd.errors import ConfigError, IntegrityError, MissingInputError
from svd.training.checkpoints.checkpoint import (
    MARKER,
    fetch,
    find_checkpoints,
    home_of,
    open_home,
)
from svd.training.checkpoints.publish import final_weights
from svd.training.loop.history import read_rows
from svd.training.stage.job import Adoption, HistoryRow, RunFolder, SpeedRow, TrainingJob
from svd.training.stage.runs import only_here, read_adoptions, read_jobs
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
    for other in read_jobs(Path(job.run).parent):
        rows = read_rows(RunFolder(Path(other.run)).history, HistoryRow)
        is_other = other.stage == job.stage and other.run != job.run
        if is_other and rows and not final_weights(other).is_file():
            yield other, rows[-1].step


def adopt(old: TrainingJob, new: TrainingJob, identity: Mapping[str, str]) -> Adoption:
    """Let a run begin with what another has.

    Args:
        old: The run that was made; it should not be at work.
        new: The run of the same stage that the present parameters, inputs and code make.
        identity: What the new run's name is made of.

    Raises:
        ConfigError: It is the same run, of another stage or network, its phases are others, or
            the new one has begun by itself.
        LaunchError: One of the two is at work.
        MissingInputError: The old run has neither a checkpoint nor a finished phase.
    """
    source, target = RunFolder(Path(old.run)), RunFolder(Path(new.run))
    if old.run == new.run:
        raise ConfigError(f"{source.path.name} is the run that {new.stage} would go on with")
    with only_here(source), only_here(target):
        phases = _check(old, new)
        before = read_adoptions(source)
        adoption = Adoption(run=source.path.name, step=0, differs=differences(source, identity))
        write_records(target.adoption, [*before, adoption])  # first: a kill must not hide it
        steps = 0
        for index in range(phases):
            step, is_finished = _copy_phase(old, new, index)
            steps += step
            if not is_finished:
                break
        if not steps:
            target.adoption.unlink()
            raise MissingInputError(
                f"run {source.path.name} has neither a checkpoint nor a finished phase"
            )
        adoption = adoption.model_copy(update={"step": steps})
        write_records(target.adoption, [*before, adoption])
        for folder in (source.samples, source.spent, source.path / "quarantine"):
            if folder.is_dir():
                shutil.copytree(folder, target.path / folder.name, dirs_exist_ok=True)
        speeds = [row for row in read_rows(source.speed, SpeedRow) if row.step <= steps]
        write_records(target.speed, speeds)
        rows = [row for row in read_rows(source.history, HistoryRow) if row.step <= steps]
        write_records(target.history, rows)
    return adoption


def _check(old: TrainingJob, new: TrainingJob) -> int:
    """Refuse what cannot go on; return how many phases, from the first, are the same."""
    name = Path(old.run).name
    if old.stage != new.stage:
        raise ConfigError(f"{name} is a run of {old.stage}, not of {new.stage}")
    if (old.denoiser, old.config.adapter) != (new.denoiser, new.config.adapter):
        raise ConfigError(f"{name} trains another network than {new.stage} has now")
    target = RunFolder(Path(new.run))
    has_checkpoint = any(
        next(iter(find_checkpoints(open_home(new, index))), None)
        for index in range(len(new.config.phases))
    )
    if has_checkpoint or read_rows(target.history, HistoryRow):
        raise ConfigError(
            f"{target.path.name} has begun to train by itself: delete {target.path}, and its "
            "checkpoints if they lie elsewhere, to have it go on from another run"
        )
    same = 0
    for before, after in zip(old.config.phases, new.config.phases, strict=False):
        if _clock(before) != _clock(after):
            break
        same += 1
    if same == 0:
        raise ConfigError(
            f"{name} and {new.stage} have no first phase in common: name, batch_size, trainable "
            "and power_ema must be equal"
        )
    return same


def _clock(phase: PhaseConfig) -> tuple[object, ...]:
    """Return what must be equal for a step of a phase to be the same step of another."""
    return phase.name, phase.data.batch_size, phase.trainable, phase.power_ema


def _copy_phase(old: TrainingJob, new: TrainingJob, index: int) -> tuple[int, bool]:
    """Copy what the old run has of a phase; return the steps it has come, and if that is all."""
    phase = new.config.phases[index]
    has_other_end = old.config.phases[index].num_steps != phase.num_steps
    source = RunFolder(Path(old.run)).phase(index, phase.name)
    target = RunFolder(Path(new.run)).phase(index, phase.name)
    if source.is_dir():
        left = ("weights.safetensors",) if has_other_end else ()
        ignored = shutil.ignore_patterns("checkpoints", "staging", "*.partial", *left)
        shutil.copytree(source, target, ignore=ignored, dirs_exist_ok=True)
    step = _copy_newest(old, new, index)
    is_finished = RunFolder(Path(new.run)).phase_weights(index, phase.name).is_file()
    return (phase.num_steps if is_finished else step), is_finished


def _copy_newest(old: TrainingJob, new: TrainingJob, index: int) -> int:
    """Copy a phase's newest sound checkpoint from store to store; return its step, 0 for none."""
    source, target = open_home(old, index), open_home(new, index)
    num_steps = new.config.phases[index].num_steps
    for prefix, record, problem in reversed(list(find_checkpoints(source))):
        if record is None:
            logger.warning("checkpoint left out", extra={"why": problem})
            continue
        if record.state.step > num_steps:
            continue
        try:
            with tempfile.TemporaryDirectory(dir=new.run) as folder:
                for file in record.files:
                    path = fetch(source, record, file, Path(folder))
                    target.put_file(path, prefix + file.name)
        except (IntegrityError, MissingInputError) as err:
            logger.warning("checkpoint left out", extra={"why": err})
            target.delete_tree(prefix)
            continue
        target.put_bytes(source.get_bytes(prefix + MARKER), prefix + MARKER)
        logger.info("checkpoint copied", extra={"to": f"{home_of(new, index)}/{prefix}"})
        return record.state.step
    return 0
