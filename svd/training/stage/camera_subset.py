"""What an adapter trains on: the encoded clips whose camera does one thing."""

import logging
from pathlib import Path

from svd.data.stream.shards import load_manifest, read_index
from svd.data.stream.subset import write_subset
from svd.errors import ConfigError, MissingInputError
from svd.runtime.storage import open_store
from svd.runtime.workspace import Workspace
from svd.types.annotation import SplitName
from svd.types.base import read_records
from svd.types.camera import AdapterName, CameraLabel
from svd.types.shard import ShardManifest

logger = logging.getLogger(__name__)


def camera_subset(name: AdapterName, workspace: Workspace, folder: Path) -> ShardManifest:
    """Write the clips of one camera class into a folder.

    Held-out clips are those of the class; all of them where the class has none.

    Raises:
        ConfigError: No training clip is of the class.
        MissingInputError: The clips were not classified or not encoded.
    """
    labels = workspace.camera_motion / "labels.jsonl"
    if not labels.is_file():
        raise MissingInputError(f"{labels} is not there: run `svd curate camera-motion` first")
    of_class = {row.clip_id for row in read_records(labels, CameraLabel) if row.camera == name}
    store = open_store(str(workspace.latents.absolute()))
    encoded: dict[SplitName, set[str]] = {"train": set(), "heldout": set()}
    for shard in load_manifest(store).shards:
        encoded[shard.split] |= {entry.key for entry in read_index(store, shard).examples}
    wanted = {split: clips & of_class for split, clips in encoded.items()}
    if not wanted["train"]:
        raise ConfigError(
            f"lora@{name}: none of the {len(encoded['train'])} training clips has a {name} camera; "
            "data/camera-motion/report.json counts the classes"
        )
    if not wanted["heldout"]:
        logger.warning("no held-out clip of the class; validating on all", extra={"camera": name})
        wanted["heldout"] = encoded["heldout"]
    logger.info(
        "subset",
        extra={"camera": name, **{split: len(clips) for split, clips in wanted.items()}},
    )
    return write_subset(store, wanted, folder)
