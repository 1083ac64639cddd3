"""The order of the clip stage's work: each video goes its own way from its index to its clips.

index -> scan, a unit per run -> finish -> re-encode, a unit per group -> done/<video_id>.json.
A video's units start as soon as the ones before are done, the last steps first, so that what lies
half-done on disk stays small. Whatever a killed run has finished is found by its files.
"""

import shutil
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

from svd.atomic import write_text
from svd.config.curation import ClipConfig
from svd.config.engine import EngineConfig
from svd.curation.clip.clip_video import (
    ClipResult,
    ClipTask,
    EncodedClips,
    EncodeTask,
    FinishedVideo,
    FinishTask,
    IndexedVideo,
    IndexTask,
    ScannedRun,
    ScanTask,
    do_task,
)
from svd.curation.clip.runs import Segment
from svd.curation.engine import Failure, Outcome, Unit, run_units
from svd.errors import IntegrityError
from svd.types.video import Clip, ClipSpan, RawVideo, RejectedFile

DONE: Final = "done"  # folder of the marks, below the out folder
POISON: Final = "poison.jsonl"  # below the live state

# Pixels that one core decodes and measures in an ordinary unit: a minute of 1080p at 30 a second.
# A unit of more, because a video cannot be split or is very large, has more time in proportion.
_ORDINARY_PIXELS: Final = 60 * 30 * 1920 * 1080
# Frames that one core puts through the cuts' network in an ordinary unit, at 20 ms each.
_ORDINARY_FRAMES_SEEN: Final = 5_000
_INDEX_COST, _ENCODE_COST = 0.002, 4.0  # relative to decoding a pixel; see benchmarks/LOG.md
# Pixels that decode in the time in which cuts are sought in one frame, whatever its size (1 ms).
_FINISH_PIXELS = 300_000


class ClipJob:
    """One run of the stage: its inputs, and how far each video has come."""

    def __init__(
        self,
        config: ClipConfig,
        engine: EngineConfig,
        videos: dict[str, RawVideo],
        *,
        raw: Path,
        state: Path,
        network: Path | None,
    ) -> None:
        """Prepare.

        Args:
            config: The stage's section.
            engine: Where the work is done.
            videos: By video_id.
            raw: Folder below which their files lie.
            state: Folder for the scans of unfinished videos and the out folder in the making.
            network: Weights of the cuts' second opinion, if the recipe wants one.
        """
        self.build = state / "out"
        self.rejected: dict[str, RejectedFile] = {}
        self._config = config
        self._engine = engine
        self._videos = videos
        self._raw = raw
        self._state = state
        self._network = network
        self._scans: dict[str, tuple[Path, ...]] = {}
        self._finished: dict[str, FinishedVideo] = {}
        self._waiting_for: Counter[str] = Counter()  # units of a video's present step

    def run(self) -> Iterator[FinishedVideo]:
        """Do all that is not done; yield what the videos came to, by video_id.

        Videos that failed are in `rejected` by then.
        """
        (self.build / "clips").mkdir(parents=True, exist_ok=True)
        done = {key for key in self._videos if self._recall(key) is not None}
        outcomes = run_units(
            do_task,
            [self._index_unit(key) for key in sorted(self._videos) if key not in done],
            self._engine,
            description="decoding and clipping",
            unit_name="units",
            poison_list=self._state / POISON,
            bounds_memory=self._network is None,
            follow=self._follow,
        )
        for outcome in outcomes:
            if outcome.failure is not None:
                self._reject(outcome.failure)
        for key in sorted(self._videos):
            finished = None if key in self.rejected else self._recall(key)
            if finished is not None:
                yield finished

    def _recall(self, key: str) -> FinishedVideo | None:
        try:
            text = self._mark(key).read_text(encoding="utf-8")
            return FinishedVideo.parse(text, origin=str(self._mark(key)))
        except (FileNotFoundError, IntegrityError):
            return None

    def _mark(self, key: str) -> Path:
        return self.build / DONE / f"{key}.json"

    def _follow(self, outcome: Outcome[ClipResult]) -> Iterable[Unit[ClipTask]]:
        """Return what an outcome makes possible."""
        key = outcome.key.partition("/")[0]
        match outcome.result:
            case IndexedVideo(runs):
                return self._scan_units(key, runs)
            case ScannedRun():
                self._waiting_for[key] -= 1
                return [] if self._waiting_for[key] else [self._finish_unit(key)]
            case FinishedVideo() as finished:
                return self._encode_units(finished)
            case EncodedClips(clips):
                self._add_clips(key, clips)
        return []

    def _index_unit(self, key: str) -> Unit[ClipTask]:
        video = self._videos[key]
        task = IndexTask(self._path(video), self._config)
        patience = _pixels(video, video.probe.num_frames) / _ORDINARY_PIXELS * _INDEX_COST
        return Unit(
            f"{key}/index",
            _INDEX_COST * _pixels(video, video.probe.num_frames),
            task,
            rank=1,
            patience=patience,
        )

    def _scan_units(self, key: str, runs: tuple[tuple[Segment, ...], ...]) -> list[Unit[ClipTask]]:
        video = self._videos[key]
        folder = self._state / "scan" / key
        num_segments = sum(len(run) for run in runs)
        files = [folder / f"{number:05d}.npz" for number in range(num_segments)]
        self._scans[key] = tuple(files)
        units: list[Unit[ClipTask]] = []
        first = 0
        for run in runs:
            targets = tuple(files[first : first + len(run)])
            if not all(target.is_file() for target in targets):
                cost = _pixels(video, video.probe.num_frames) * len(run) / num_segments
                task = ScanTask(video, self._path(video), run, self._config, targets)
                patience = cost / _ORDINARY_PIXELS
                units.append(Unit(f"{key}/scan/{first}", cost, task, patience=patience))
            first += len(run)
        self._waiting_for[key] = len(units)
        return units or [self._finish_unit(key)]

    def _finish_unit(self, key: str) -> Unit[ClipTask]:
        video = self._videos[key]
        task = FinishTask(
            video, self._path(video), self._scans[key], self._config, self.build, self._network
        )
        cost = float(_FINISH_PIXELS * video.probe.num_frames)
        patience = cost / _ORDINARY_PIXELS
        if self._network is not None:
            patience += video.probe.num_frames / _ORDINARY_FRAMES_SEEN
        return Unit(f"{key}/finish", cost, task, rank=3, patience=patience)

    def _encode_units(self, finished: FinishedVideo) -> list[Unit[ClipTask]]:
        key = finished.video_id
        video = self._videos[key]
        units: list[Unit[ClipTask]] = []
        for number, spans in enumerate(finished.to_encode):
            cost = _ENCODE_COST * _pixels(video, _num_frames(spans))
            task = EncodeTask(video, self._path(video), spans, self._config, self.build)
            patience = cost / _ORDINARY_PIXELS
            units.append(Unit(f"{key}/encode/{number}", cost, task, rank=2, patience=patience))
        self._finished[key] = finished
        self._waiting_for[key] = len(units)
        if not units:
            self._seal(key)
        return units

    def _add_clips(self, key: str, clips: tuple[Clip, ...]) -> None:
        before = self._finished[key]
        self._finished[key] = before.model_copy(update={"clips": (*before.clips, *clips)})
        self._waiting_for[key] -= 1
        if not self._waiting_for[key]:
            self._seal(key)

    def _seal(self, key: str) -> None:
        """Write a video's done-mark; nothing of it is missing any more."""
        finished = self._finished.pop(key)
        clips = sorted(finished.clips, key=lambda clip: clip.span.start_frame)
        record = finished.model_copy(update={"clips": tuple(clips), "to_encode": ()})
        write_text(self._mark(key), record.canonical_json() + "\n")
        shutil.rmtree(self._state / "scan" / key, ignore_errors=True)

    def _path(self, video: RawVideo) -> Path:
        return self._raw / video.uri

    def _reject(self, failure: Failure) -> None:
        """Remember the video of a failed unit; of several failures the least key speaks."""
        key, _, unit = failure.key.partition("/")
        video = self._videos[key]
        before = self.rejected.get(key)
        detail = f"{failure.detail} ({unit})"
        if before is None or detail < before.detail:
            self.rejected[key] = RejectedFile(
                origin=video.origin,
                sha256=key,
                size_bytes=video.size_bytes,
                reason=failure.reason,
                detail=detail,
            )


def _pixels(video: RawVideo, num_frames: int) -> float:
    return float(num_frames * video.probe.width * video.probe.height)


def _num_frames(spans: Iterable[ClipSpan]) -> int:
    return sum(span.stop_frame - span.start_frame for span in spans)
