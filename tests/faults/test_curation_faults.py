"""Curation when a worker, the driver or a source dies; and the same bytes on Ray."""

import hashlib
import multiprocessing as mp
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from svd.config.curation import AnnotateConfig, BankConfig, ClipConfig
from svd.config.engine import EngineConfig
from svd.curation.annotate.stage import annotate_clips
from svd.curation.clip.stage import make_clips
from svd.types.base import read_records
from svd.types.curation import ClipReport
from svd.types.video import Clip, RawVideo, RejectedFile
from tests.unit.curation.filming import film, raw_folder, shot

pytestmark = [pytest.mark.faults, pytest.mark.timeout(300)]

LOCAL = EngineConfig(num_workers=2, timeout_s=120.0, max_attempts=2)
CLIP = ClipConfig(
    segment_s=2.0, min_clip_s=0.8, max_clip_s=3.0, reencode_preset="ultrafast",
    bank=BankConfig(short_side_px=64, still_short_side_px=90),
)  # fmt: skip


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("corpus")
    shots = [shot(seed, 60, dx=seed) for seed in range(1, 5)]
    (root / "films").mkdir()
    raw_folder(
        root,
        [
            film(root / "films" / "copied.mp4", *shots, gop=24),
            film(root / "films" / "encoded.mp4", *shots[::-1], gop=500, scenecut=False),
            film(root / "films" / "short.mp4", *shots[:2], gop=24),
        ],
    )
    return root / "data" / "raw"


def clip(raw: Path, out: Path, state: Path, engine: EngineConfig = LOCAL) -> ClipReport:
    return make_clips(CLIP, engine=engine, raw=raw, out=out, state=state)


def sums(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.fixture(scope="module")
def unbroken(raw: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("unbroken")
    report = clip(raw, root / "clips", root / "state")
    assert (report.num_videos, report.num_rejected, report.num_reencoded > 0) == (3, 0, True)
    return root / "clips"


def start(raw: Path, root: Path, engine: EngineConfig) -> mp.process.BaseProcess:
    arguments = (raw, root / "clips", root / "state", engine)
    process = mp.get_context("spawn").Process(target=clip, args=arguments)
    process.start()
    return process


def wait_for(folder: Path, pattern: str) -> None:
    deadline = time.monotonic() + 120
    while not list(folder.rglob(pattern)):
        assert time.monotonic() < deadline, f"no {pattern} in {folder}"
        time.sleep(0.005)


def children(pid: int) -> list[int]:
    """Return all processes below one, the deepest last."""
    found = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in task.read_text().split():
            found += [int(child), *children(int(child))]
    return found


def test_a_killed_driver_goes_on_with_what_is_missing(
    raw: Path, unbroken: Path, tmp_path: Path
) -> None:
    engine = LOCAL.model_copy(update={"num_workers": 1})
    process = start(raw, tmp_path, engine)
    wait_for(tmp_path / "state" / "out" / "done", "*.json")
    os.kill(process.pid or 0, signal.SIGKILL)
    process.join()
    assert not (tmp_path / "clips").exists()
    marks = {path.name: path.stat().st_mtime_ns for path in tmp_path.rglob("done/*.json")}
    assert 1 <= len(marks) < 3

    clip(raw, tmp_path / "clips", tmp_path / "state")
    after = {path.name: path.stat().st_mtime_ns for path in tmp_path.rglob("done/*.json")}
    assert marks.items() <= after.items()
    assert sums(tmp_path / "clips") == sums(unbroken)


def test_a_killed_worker_costs_nothing_but_time(raw: Path, unbroken: Path, tmp_path: Path) -> None:
    process = start(raw, tmp_path, LOCAL)
    wait_for(tmp_path / "state", "scan/*/*.npz")
    workers = children(process.pid or 0)
    os.kill(workers[-1], signal.SIGKILL)
    process.join()
    assert process.exitcode == 0
    assert sums(tmp_path / "clips") == sums(unbroken)


@pytest.fixture
def raw_with_a_pipe(raw: Path, tmp_path: Path) -> Path:
    """The same videos, and one whose file is a pipe that nobody writes to."""
    folder = tmp_path / "raw"
    folder.mkdir()
    (folder / "videos").symlink_to(raw / "videos")
    lines = (raw / "index.jsonl").read_text().splitlines()
    stuck = next(read_records(raw / "index.jsonl", RawVideo)).model_copy(
        update={"video_id": "f" * 64, "uri": "stuck.mp4", "origin": "stuck.mp4"}
    )
    (folder / "index.jsonl").write_text("\n".join([*lines, stuck.canonical_json()]) + "\n")
    os.mkfifo(folder / "stuck.mp4")
    return folder


def test_a_source_that_never_answers_is_a_record_and_is_not_waited_for_twice(
    raw_with_a_pipe: Path, unbroken: Path, tmp_path: Path
) -> None:
    engine = LOCAL.model_copy(update={"timeout_s": 10.0, "max_attempts": 1})
    report = clip(raw_with_a_pipe, tmp_path / "clips", tmp_path / "state", engine)
    assert (report.num_videos, report.num_rejected) == (4, 1)
    (rejected,) = read_records(tmp_path / "clips" / "rejected.jsonl", RejectedFile)
    assert (rejected.origin, rejected.reason) == ("stuck.mp4", "timeout")
    assert rejected.detail == "not finished within 10 s (index)"
    assert sums(tmp_path / "clips" / "clips") == sums(unbroken / "clips")

    patient = engine.model_copy(update={"timeout_s": 600.0})
    again = clip(raw_with_a_pipe, tmp_path / "clips", tmp_path / "state", patient)
    assert again == report


@pytest.fixture
def ray_engine() -> Iterator[EngineConfig]:
    ray = pytest.importorskip("ray")
    yield EngineConfig(kind="ray", num_workers=2, timeout_s=120.0)
    ray.shutdown()


def test_ray_gives_the_same_bytes_as_local_processes(
    raw: Path, unbroken: Path, tmp_path: Path, ray_engine: EngineConfig
) -> None:
    clip(raw, tmp_path / "clips", tmp_path / "state", ray_engine)
    assert sums(tmp_path / "clips") == sums(unbroken)
    assert len(list(read_records(tmp_path / "clips" / "index.jsonl", Clip))) > 6
    for name, engine in (("ray", ray_engine), ("local", LOCAL)):
        annotate_clips(
            AnnotateConfig(clips_per_shard=2, text=None),
            CLIP.bank,
            engine=engine,
            root=tmp_path,
            clips=tmp_path / "clips",
            out=tmp_path / name,
            state=tmp_path / f"state-{name}",
        )
    assert sums(tmp_path / "ray") == sums(tmp_path / "local")
