"""What lies in the store that no registered version names, and that is old enough to go.

The store's own objects are judged here. What DVC pushed below `<store>/dvc` is judged by DVC: it
keeps what dvc.lock names in the working tree, on any branch, and in any tag, which every version
has one of.
"""

import subprocess
import sys
from pathlib import Path
from typing import Final, NamedTuple

from svd.errors import GateError, StoreError
from svd.registry.catalog import Catalog, known_names
from svd.registry.git import GitRepo
from svd.registry.remote import has_remote
from svd.runtime.store import OBJECTS, Store, StoredObject, sha256_in_key

DEFAULT_MIN_AGE_S: Final = 24 * 3600.0  # a version's bytes are stored before its tag is made


class Garbage(NamedTuple):
    """What a collection found."""

    num_kept: int  # objects that a version names, or that are too young to tell
    unreferenced: tuple[StoredObject, ...]

    @property
    def size_bytes(self) -> int:
        """Bytes that deleting it gives back."""
        return sum(entry.size_bytes for entry in self.unreferenced)


def find_garbage(store: Store, root: Path, *, now_s: float, min_age_s: float) -> Garbage:
    """Return the content-addressed objects that no registered version names.

    Args:
        store: Looked through; nothing is changed.
        root: The checkout whose tags say what is registered.
        now_s: Present time, seconds since 1970.
        min_age_s: Objects written later than this long ago are kept: their tag may be on its way.

    Raises:
        GateError: A git remote has registry tags that this checkout does not: what they name
            would be lost.
    """
    _require_all_tags(GitRepo(root))
    named = named_objects(root)
    kept, unreferenced = 0, []
    for entry in store.list(OBJECTS):
        is_young = now_s - entry.modified_s < min_age_s
        if is_young or sha256_in_key(entry.key) in named:
            kept += 1
        else:
            unreferenced.append(entry)
    return Garbage(kept, tuple(unreferenced))


def named_objects(root: Path) -> set[str]:
    """Return the sha256 of every object that some registered version of any model names.

    Raises:
        GateError: A version has no record, so that it cannot be told what it names.
    """
    named = set()
    for name in known_names(root):
        catalog = Catalog.read(root, name)
        for version in catalog.versions:
            record = catalog.record(version)
            named |= {file.sha256 for file in record.files}
            if record.lineage_table_sha256 is not None:
                named.add(record.lineage_table_sha256)
    return named


def collect_dvc_garbage(root: Path, *, dry_run: bool) -> list[str]:
    """Let DVC clear its remote and cache of what no lock file names; return what it says.

    Without a remote there is nothing to give back: the local cache alone is left as it is.

    Raises:
        StoreError: DVC failed.
    """
    if not has_remote(root):
        return []
    scope = ["--workspace", "--all-branches", "--all-tags", "--cloud"]
    mode = ["--dry"] if dry_run else ["--force"]
    done = subprocess.run(
        [sys.executable, "-m", "dvc", "gc", *scope, *mode],
        cwd=root,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise StoreError(f"dvc gc failed: {done.stderr.strip()[-400:]}")
    lines = (line.strip() for line in (done.stdout + done.stderr).splitlines())
    return [line for line in lines if line and not line.startswith("WARNING: This will remove")]


def _require_all_tags(repo: GitRepo) -> None:
    refs = repo.text("for-each-ref", "--format=%(refname)", "refs/tags/")
    known = set(refs.splitlines())
    for remote in repo.text("remote").split():
        listed = repo.text("ls-remote", "--tags", "--refs", remote).splitlines()
        unknown = sorted({line.partition("\t")[2] for line in listed} - known)
        if unknown:
            raise GateError(
                f"{remote} has {len(unknown)} tags that this checkout has not, such as "
                f"{unknown[0]}: run `git fetch --tags {remote}` first, or what they name is lost"
            )
