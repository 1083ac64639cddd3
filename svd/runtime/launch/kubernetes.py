"""Ranks on Kubernetes: a JobSet with one pod per node, in each pod one torchrun.

Contract-tested: manifests are checked by a closed model and calls of kubectl by tests; no cluster
has run one yet. The JobSet's name is the run's fingerprint, so a submit finds an earlier one's.
"""

import json
import logging
import subprocess
from typing import Any, Final

from svd.config.compute import KubernetesLauncherConfig
from svd.errors import LaunchError
from svd.runtime.launch import jobset
from svd.runtime.launch.inquiry import ASK_EVERY_S, Inquiry
from svd.runtime.launch.launcher import SHUTDOWN_TIMEOUT_S, JobState, RankJob
from svd.runtime.launch.torchrun_command import node_arguments

logger = logging.getLogger(__name__)

_REPLICATED_JOB: Final = "node"
_QUEUE_LABEL: Final = "kueue.x-k8s.io/queue-name"
_PYTHON: Final = "python"  # of the image


class KubernetesLauncher:
    """Applies a JobSet with kubectl and reads its conditions."""

    def __init__(
        self, config: KubernetesLauncherConfig, *, ask_every_s: float = ASK_EVERY_S
    ) -> None:
        self._config = config
        self._inquiry = Inquiry(self._ask, every_s=ask_every_s)

    def submit(self, job: RankJob) -> str:
        """Apply the JobSet, or find the one of this name that still runs; return its name."""
        name = _name(job)
        found = self._get(name)
        if found is not None and _state_of(found) is JobState.RUNNING:
            logger.info("job found again", extra={"job": name})
            return name
        if found is not None:
            self._kubectl("delete", "jobset", name, "--wait=true")
        manifest = job.folder / "jobset.json"
        manifest.write_text(render(job, self._config), encoding="utf-8")
        self._kubectl("apply", "--filename", str(manifest))
        logger.info("job applied", extra={"job": name, "manifest": manifest})
        return name

    def poll(self, job_id: str) -> JobState:
        """Say where a job is."""
        return self._inquiry.state(job_id)

    def stop(self, job_id: str) -> None:
        """Delete the JobSet: pods get SIGTERM, and time to save; it is there until they ended."""
        self._kubectl(
            *("delete", "jobset", job_id, "--wait=false", "--ignore-not-found=true"),
            "--cascade=foreground",
        )

    def abandon(self, job_id: str) -> None:
        """Leave the JobSet: the next submit finds it."""
        logger.warning("the job goes on; run the stage again to follow it", extra={"job": job_id})

    def _ask(self, name: str) -> JobState:
        found = self._get(name)
        # What was deleted, by `stop` or by anyone, does not come back.
        return JobState.FAILED if found is None else _state_of(found)

    def _get(self, name: str) -> dict[str, Any] | None:
        text = self._kubectl("get", "jobset", name, "--ignore-not-found=true", "--output=json")
        if not text.strip():
            return None
        found: dict[str, Any] = json.loads(text)
        return found

    def _kubectl(self, *arguments: str) -> str:
        command = ["kubectl", f"--namespace={self._config.namespace}", *arguments]
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=False)
        except OSError as err:
            raise LaunchError(
                f"kubectl could not be started ({err.strerror}): compute.launcher.kind=kubernetes "
                "needs it on this machine"
            ) from err
        if done.returncode:
            said = " ".join(done.stderr.split()) or f"exit code {done.returncode}"
            raise LaunchError(f"kubectl {arguments[0]} failed: {said}")
        return done.stdout


def render(job: RankJob, config: KubernetesLauncherConfig) -> str:
    """Return the manifest, as JSON, which kubectl takes as it takes YAML.

    Raises:
        LaunchError: The run's folder is not on the volume that pods mount.
    """
    if not job.folder.is_relative_to(config.mount_path):
        raise LaunchError(
            f"{job.folder} is not below compute.launcher.mount_path={config.mount_path}: pods "
            "would not see it"
        )
    manifest = jobset.JobSet(
        api_version="jobset.x-k8s.io/v1alpha2",
        kind="JobSet",
        metadata=jobset.Metadata(
            name=_name(job),
            namespace=config.namespace,
            labels={"app.kubernetes.io/name": "svd"}
            | ({} if config.queue is None else {_QUEUE_LABEL: config.queue}),
        ),
        spec=jobset.JobSetSpec(
            network=jobset.Network(enable_dns_hostnames=True, subdomain=_name(job)),
            failure_policy=jobset.FailurePolicy(max_restarts=config.max_restarts),
            replicated_jobs=(_replicated_job(job, config),),
        ),
    )
    return manifest.model_dump_json(by_alias=True, exclude_none=True, indent=2) + "\n"


def _replicated_job(job: RankJob, config: KubernetesLauncherConfig) -> jobset.ReplicatedJob:
    return jobset.ReplicatedJob(
        name=_REPLICATED_JOB,
        replicas=1,
        template=jobset.JobTemplate(
            spec=jobset.JobSpec(
                parallelism=config.nodes,
                completions=config.nodes,
                completion_mode="Indexed",
                backoff_limit=0,
                template=jobset.PodTemplate(spec=_pod(job, config)),
            )
        ),
    )


def _pod(job: RankJob, config: KubernetesLauncherConfig) -> jobset.PodSpec:
    resources = _resources(job, config)
    # Pods find the first one under the name that JobSet gives it.
    address = f"{_name(job)}-{_REPLICATED_JOB}-0-0.{_name(job)}"
    # Kubernetes replaces $(NAME) by the container's variable.
    arguments = node_arguments(job, config, node_rank="$(NODE_RANK)", address=address)
    index = "metadata.annotations['batch.kubernetes.io/job-completion-index']"
    source = jobset.ValueSource(field_ref=jobset.FieldRef(field_path=index))
    return jobset.PodSpec(
        restart_policy="Never",
        termination_grace_period_seconds=SHUTDOWN_TIMEOUT_S,
        service_account_name=config.service_account,
        priority_class_name=config.priority_class,
        containers=(
            jobset.Container(
                name="ranks",
                image=config.image,
                command=(_PYTHON, *arguments),
                working_dir=str(job.folder),
                env=(
                    jobset.Variable(name="NODE_RANK", value_from=source),
                    *(
                        jobset.Variable(name=name, value=value)
                        for name, value in job.rank_environment().items()
                    ),
                ),
                resources=jobset.Resources(requests=resources, limits=resources),
                volume_mounts=(
                    jobset.Mount(name="work", mount_path=config.mount_path),
                    # NCCL and data workers share memory; a container's default is 64 MB.
                    jobset.Mount(name="shm", mount_path="/dev/shm"),  # noqa: S108
                ),
            ),
        ),
        volumes=(
            jobset.Volume(
                name="work",
                persistent_volume_claim=jobset.Claim(claim_name=config.volume_claim),
            ),
            jobset.Volume(name="shm", empty_dir=jobset.EmptyDir(medium="Memory")),
        ),
    )


def _resources(job: RankJob, config: KubernetesLauncherConfig) -> dict[str, str]:
    threads = job.num_processes // config.nodes * job.threads_per_process
    resources = {"cpu": str(config.cpus_per_node or threads)}
    if config.memory is not None:
        resources["memory"] = config.memory
    if config.gpus_per_node:
        resources["nvidia.com/gpu"] = str(config.gpus_per_node)
    return resources


def _name(job: RankJob) -> str:
    return f"svd-{job.name}"


def _state_of(found: dict[str, Any]) -> JobState:
    """Read a JobSet's conditions; one that has none yet is on its way."""
    for condition in found.get("status", {}).get("conditions", []):
        if condition.get("status") == "True" and condition.get("type") == "Completed":
            return JobState.SUCCEEDED
        if condition.get("status") == "True" and condition.get("type") == "Failed":
            return JobState.FAILED
    return JobState.RUNNING
