"""The part of a JobSet manifest that we write, closed: a misspelt key is an error here.

Source: jobset.x-k8s.io/v1alpha2 and the core kinds that it holds, as of JobSet 0.8.
"""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

_NAME = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"  # RFC 1123 label
# "<jobset>-<replicated job>-<replica>-<index>" is a host name of at most 63 characters.
_MAX_NAME = 48


class _Object(BaseModel):
    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, alias_generator=to_camel, populate_by_name=True
    )


class Metadata(_Object):
    """Of any object."""

    name: str = Field(pattern=_NAME, max_length=_MAX_NAME)
    namespace: str = Field(pattern=_NAME, max_length=63)
    labels: dict[str, str]


class FieldRef(_Object):
    """Something that a pod knows of itself."""

    field_path: str


class ValueSource(_Object):
    """Where a variable's value comes from."""

    field_ref: FieldRef


class Variable(_Object):
    """One variable of a container; a value or its source."""

    name: str = Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")
    value: str | None = None
    value_from: ValueSource | None = None


class Resources(_Object):
    """What a container is given; for GPUs, requests must equal limits."""

    requests: dict[str, str]
    limits: dict[str, str]


class Mount(_Object):
    """A volume inside a container."""

    name: str
    mount_path: str = Field(pattern=r"^/")


class Container(_Object):
    """The one container of a pod."""

    name: str = Field(pattern=_NAME)
    image: str
    command: tuple[str, ...] = Field(min_length=1)
    working_dir: str = Field(pattern=r"^/")
    env: tuple[Variable, ...]
    resources: Resources
    volume_mounts: tuple[Mount, ...]


class EmptyDir(_Object):
    """A volume that lives as long as its pod."""

    medium: Literal["Memory"]


class Claim(_Object):
    """A volume that outlives pods."""

    claim_name: str


class Volume(_Object):
    """One of the two kinds of volume that we use."""

    name: str = Field(pattern=_NAME)
    empty_dir: EmptyDir | None = None
    persistent_volume_claim: Claim | None = None


class PodSpec(_Object):
    """One node's torchrun."""

    restart_policy: Literal["Never"]
    termination_grace_period_seconds: int = Field(ge=0)
    service_account_name: str | None = None
    priority_class_name: str | None = None
    containers: tuple[Container]
    volumes: tuple[Volume, ...]


class PodTemplate(_Object):
    """Pods of a job."""

    spec: PodSpec


class JobSpec(_Object):
    """As many pods as nodes, numbered."""

    parallelism: int = Field(ge=1)
    completions: int = Field(ge=1)
    completion_mode: Literal["Indexed"]
    backoff_limit: Literal[0]  # one lost pod restarts all: ranks do not go on without it
    template: PodTemplate


class JobTemplate(_Object):
    """The job of a replicated job."""

    spec: JobSpec


class ReplicatedJob(_Object):
    """The only one of the set."""

    name: str = Field(pattern=_NAME)
    replicas: Literal[1]
    template: JobTemplate


class Network(_Object):
    """Host names for pods."""

    enable_dns_hostnames: Literal[True] = Field(alias="enableDNSHostnames")
    subdomain: str


class FailurePolicy(_Object):
    """How often all pods are started again."""

    max_restarts: int = Field(ge=0)


class JobSetSpec(_Object):
    """What the controller makes."""

    network: Network
    failure_policy: FailurePolicy
    replicated_jobs: tuple[ReplicatedJob]


class JobSet(_Object):
    """The whole manifest."""

    api_version: Literal["jobset.x-k8s.io/v1alpha2"]
    kind: Literal["JobSet"]
    metadata: Metadata
    spec: JobSetSpec
