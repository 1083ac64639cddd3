"""Git plumbing: read trees, write commits and tags beside the user's branch, index and files."""

import os
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from svd.errors import GateError

_FALLBACK_IDENTITY = {
    "GIT_AUTHOR_NAME": "svd registry",
    "GIT_AUTHOR_EMAIL": "registry@localhost",
    "GIT_COMMITTER_NAME": "svd registry",
    "GIT_COMMITTER_EMAIL": "registry@localhost",
}
_FIELD, _END = "\x1f", "\x1e"  # ASCII's own separators; no message holds them
_TAG_FORMAT = (
    "%(refname:strip=2)%1f%(*objectname)%1f%(taggername)%1f%(taggerdate:unix)%1f%(contents)%1e"
)


class GitTag(NamedTuple):
    """An annotated tag."""

    name: str
    commit: str
    tagger: str
    time_s: int  # seconds since 1970; git keeps no finer time
    message: str


@dataclass(frozen=True, slots=True)
class GitRepo:
    """A git repository, bare or with files.

    Attributes:
        root: Its folder.
    """

    root: Path

    @property
    def lock_file(self) -> Path:
        """Where writers of tags queue; one for all worktrees of a repository."""
        folder = self.text("rev-parse", "--git-common-dir").strip()
        return (self.root / folder).resolve() / "svd-registry.lock"

    def tags(self, prefix: str = "") -> list[GitTag]:
        """Return the annotated tags whose name starts with a prefix."""
        out = self.text("for-each-ref", f"--format={_TAG_FORMAT}", "refs/tags/")
        entries = [entry.lstrip("\n").split(_FIELD) for entry in out.split(_END)[:-1]]
        return [
            GitTag(name, commit, tagger, int(time_s), message)
            for name, commit, tagger, time_s, message in entries
            if commit and name.startswith(prefix)  # a lightweight tag has no object of its own
        ]

    def create_tag(self, name: str, commit: str, message: str) -> bool:
        """Make an annotated tag; False if the name is taken. Of many racers one gets True."""
        create = ["tag", "--annotate", "--no-sign", "--cleanup=verbatim", "-F", "-", name, commit]
        done = self._call(create, text=message, environment=self._identity())
        if done.returncode == 0:
            return True
        if self.text("tag", "--list", name).strip():
            return False
        raise GateError(f"{self.root}: git cannot make the tag {name}: {_said(done)}")

    def setting(self, key: str) -> str | None:
        """Return a value of git's configuration, e.g. "user.name"; None if it is not set."""
        done = self._call(["config", "--get", key])
        return done.stdout.decode().strip() if done.returncode == 0 else None

    def head(self) -> str:
        """Return the current commit."""
        return self.text("rev-parse", "--verify", "HEAD").strip()

    def read(self, commit: str, path: str) -> str | None:
        """Return a file of a commit as text; None if the commit has no such file."""
        done = self._call(["cat-file", "blob", f"{commit}:{path}"])
        return done.stdout.decode() if done.returncode == 0 else None

    def commit_files(self, base: str, files: Mapping[str, str], message: str) -> str:
        """Write a commit of the base's tree with some files added or replaced; return its hash.

        It is reachable from no branch: only a tag keeps it. The user's index and files are not
        touched, because the tree is put together in an index of its own.
        """
        with tempfile.TemporaryDirectory() as folder:
            own = {"GIT_INDEX_FILE": str(Path(folder) / "index")}
            self.text("read-tree", base, environment=own)
            for path, text in files.items():
                blob = self.text("hash-object", "-w", "--stdin", text=text).strip()
                place = f"100644,{blob},{path}"
                self.text("update-index", "--add", "--cacheinfo", place, environment=own)
            tree = self.text("write-tree", environment=own).strip()
        return self.text(
            "commit-tree", tree, "-p", base, "-F", "-", text=message, environment=self._identity()
        ).strip()

    def text(
        self,
        *arguments: str,
        text: str | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> str:
        """Run git and return what it prints.

        Raises:
            GateError: It failed; the message says what git said.
        """
        done = self._call(list(arguments), text=text, environment=environment)
        if done.returncode != 0:
            raise GateError(f"{self.root}: git {arguments[0]} failed: {_said(done)}")
        return done.stdout.decode()

    def _identity(self) -> dict[str, str]:
        """Return who writes: git's own configuration, or ours where it has none."""
        known = self._call(["var", "GIT_COMMITTER_IDENT"]).returncode == 0
        return {} if known else _FALLBACK_IDENTITY

    def _call(
        self,
        arguments: list[str],
        *,
        text: str | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(
            ["git", *arguments],
            cwd=self.root,
            input=None if text is None else text.encode(),
            stdin=subprocess.DEVNULL if text is None else None,
            capture_output=True,
            env={**os.environ, "LC_ALL": "C", "GIT_TERMINAL_PROMPT": "0", **(environment or {})},
            check=False,
        )


def _said(done: subprocess.CompletedProcess[bytes]) -> str:
    return " ".join(done.stderr.decode(errors="replace").split()) or f"exit code {done.returncode}"
