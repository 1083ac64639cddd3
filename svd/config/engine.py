"""The section engine of params.yaml: where units of curation run, and what each may take."""

from typing import Literal, Self

from pydantic import Field, model_validator

from svd.config.base import Section


class EngineConfig(Section):
    """Processes of this machine, or actors of a Ray cluster.

    No result depends on it, so no stage hangs on it: a killed run may go on with other settings.
    """

    kind: Literal["local", "ray"] = "local"
    address: str = "local"  # of the cluster, as ray.init takes it; "local" starts one here
    num_workers: int | None = Field(default=None, ge=1, le=4096)  # at once; None: one per core
    num_gpus: int = Field(default=0, ge=0, le=4096)  # more workers, with a GPU each
    timeout_s: float = Field(default=300.0, gt=0)  # per unit; one that cannot be split gets more
    memory_mib: int = Field(default=4096, ge=256)  # that decoding a file may add to its process
    max_attempts: int = Field(default=2, ge=1, le=10)  # then the unit is on the poison list

    @model_validator(mode="after")
    def _address_has_a_use(self) -> Self:
        if self.kind == "local" and self.address != "local":
            raise ValueError(
                f"address={self.address} is the address of a Ray cluster, but kind is local"
            )
        return self
