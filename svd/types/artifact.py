"""What a stage leaves behind: reports, model records, metric records."""

from typing import Literal

from pydantic import Field

from svd.types.base import Record

Value = int | float | str | bool


class StageReport(Record):
    """What a finished stage tells its door to print and to track."""

    stage: str
    summary: dict[str, Value]  # headline numbers in reading order, e.g. {"clips kept": 120}
    warnings: tuple[str, ...] = ()  # sentences for a person
    outputs: tuple[str, ...] = ()  # paths below the root worth opening


class ModelRecord(Record):
    """models/<stage>/model.json: what the weights beside it are and where they came from."""

    stage: str
    kind: Literal["autoencoder", "denoiser", "lora"]
    architecture: dict[str, object]  # the config section that rebuilds the module
    weights_sha256: str
    num_parameters: int = Field(gt=0)
    step: int = Field(ge=0)
    examples_seen: int = Field(ge=0)
    params_fingerprint: str  # of the stage's section of the recipe
    dataset_fingerprint: str  # of the shard manifest, or of the clip index for the autoencoder
    init_sha256: str | None  # weights this model started from
    run_fingerprint: str  # names .runs/<fingerprint>/
    extras: dict[str, object] = Field(
        default_factory=dict
    )  # latent scale, motion-bucket table, fps and frames trained on


class MetricRecord(Record):
    """One measured number that can be compared only with numbers of the same variant."""

    name: str  # "FVD" only when the extractor is the official one, else "FD[<extractor>]"
    value: float
    low: float | None = None  # confidence interval
    high: float | None = None
    num: int = Field(gt=0)  # examples
    paired: bool
    higher_is_better: bool
    variant: str  # evaluation.md's variant id: everything that changes the number
    comparability: Literal["published-protocol", "port", "internal"]
    seed: int
    dataset_fingerprint: str
    split: str | None = None  # the published split the data were found to be, if they were
    checkpoint_sha256: str
    extractor: dict[str, Value] | None = None  # the extractor's card
    control_of: str | None = None  # the metric this row calibrates; None for a metric proper
    sampling_fingerprint: str | None = None  # of the sampler's settings; None if nothing is sampled
    # Clip id -> its value, where `value` is their plain mean; None for distances of sets. Lets two
    # models be compared pair by pair.
    per_clip: dict[str, float] | None = None
    note: str = ""
