"""The ingest stage: from the recipe's sources to an index of raw videos, and of what is none."""

import hashlib
import logging
import shutil
import uuid
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from pydantic import Field

from svd.atomic import write_text
from svd.config.engine import EngineConfig
from svd.config.ingest import IngestConfig
from svd.curation.engine import Unit, run_units
from svd.curation.ingest.candidates import Candidate, SyntheticVideo
from svd.curation.ingest.examine import Examined, Task, Transfer, examine, refuse
from svd.curation.ingest.sources import find_candidates
from svd.curation.ingest.synthetic import describe
from svd.curation.ingest.withdrawn import read_withdrawn
from svd.errors import IntegrityError, MissingInputError
from svd.runtime.fingerprint import stage_fingerprint
from svd.runtime.tracking import Tracker
from svd.runtime.workspace import Workspace
from svd.types.artifact import StageReport
from svd.types.base import Record, write_records
from svd.types.truth import VideoTruth
from svd.types.video import RawVideo, RejectedFile, WithdrawnVideo

if TYPE_CHECKING:
    from svd.config.params import Params

logger = logging.getLogger(__name__)

INDEX: Final = "index.jsonl"
REJECTED: Final = "rejected.jsonl"
REPORT: Final = "report.json"
VIDEOS: Final = "videos"
TRUTH: Final = "truth"
EXAMINED: Final = "examined"  # folder of all outcomes, in the live state of a finished run
_UNHURRIED_BYTES: Final = 4 << 30  # of a file; a larger one may take longer in proportion


class SourceCount(Record):
    """What one source of the recipe gave."""

    source: str  # its section as JSON
    num_found: int
    num_kept: int


class IngestReport(Record):
    """data/raw/report.json."""

    num_found: int
    num_videos: int
    num_rejected: int
    hours: float = Field(ge=0)  # of video kept
    size_bytes: int
    sources: tuple[SourceCount, ...]
    by_reason: dict[str, int]  # rejected files
    by_licence: dict[str, int]  # videos kept; likewise below
    by_codec: dict[str, int]
    num_vfr: int
    num_rotated: int


class _Entry(NamedTuple):
    """One thing found, by the number of its source."""

    source: int
    found: Candidate | RejectedFile

    @property
    def key(self) -> str:
        """Names its outcome in the live state."""
        parts: tuple[object, ...] = (self.source, self.found.origin)
        if not isinstance(self.found, RejectedFile):
            parts += (self.found.licence, self.found.version)
        return hashlib.sha256(repr(parts).encode()).hexdigest()[:32]


def run(params: "Params", workspace: Workspace, *, tracker: Tracker) -> StageReport:
    """Take in every source of the recipe; write data/raw.

    Raises:
        MissingInputError: A source is not there, or no source gave a usable video.
        ConfigError: A source is not what its kind says.
        StoreError: An S3 prefix cannot be listed.
    """
    state = workspace.runs / stage_fingerprint(workspace, "ingest") / "ingest"
    return ingest(params.ingest, params.engine, workspace, state, seed=params.seed, tracker=tracker)


def ingest(
    config: IngestConfig,
    engine: EngineConfig,
    workspace: Workspace,
    state: Path,
    *,
    seed: int,
    tracker: Tracker,
) -> StageReport:
    """See `run`; the live state, with which a killed ingest goes on, lies in a given folder."""
    entries = [
        _Entry(number, found)
        for number, source in enumerate(config.sources)
        for found in find_candidates(source, workspace, seed=seed)
    ]
    staged = state / "raw"
    (staged / VIDEOS).mkdir(parents=True, exist_ok=True)
    outcomes = _examine_all(entries, config, engine, state, staged)
    videos, rejected, kept_from = _settle(entries, outcomes, read_withdrawn(workspace))
    write_records(staged / INDEX, videos)
    write_records(staged / REJECTED, rejected)
    _write_truth(staged / TRUTH, entries, outcomes, videos)
    _remove_strays(staged / VIDEOS, videos)
    report = _summarize(config, entries, videos, rejected, kept_from)
    write_text(staged / REPORT, report.canonical_json() + "\n")
    _publish(staged, workspace.raw)
    shutil.rmtree(state.parent / EXAMINED, ignore_errors=True)
    (state / "done").rename(state.parent / EXAMINED)
    shutil.rmtree(state)
    return _tell(report, rejected, workspace, tracker)


def _examine_all(
    entries: Sequence[_Entry],
    config: IngestConfig,
    engine: EngineConfig,
    state: Path,
    staged: Path,
) -> list[Examined]:
    """Return an outcome for every entry, in order; those of an earlier, killed run are kept."""
    done = state / "done"
    done.mkdir(parents=True, exist_ok=True)
    outcomes: dict[int, Examined] = {}
    waiting: list[int] = []
    for number, entry in enumerate(entries):
        if isinstance(entry.found, RejectedFile):
            outcomes[number] = Examined(rejected=entry.found)
        elif (kept := _recall(done / f"{entry.key}.json", staged)) is not None:
            outcomes[number] = kept
        else:
            waiting.append(number)
    logger.info("files found", extra={"num_found": len(entries), "num_to_examine": len(waiting)})
    for number, outcome in _examine_some(entries, waiting, config, engine, state, staged):
        write_text(done / f"{entries[number].key}.json", outcome.canonical_json() + "\n")
        outcomes[number] = outcome
    return [outcomes[number] for number in range(len(entries))]


def _examine_some(
    entries: Sequence[_Entry],
    waiting: Sequence[int],
    config: IngestConfig,
    engine: EngineConfig,
    state: Path,
    staged: Path,
) -> Iterator[tuple[int, Examined]]:
    """Yield (number, outcome) of entries in processes of their own, as they finish."""
    transfer: Transfer = "none"
    if config.copy_videos:
        transfer = "hardlink" if config.hardlink else "copy"
    shutil.rmtree(state / "slots", ignore_errors=True)
    # A process of a killed run may live a moment longer; it shall not find our folders.
    slots = state / "slots" / uuid.uuid4().hex
    units: list[Unit[Task]] = []
    for number in waiting:
        found = entries[number].found
        if isinstance(found, RejectedFile):
            continue
        task = Task(found, slots / str(number), staged / VIDEOS, config.limits, transfer)
        size = found.size_bytes
        units.append(Unit(str(number), float(size), task, patience=size / _UNHURRIED_BYTES))
    for outcome in run_units(examine, units, engine, description="ingesting", unit_name="files"):
        number = int(outcome.key)
        found = entries[number].found
        if outcome.result is not None:
            yield number, outcome.result
        elif outcome.failure is not None and not isinstance(found, RejectedFile):
            yield number, refuse(found, outcome.failure.reason, outcome.failure.detail)


def _recall(path: Path, staged: Path) -> Examined | None:
    """Return an earlier outcome, if it is whole and its video is still there."""
    try:
        outcome = Examined.parse(path.read_text(encoding="utf-8"), origin=str(path))
    except (FileNotFoundError, IntegrityError):
        return None
    video = outcome.video
    if video is None:
        return outcome
    kept = staged / video.uri  # an absolute uri stays what it is
    return outcome if kept.is_file() and kept.stat().st_size == video.size_bytes else None


class _Settled(NamedTuple):
    videos: list[RawVideo]
    rejected: list[RejectedFile]
    kept_from: list[int]  # number of the source of each video


def _settle(
    entries: Sequence[_Entry],
    outcomes: Sequence[Examined],
    withdrawn: Mapping[str, WithdrawnVideo],
) -> _Settled:
    """Sort outcomes into videos and rejected files; of equal bytes the first found stays."""
    videos: dict[str, RawVideo] = {}
    rejected: list[RejectedFile] = []
    kept_from: list[int] = []
    for entry, outcome in zip(entries, outcomes, strict=True):
        if outcome.rejected is not None:
            rejected.append(outcome.rejected)
        elif (video := outcome.video) is not None and video.video_id in withdrawn:
            rejected.append(_withdrawn(video, withdrawn[video.video_id]))
        elif video is not None:
            first = videos.setdefault(video.video_id, video)
            if first is video:
                kept_from.append(entry.source)
            else:
                rejected.append(_exact_duplicate(video, first))
    return _Settled(list(videos.values()), rejected, kept_from)


def _withdrawn(video: RawVideo, entry: WithdrawnVideo) -> RejectedFile:
    return RejectedFile(
        origin=video.origin,
        sha256=video.video_id,
        size_bytes=video.size_bytes,
        reason="withdrawn",
        detail=f"withdrawn on {entry.withdrawn_on} by {entry.by}: {entry.reason}",
    )


def _exact_duplicate(video: RawVideo, first: RawVideo) -> RejectedFile:
    return RejectedFile(
        origin=video.origin,
        sha256=video.video_id,
        size_bytes=video.size_bytes,
        reason="exact-duplicate",
        detail=f"the same bytes as {first.origin}",
    )


def _write_truth(
    folder: Path,
    entries: Sequence[_Entry],
    outcomes: Sequence[Examined],
    videos: Sequence[RawVideo],
) -> None:
    """Write truth/<video_id>.json for every synthetic video that was kept."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    kept = {video.video_id for video in videos}
    made = [
        (entry.source, entry.found.plan, outcome.video.video_id)
        for entry, outcome in zip(entries, outcomes, strict=True)
        if isinstance(entry.found, SyntheticVideo)
        and outcome.video is not None
        and outcome.video.video_id in kept
    ]
    ids = {(source, plan.name): video_id for source, plan, video_id in made}
    for source, plan, video_id in made:
        original = ids.get((source, plan.duplicate_of)) if plan.duplicate_of else None
        truth: VideoTruth = describe(plan, video_id=video_id, duplicate_of=original)
        write_text(folder / f"{video_id}.json", truth.canonical_json() + "\n")


def _remove_strays(folder: Path, videos: Sequence[RawVideo]) -> None:
    """Remove videos that an earlier, killed run kept and this one does not."""
    wanted = {Path(video.uri).name for video in videos}
    for path in folder.iterdir():
        if path.name not in wanted:
            path.unlink()


def _publish(staged: Path, raw: Path) -> None:
    """Put the finished folder in its place; what was there goes only when it can be replaced."""
    raw.parent.mkdir(parents=True, exist_ok=True)
    old = raw.with_name(raw.name + ".partial")
    shutil.rmtree(old, ignore_errors=True)
    if raw.exists():
        raw.rename(old)
    staged.rename(raw)
    shutil.rmtree(old, ignore_errors=True)


def _summarize(
    config: IngestConfig,
    entries: Sequence[_Entry],
    videos: Sequence[RawVideo],
    rejected: Sequence[RejectedFile],
    kept_from: Sequence[int],
) -> IngestReport:
    found, kept = Counter(entry.source for entry in entries), Counter(kept_from)
    return IngestReport(
        num_found=len(entries),
        num_videos=len(videos),
        num_rejected=len(rejected),
        hours=sum(video.probe.duration_s for video in videos) / 3600,
        size_bytes=sum(video.size_bytes for video in videos),
        sources=tuple(
            SourceCount(
                source=source.model_dump_json(), num_found=found[number], num_kept=kept[number]
            )
            for number, source in enumerate(config.sources)
        ),
        by_reason=dict(Counter(item.reason for item in rejected)),
        by_licence=dict(Counter(video.licence for video in videos)),
        by_codec=dict(Counter(video.probe.codec for video in videos)),
        num_vfr=sum(video.probe.is_vfr for video in videos),
        num_rotated=sum(video.probe.rotation != 0 for video in videos),
    )


def _tell(
    report: IngestReport,
    rejected: Sequence[RejectedFile],
    workspace: Workspace,
    tracker: Tracker,
) -> StageReport:
    """Report to the tracker and to the door.

    Raises:
        MissingInputError: No source gave a usable video.
    """
    reasons = ", ".join(f"{reason} {count}" for reason, count in sorted(report.by_reason.items()))
    listing = (workspace.raw / REJECTED).relative_to(workspace.root)
    if report.num_videos == 0:
        raise MissingInputError(
            f"ingest found no usable video among {report.num_found} files "
            f"({reasons or 'the sources are empty'}); see {listing}"
        )
    tracker.summarize(
        {
            "ingest/videos": report.num_videos,
            "ingest/rejected": report.num_rejected,
            "ingest/hours": report.hours,
            "ingest/size_bytes": report.size_bytes,
        }
    )
    columns = ("origin", "reason", "detail")
    tracker.log_table(
        "ingest/rejected_files", columns, [(r.origin, r.reason, r.detail) for r in rejected]
    )
    warning = (
        f"{report.num_rejected} of {report.num_found} files refused ({reasons}); see {listing}"
    )
    return StageReport(
        stage="ingest",
        summary={
            "files found": report.num_found,
            "videos": report.num_videos,
            "minutes": round(report.hours * 60, 2),
            "megabytes": round(report.size_bytes / 1e6, 1),
            "refused": report.num_rejected,
        },
        warnings=(warning,) if rejected else (),
        outputs=(str((workspace.raw / INDEX).relative_to(workspace.root)), str(listing)),
    )
