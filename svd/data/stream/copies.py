"""A copy of a data set in another store, from which ranks read it by ranges."""

from pathlib import Path

from svd.data.stream.shards import MANIFEST, load_manifest
from svd.errors import IntegrityError, MissingInputError
from svd.runtime.progress import track
from svd.runtime.storage import open_store
from svd.runtime.store import Store, check_sha256
from svd.types.shard import ShardManifest


def copy_dataset(folder: Path, store: Store) -> tuple[ShardManifest, int]:
    """Copy shards and indexes that the store does not have, and the manifest last.

    A file is named by its content, so one that is there with its size is taken for what it is; an
    interrupted copy goes on where it was.

    Args:
        folder: The data set, e.g. data/latents.
        store: Gets it at its root.

    Returns:
        The manifest, and how many files were copied.

    Raises:
        IntegrityError: A file in the folder is not what the manifest says.
        MissingInputError: The folder has no manifest, or lacks a file.
        StoreError: The store failed.
    """
    manifest = load_manifest(open_store(str(folder)))
    files = [
        file
        for shard in manifest.shards
        for file in ((shard.uri, shard.sha256), (shard.index_uri, shard.index_sha256))
    ]
    there = {found.key: found.size_bytes for found in store.list("shards/")}
    count = 0
    for key, sha256 in track(files, total=len(files), description=f"to {store.uri}", unit="files"):
        path = folder / key
        if not path.is_file():
            raise MissingInputError(f"{path} is not there: run `svd encode` or `dvc checkout`")
        if there.get(key) == path.stat().st_size:
            continue
        stored = store.put_file(path, key)
        if stored != sha256:
            store.delete(key)  # or the next copy would take it for what it is called
        check_sha256(str(path), stored, sha256)
        count += 1
    store.put_bytes(manifest.canonical_json().encode(), MANIFEST)
    return manifest, count


def check_copy(manifest: ShardManifest, uri: str) -> None:
    """Refuse a copy that is not of this data set.

    Raises:
        IntegrityError: It is of another one, or of an earlier state.
        MissingInputError: There is none.
        StoreError: The store failed.
    """
    renew = f"`svd store copy-latents {uri}` renews it"
    try:
        found = load_manifest(open_store(uri))
    except MissingInputError as err:
        raise MissingInputError(f"compute.data_store={uri} holds no data set: {renew}") from err
    if found.content_hash() != manifest.content_hash():
        raise IntegrityError(
            f"compute.data_store={uri} holds data set {found.content_hash()[:12]}.., and "
            f"data/latents is {manifest.content_hash()[:12]}..: {renew}"
        )
