"""Which code runs: the git commit of a checkout, and what in it is not committed."""

import subprocess
from pathlib import Path

from svd.types.base import Record

# What the pipeline itself writes, or what a registered version records beside the commit.
RECORDED = ("dvc.lock", "params.yaml", "dvc.yaml", ".dvc/config", "registry/")
_CODE = ("svd/", "flows/")  # an untracked file elsewhere cannot be imported by a stage


class Revision(Record):
    """The code of a checkout."""

    commit: str  # 40 hex digits
    changed: tuple[str, ...]  # paths whose content is not that of the commit, sorted

    @property
    def is_clean(self) -> bool:
        """Whether the commit alone says which code runs."""
        return not self.changed


def find_revision(root: Path) -> Revision | None:
    """Return the commit in force, or None outside a git repository or before its first commit.

    Changed are tracked files that differ and untracked files that Python could import; not
    counted is what a registered version records for itself: recipe, graph and lock.
    """
    commit = _git(root, "rev-parse", "--verify", "--quiet", "HEAD")
    status = _git(root, "status", "--porcelain=v1", "-z", "--untracked-files=all", "--no-renames")
    if commit is None or status is None:
        return None
    prefix = _git(root, "rev-parse", "--show-prefix") or ""
    changed = set()
    for line in filter(None, status.split("\0")):
        state, path = line[:2], line[3:].removeprefix(prefix.strip())
        if path.startswith(RECORDED):
            continue
        if state != "??" or path.startswith(_CODE):
            changed.add(path)
    return Revision(commit=commit.strip(), changed=tuple(sorted(changed)))


def _git(root: Path, *arguments: str) -> str | None:
    done = subprocess.run(
        ["git", "--no-optional-locks", *arguments],
        cwd=root,
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout if done.returncode == 0 else None
