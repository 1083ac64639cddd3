"""What the parent hands to the ranks, what they leave for it, and where in the run's folder."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import Field

from svd.config.model import DenoiserConfig
from svd.config.training import TrainingStageConfig
from svd.types.base import Record
from svd.types.budget import Budget

ObjectiveName = Literal["text-to-video", "image-to-video", "interpolation", "orbit"]


class TrainingJob(Record):
    """job.json: all that a rank needs to know; paths are absolute."""

    stage: str
    objective: ObjectiveName
    seed: int
    config: TrainingStageConfig
    denoiser: DenoiserConfig  # with the input channels of the objective
    data: str  # store that holds manifest.json and the shards
    autoencoder: str | None  # models/autoencoder, where the objective encodes pictures
    init: str | None  # weights of the stage before; None is random weights
    run: str  # folder of live state
    budget: Budget | None = None  # over all attempts; None is no bound


class HistoryRow(Record):
    """One row of history.jsonl; nothing in it hangs on the clock, so reruns give equal bytes."""

    step: int = Field(gt=0)  # optimizer steps made, over all phases
    phase: str
    examples_seen: int = Field(gt=0)  # clips trained on, over all phases
    loss: float  # mean since the row before
    loss_by_sigma: dict[str, float]  # the same by noise level, e.g. "sigma<0.3"
    grad_norm: float  # of the last step, before clipping
    lr: float  # of the last step
    heldout_loss: float | None = None  # of the averaged weights, mean over noise levels
    heldout_loss_by_sigma: dict[str, float] = Field(default_factory=dict)


class SpeedRow(Record):
    """One row of speed.jsonl: what the clock says, kept apart from what was learned."""

    step: int = Field(gt=0)
    examples_per_s: float  # since the row before, validation and checkpoints left out
    step_s: float  # seconds per optimizer step, likewise
    data_wait_share: float  # of the step, spent waiting for the stream
    peak_memory_bytes: int  # of this rank: of the device where there is one, else resident
    # FLOPs of forward and backward, without recomputation, per second, as a share of what the
    # ranks could do: the data sheet's peak of a known GPU, else the rate of a large product.
    mfu: float
    checkpoint_wait_s: float  # that checkpoints held training up
    unsaved_steps: int = 0  # since the newest checkpoint: what a crash would cost
    phase_left_s: float  # estimate, validation and all else included
    device_s: float = 0.0  # seconds times devices that the run has spent, over all attempts


class DivergedExample(Record):
    """One row of diverged.jsonl: an example of the step whose loss or gradient was not finite."""

    phase: str
    step: int  # within the phase
    clip_id: str
    start_frame: int  # stored frame of the clip that the window began with
    position: int  # in the phase's stream
    sigma: float
    loss: float | None  # None if it is not a number that JSON has
    is_suspect: bool  # its own loss is not finite; if none is, only the gradient was


class Outcome(Record):
    """outcome.json: how the ranks ended."""

    kind: Literal["finished", "stopped", "failed"]
    step: int = 0  # optimizer steps made, over all phases
    error: str | None = None  # name of a class in svd.errors
    message: str = ""


class Adoption(Record):
    """One row of adopted.jsonl: from which other run this one went on."""

    run: str  # its fingerprint
    step: int  # how far it had come, over all phases
    differs: tuple[str, ...]  # parts of what names a run, e.g. "dep:svd/training/loop"


@dataclass(frozen=True, slots=True)
class RunFolder:
    """Names below `.runs/<fingerprint>/`."""

    path: Path

    @property
    def job(self) -> Path:
        """The TrainingJob."""
        return self.path / "job.json"

    @property
    def identity(self) -> Path:
        """What the run's name was made of: parameters, inputs and code, each with its hash."""
        return self.path / "identity.json"

    @property
    def adoption(self) -> Path:
        """Adoptions, if the run went on from another, or that one from a third."""
        return self.path / "adopted.jsonl"

    @property
    def outcome(self) -> Path:
        """The Outcome of the last attempt."""
        return self.path / "outcome.json"

    @property
    def history(self) -> Path:
        """HistoryRows so far."""
        return self.path / "history.jsonl"

    @property
    def speed(self) -> Path:
        """SpeedRows of all attempts."""
        return self.path / "speed.jsonl"

    @property
    def spent(self) -> Path:
        """What each attempt has cost so far (`ledger`)."""
        return self.path / "spent"

    @property
    def divergence(self) -> Path:
        """DivergedExamples of the step that was not finite, if one was."""
        return self.path / "diverged.jsonl"

    @property
    def samples(self) -> Path:
        """Videos below step-<step>/, and a contact sheet beside each of these folders."""
        return self.path / "samples"

    def power_ema(self, index: int, name: str) -> Path:
        """Snapshots of a phase's power-function averages."""
        return self.phase(index, name) / "power-ema"

    def quarantine(self, rank: int) -> Path:
        """QuarantinedExamples that a rank met."""
        return self.path / "quarantine" / f"rank-{rank:05d}.jsonl"

    @property
    def quarantines(self) -> list[Path]:
        """The files of all ranks of all attempts."""
        return sorted((self.path / "quarantine").glob("rank-*.jsonl"))

    @property
    def lock(self) -> Path:
        """Held by the process that runs this job."""
        return self.path / "lock"

    def phase(self, index: int, name: str) -> Path:
        """Folder of one phase: its checkpoints, then its weights."""
        return self.path / f"{index}-{name}"

    def phase_weights(self, index: int, name: str) -> Path:
        """Averaged weights at the end of a phase; there once the phase is finished."""
        return self.phase(index, name) / "weights.safetensors"
