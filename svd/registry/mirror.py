"""A view of the registry in the W&B Registry, for teams who look there; the registry itself is git.

It is written only where WANDB_MODE is online, by reference: bytes stay in the store. A failure is a
warning: what is registered is registered, and a later version or promotion writes its own part.
"""

import logging
from typing import Final

from svd.runtime.store import Store, object_key
from svd.runtime.tracking import tracking_mode
from svd.types.version import ModelVersion, Promotion

logger = logging.getLogger(__name__)

REGISTRY: Final = "wandb-registry-model"  # W&B's own name of the registry of models
_TIMEOUT_S: Final = 30


def mirror_version(version: ModelVersion, store: Store) -> None:
    """Log a version as an artifact of the present W&B run and link it into the W&B Registry.

    Args:
        version: A registered one.
        store: Where its bytes lie.
    """
    if tracking_mode() != "online":
        return
    try:
        _log_and_link(version, store)
    except Exception as err:  # noqa: BLE001  (whatever W&B does, the version is registered)
        _warn(f"{version.name} {version.version}", err)


def mirror_stage(promotion: Promotion) -> None:
    """Move a stage's alias in the W&B Registry to the version that holds the stage now."""
    if tracking_mode() != "online":
        return
    try:
        import wandb

        place = f"{REGISTRY}/{promotion.name}:{promotion.version}"
        artifact = wandb.Api(timeout=_TIMEOUT_S).artifact(place)
        artifact.aliases.append(promotion.stage)  # of a collection, one version has an alias
        artifact.save()
    except Exception as err:  # noqa: BLE001  (whatever W&B does, the stage is given)
        _warn(f"{promotion.name} {promotion.version}: {promotion.stage}", err)


def _log_and_link(version: ModelVersion, store: Store) -> None:
    import wandb

    run = wandb.run
    if run is None or run.offline:  # a server that did not answer when the stage began
        return
    metrics = {metric.name: metric.value for metric in version.metrics}
    artifact = wandb.Artifact(
        version.name,
        type="model",
        metadata={
            "version": version.version,
            "commit": version.code_commit,
            "weights_sha256": version.weights_sha256,
            "trained_by": version.wandb_run_id,
            "licences": dict(version.lineage.licences),
            "metrics": metrics,
        },
    )
    base = store.uri if "://" in store.uri else f"file://{store.uri}"
    for file in version.files:
        artifact.add_reference(f"{base}/{object_key(file.sha256)}", name=file.path, checksum=False)
    aliases = [str(version.version), "candidate"]
    run.log_artifact(artifact, aliases=aliases)
    artifact.wait(timeout=_TIMEOUT_S)
    run.link_artifact(artifact, f"{REGISTRY}/{version.name}", aliases=aliases)


def _warn(what: str, err: Exception) -> None:
    logger.warning(
        "not shown in the W&B Registry",
        extra={"what": what, "error": f"{type(err).__name__}: {err}"},
    )
