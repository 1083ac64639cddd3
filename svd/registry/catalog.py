"""Which versions there are, which one a stage holds, and how that came about.

Read from tags, in our own way where gto 1.10 and dvc 3.67 give wrong answers: a taken-back
stage is empty (gto falls back to the assignment before, dvc does not see that it was taken
back), a withdrawn version is gone (dvc still hands it out), and what happened within one second
is ordered by the tags' counters, not by their times.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from svd.errors import GateError
from svd.registry.git import GitRepo
from svd.registry.tags import Event, parse_tag, version_key
from svd.types.version import ModelVersion, Promotion, StageLabel

LABELS: Final[tuple[StageLabel, ...]] = ("candidate", "staging", "production")
LATEST: Final = "latest"
RECORD_MARK: Final = "\nRecord: "  # in a tag's message, before the JSON of a Promotion


@dataclass(frozen=True, slots=True)
class Catalog:
    """The registered versions of one model, as its repository has them at this moment.

    Attributes:
        repo: The repository.
        name: The model's name.
        events: Every tag of this name, in the order of time, then counter.
    """

    repo: GitRepo
    name: str
    events: tuple[Event, ...]

    @classmethod
    def read(cls, root: Path, name: str) -> "Catalog":
        """Read the tags of a repository.

        Raises:
            GateError: The folder is no git repository.
        """
        repo = GitRepo(root)
        events = [event for tag in repo.tags(name) if (event := parse_tag(tag)) is not None]
        own = [event for event in events if event.name == name]
        return cls(repo, name, tuple(sorted(own, key=lambda e: (e.tag.time_s, e.counter))))

    @property
    def versions(self) -> tuple[str, ...]:
        """Every version that is registered and not withdrawn, oldest first."""
        gone = {event.version for event in self.events if event.kind == "withdraw"}
        known = {event.version for event in self.events if event.kind == "register"} - gone
        return tuple(sorted((v for v in known if v is not None), key=version_key))

    @property
    def counter(self) -> int:
        """The number of the last assignment; the next one gets the one after it."""
        return max((event.counter for event in self.events), default=0)

    def next_version(self, series: str) -> str:
        """Return the first free version of a series such as "0.1"; numbers are never used again."""
        taken = [
            version_key(event.version)[2]
            for event in self.events
            if event.version is not None and event.version.startswith(f"v{series}.")
        ]
        return f"v{series}.{max(taken, default=-1) + 1}"

    def commit(self, version: str) -> str:
        """Return the commit that holds a version's record.

        Raises:
            GateError: There is no such version.
        """
        if version in self.versions:
            for event in self.events:
                if event.kind == "register" and event.version == version:
                    return event.tag.commit
        known = ", ".join(self.versions) or "none"
        raise GateError(f"{self.name} has no version {version}; registered: {known}")

    def record(self, version: str) -> ModelVersion:
        """Return all that is known of a version.

        Raises:
            GateError: There is no such version, or it was registered by another tool.
        """
        commit = self.commit(version)
        path = record_path(self.name, version)
        text = self.repo.read(commit, path)
        if text is None:
            raise GateError(f"{self.name} {version}: commit {commit[:12]} has no {path}")
        return ModelVersion.parse(text, origin=f"{commit[:12]}:{path}")

    def in_stage(self, stage: str) -> str | None:
        """Return the version that holds a stage now; None if the stage is empty."""
        last = self._last(stage)
        if last is None or last.kind == "unassign":
            return None
        version = self._version_at(last.tag.commit)
        return version if version in self.versions else None

    def held(self, stage: str) -> list[tuple[str, str]]:
        """Return (version, action) of every time a stage was given, in order."""
        found: list[tuple[str, str]] = []
        for event in self._assignments(stage, "assign"):
            version, promotion = self._version_at(event.tag.commit), self.promotion(event)
            if version is not None:
                found.append((version, "promote" if promotion is None else promotion.action))
        return found

    def stages_of(self, version: str) -> tuple[str, ...]:
        """Return the stages that a version holds now."""
        return tuple(label for label in LABELS if self.in_stage(label) == version)

    def last_counter(self, stage: str) -> int:
        """Return the number of a stage's last assignment: what a writer must have seen."""
        last = self._last(stage)
        return 0 if last is None else last.counter

    def resolve(self, wanted: str) -> str:
        """Return the version meant by "v0.1.2", "production", "latest" or `name#stage` forms.

        Raises:
            GateError: There is no such version, or the stage is empty.
        """
        for mark in ("@", "#"):
            wanted = wanted.removeprefix(f"{self.name}{mark}")
        if wanted == LATEST:
            if not self.versions:
                raise GateError(f"{self.name} has no version yet: `dvc repro register` makes one")
            return self.versions[-1]
        if wanted in LABELS:
            version = self.in_stage(wanted)
            if version is None:
                raise GateError(f"no version of {self.name} is in {wanted}")
            return version
        self.commit(wanted)
        return wanted

    def promotion(self, event: Event) -> Promotion | None:
        """Return the record in an assignment's message; None if another tool made the tag."""
        _, mark, record = event.tag.message.partition(RECORD_MARK)
        return Promotion.parse(record, origin=event.tag.name) if mark else None

    def version_of(self, event: Event) -> str | None:
        """Return the version that an event is about."""
        return event.version or self._version_at(event.tag.commit)

    def _last(self, stage: str) -> Event | None:
        return max(
            self._assignments(stage, "assign", "unassign"),
            key=lambda event: event.counter,
            default=None,
        )

    def _assignments(self, stage: str, *kinds: str) -> list[Event]:
        found = [e for e in self.events if e.stage == stage and e.kind in kinds]
        return sorted(found, key=lambda event: event.counter)

    def _version_at(self, commit: str) -> str | None:
        for event in self.events:
            if event.kind == "register" and event.tag.commit == commit:
                return event.version
        return None


def record_path(name: str, version: str) -> str:
    """Return where a version's record lies in its commit."""
    return f"registry/{name}/{version}.json"


def known_names(root: Path) -> list[str]:
    """Return the names of all models that a repository has versions of."""
    events = (parse_tag(tag) for tag in GitRepo(root).tags())
    return sorted({event.name for event in events if event is not None and event.version})
