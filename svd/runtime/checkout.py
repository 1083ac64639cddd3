"""A checkout beside this one, for a run with another recipe or one that must not meet others.

It is a git worktree below .svd/checkouts/ at the commit of HEAD. It shares git's objects and tags,
DVC's cache and remote, the store and downloads, and has data, models, reports, dvc.lock and live
state of its own. So two runs never meet in DVC's state, and what one has computed the other gets
from DVC's run cache.
"""

import logging
import os
import subprocess
import sys
from pathlib import Path
from typing import Final

from svd.errors import ConfigError, LaunchError
from svd.runtime.packages import package_cache
from svd.runtime.revision import find_revision
from svd.runtime.storage import default_store_uri
from svd.runtime.workspace import Workspace

logger = logging.getLogger(__name__)

_FOLDER: Final = "checkouts"  # below .svd/
_LINKED: Final = ("weights",)  # what people bring themselves, which git does not hold
_KEPT: Final = ("dvc.lock",)  # what a move to another commit must not take back


def checkouts(home: Workspace) -> list[Workspace]:
    """Return the checkouts that this one has made, by name."""
    found = sorted((home.state / _FOLDER).glob("*/params.yaml"))
    return [Workspace(path.parent) for path in found]


def prepare_checkout(home: Workspace, name: str, recipe: str) -> Workspace:
    """Return a checkout of a name with a recipe in force; one that is there goes on where it was.

    Args:
        home: The checkout whose commit, cache and store it shares.
        name: A folder's name: letters, digits, dots, dashes.
        recipe: Text of its params.yaml.

    Raises:
        ConfigError: The name is not one, or this is no git repository with a commit.
        LaunchError: git or DVC refused.
    """
    if not name or not name.replace("-", "").replace(".", "").isalnum() or name.startswith("."):
        raise ConfigError(f"checkout={name!r}: allowed are letters, digits, dots and dashes")
    revision = find_revision(home.root)
    if revision is None:
        raise ConfigError(f"{home.root} has no git commit yet, which a checkout beside it needs")
    if revision.changed:
        logger.warning(
            "changes that are not committed are no part of this run",
            extra={"commit": revision.commit[:10], "changed": len(revision.changed)},
        )
    folder = home.state / _FOLDER / name
    if (folder / ".git").is_file():
        _move(folder, revision.commit)
    else:
        folder.parent.mkdir(parents=True, exist_ok=True)
        _call(home.root, "git", "worktree", "prune")
        _call(home.root, "git", "worktree", "add", "--detach", str(folder), revision.commit)
    _share(home, folder)
    (folder / "params.yaml").write_text(recipe, encoding="utf-8")
    return Workspace(folder)


def checkout_environment(home: Workspace, there: Workspace) -> dict[str, str]:
    """Return what processes that run in a checkout need, beside the present environment."""
    paths = [str(there.root), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {
        "PYTHONPATH": os.pathsep.join(paths),  # its own code, not that of the installation
        "SVD_STORE": default_store_uri(home),
        "SVD_CACHE": str(package_cache(home)),
    }


def _move(folder: Path, commit: str) -> None:
    """Bring a checkout to a commit; its lock stays, because data of that state lie beside it."""
    kept = {name: (folder / name).read_bytes() for name in _KEPT if (folder / name).is_file()}
    _call(folder, "git", "checkout", "--quiet", "--force", "--detach", commit)
    for name, content in kept.items():
        (folder / name).write_bytes(content)


def _share(home: Workspace, folder: Path) -> None:
    """Point DVC at the cache and the remotes of home, and link what git does not hold."""
    local = home.root / ".dvc" / "config.local"
    if local.is_file():
        (folder / ".dvc" / "config.local").write_bytes(local.read_bytes())
    cache = _call(home.root, sys.executable, "-m", "dvc", "cache", "dir").strip()
    place = str((home.root / cache).resolve())
    _call(folder, sys.executable, "-m", "dvc", "cache", "dir", "--local", place)
    for name in _LINKED:
        if (home.root / name).exists() and not (folder / name).exists():
            (folder / name).symlink_to(home.root / name)


def _call(folder: Path, *command: str) -> str:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        raise LaunchError(f"{' '.join(command[:4])} failed: {done.stderr.strip()[-400:]}")
    return done.stdout
