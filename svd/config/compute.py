"""On which machines a training stage runs; changes speed and memory, not what is learned."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from svd.config.base import Section
from svd.config.model import CheckpointPolicy

Precision = Literal["fp32", "bf16"]


class LocalLauncherConfig(Section):
    """Ranks are torchrun's children on this machine."""

    kind: Literal["local"] = "local"

    @property
    def nodes(self) -> int:
        """Machines that share the ranks."""
        return 1


class ClusterLauncherConfig(Section):
    """What every scheduler is asked for."""

    nodes: int = Field(ge=1)  # machines that share the ranks equally
    gpus_per_node: int = Field(ge=0)  # 0 asks for none: ranks stay on the CPU
    cpus_per_node: int | None = Field(default=None, ge=1)  # None: the threads of the ranks
    # Port of the first node where ranks meet. None: one that follows from the run's name, so that
    # jobs that share a machine rarely ask for the same.
    port: int | None = Field(default=None, ge=1024, le=65535)
    # Of all ranks, after some of them were lost; saving before a time limit does not count.
    max_restarts: int = Field(default=10, ge=0)


class SlurmLauncherConfig(ClusterLauncherConfig):
    """Ranks are torchrun's children, one torchrun per node under srun."""

    kind: Literal["slurm"]
    partition: str | None = None  # None: the cluster's default
    account: str | None = None
    # Minutes, or hours:minutes:seconds with days before them: what sbatch takes. A run that is not
    # finished by then saves its state and is queued again.
    time_limit: str = Field(default="24:00:00", pattern=r"^(\d+|(\d+-)?\d+:\d\d:\d\d)$")
    # Of the time limit, left for saving; sbatch may take up to a minute more.
    save_before_end_s: int = Field(default=300, ge=30)
    setup: tuple[str, ...] = ()  # shell lines before the ranks start, e.g. "module load cuda"
    extra_options: tuple[str, ...] = ()  # of sbatch, e.g. "--exclusive"


class KubernetesLauncherConfig(ClusterLauncherConfig):
    """Ranks are torchrun's children, one pod per node, started together by a JobSet."""

    kind: Literal["kubernetes"]
    image: str = Field(min_length=1)  # container with this version of svd
    namespace: str = "default"
    service_account: str | None = None  # may read and write the store
    queue: str | None = None  # of Kueue, which starts all pods or none
    # A claim of a volume, and where every pod and this process mount it: the checkout, its data
    # and its .runs lie below.
    volume_claim: str = Field(min_length=1)
    mount_path: str = Field(pattern=r"^/")
    memory: str | None = Field(default=None, pattern=r"^\d+(\.\d+)?(Mi|Gi|Ti)$")  # of one pod
    priority_class: str | None = None


LauncherConfig = Annotated[
    LocalLauncherConfig | SlurmLauncherConfig | KubernetesLauncherConfig,
    Field(discriminator="kind"),
]


class ComputeConfig(Section):
    """How a stage is spread over processes."""

    launcher: LauncherConfig = LocalLauncherConfig()
    device: Literal["auto", "cpu", "cuda"] = "auto"  # auto is the GPU where there is one
    num_processes: int = Field(default=1, gt=0)  # ranks in all, over all nodes
    threads_per_process: int = Field(default=1, gt=0)  # CPU threads of each rank
    precision: Precision = "fp32"  # of weights and activations in the step; masters are fp32
    zero_stage: Literal[0, 1, 2, 3] = 0  # DeepSpeed ZeRO: what is sharded over the ranks
    offload_optimizer: bool = False  # keep master weights and moments in CPU memory
    activation_checkpointing: CheckpointPolicy = "none"  # what the backward pass recomputes
    compile_blocks: bool = False  # torch.compile the UNet's blocks: minutes at the start
    # s3://bucket/prefix or a folder: ranks read shards from there in place of data/latents, of
    # which `svd store copy-latents` makes a copy.
    data_store: str | None = Field(default=None, min_length=1)
    # Of a GPU for an hour, or of a rank's share of a processor where the recipe trains on one, in
    # any currency. None: what SVD_PRICE_PER_DEVICE_HOUR says, if anything.
    price_per_device_hour: float | None = Field(default=None, gt=0)
    # Of the stage, over all its attempts, in that currency. When it is spent, training saves its
    # state and ends; a larger one lets it go on. None is no bound.
    budget: float | None = Field(default=None, gt=0)

    @model_validator(mode="after")
    def _masters_exist(self) -> Self:
        if self.precision == "bf16" and self.zero_stage == 0:
            raise ValueError(
                "compute.precision=bf16 needs compute.zero_stage of 1 or more: fp32 master weights "
                "are kept by ZeRO"
            )
        if self.offload_optimizer and self.zero_stage == 0:
            raise ValueError("compute.offload_optimizer=true needs compute.zero_stage of 1 or more")
        return self

    @model_validator(mode="after")
    def _nodes_share_the_ranks(self) -> Self:
        launcher = self.launcher
        if self.num_processes % launcher.nodes:
            raise ValueError(
                f"compute.num_processes={self.num_processes} is not a multiple of "
                f"compute.launcher.nodes={launcher.nodes}"
            )
        if isinstance(launcher, LocalLauncherConfig) or launcher.gpus_per_node == 0:
            return self
        if self.processes_per_node != launcher.gpus_per_node:
            raise ValueError(
                f"compute.num_processes={self.num_processes} on compute.launcher.nodes="
                f"{launcher.nodes} is {self.processes_per_node} per node, but "
                f"compute.launcher.gpus_per_node={launcher.gpus_per_node}; each rank has one GPU"
            )
        return self

    @property
    def processes_per_node(self) -> int:
        """Ranks on each machine."""
        return self.num_processes // self.launcher.nodes
