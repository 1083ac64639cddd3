"""Getting a version's files with nothing but the address of its repository and of its store."""

from pathlib import Path

from svd.errors import GateError
from svd.registry.catalog import Catalog
from svd.registry.git import GitRepo
from svd.runtime.fingerprint import file_sha256
from svd.runtime.store import Store, object_key
from svd.types.version import ModelVersion


def read_remote_catalog(address: str, name: str, folder: Path) -> Catalog:
    """Read a model's registry from a git address; only its tags are fetched.

    Args:
        address: Anything git can fetch from: a URL, or the path of a checkout or bare repository.
        name: The model's name.
        folder: An empty folder for the fetched objects; the catalog reads records from it.

    Raises:
        GateError: Git cannot reach the repository.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if Path(address).is_dir():
        address = str(Path(address).resolve())
    repo = GitRepo(folder)
    repo.text("init", "--quiet", "--bare")
    wanted = [f"refs/tags/{name}{mark}*:refs/tags/{name}{mark}*" for mark in ("@", "#")]
    repo.text("fetch", "--quiet", "--no-tags", "--depth=1", "--", address, *wanted)
    return Catalog.read(folder, name)


def fetch_version(catalog: Catalog, wanted: str, store: Store, out: Path) -> ModelVersion:
    """Write a version's files and its record below a folder.

    Every file has the sha256 that the record in git names; one that is there already with that
    hash is not fetched again.

    Args:
        catalog: The registry.
        wanted: What `Catalog.resolve` takes: "v0.1.2", "production", "latest".
        store: Where the bytes are.
        out: The folder; files keep their paths below it, e.g. models/finetune-i2v/model.json.

    Raises:
        GateError: There is no such version.
        IntegrityError: The store's bytes have another hash; the file is not written.
        MissingInputError: The store does not have them.
        StoreError: The store failed after its retries.
    """
    version = catalog.record(catalog.resolve(wanted))
    for file in version.files:
        path = _below(out, file.path)
        if not (path.is_file() and file_sha256(path) == file.sha256):
            store.get_file(object_key(file.sha256), path, sha256=file.sha256)
    (out / "version.json").write_text(version.model_dump_json(indent=2) + "\n", encoding="utf-8")
    return version


def _below(out: Path, name: str) -> Path:
    path = (out / name).resolve()
    if not path.is_relative_to(out.resolve()):
        raise GateError(f"the version's record names {name}, which lies outside {out}")
    return path
