"""Mutated files: whatever bytes and names, ingest and clip end, and every file has its record."""

from collections import Counter
from fractions import Fraction
from pathlib import Path

import pytest
from mutants import NUM_MUTANTS, mutants, write_mutants

from svd.config.curation import BankConfig, ClipConfig
from svd.config.engine import EngineConfig
from svd.config.ingest import FolderSource, IngestConfig
from svd.curation.clip.stage import make_clips
from svd.curation.ingest.stage import ingest
from svd.runtime.tracking import NullTracker
from svd.runtime.workspace import Workspace
from svd.types.base import read_records
from svd.types.video import Clip, RawVideo, RejectedFile

ENGINE = EngineConfig(num_workers=2, timeout_s=60.0, memory_mib=1024, max_attempts=1)


@pytest.fixture
def originals(media) -> list[bytes]:
    paths = [
        media.video("a.mp4", num_frames=8),
        media.timed("b.mp4", range(0, 320, 40), with_audio=True),  # its index comes last
        media.video("c.webm", num_frames=8),
        media.video("d.mkv", num_frames=8),
        media.timed("e.avi", range(8), codec="mpeg4", time_base=Fraction(1, 25)),
        media.timed("f.ts", range(0, 320, 40)),
        media.timed("g.mp4", [0, 40, 80, 200, 240, 280, 600, 640], rotation=90),
        media.timed("h.mp4", range(0, 320, 40), codec="libx265", pix_fmt="yuv420p10le"),
    ]
    return [path.read_bytes() for path in paths]


@pytest.mark.faults
@pytest.mark.parametrize(
    "num",
    [
        pytest.param(60, id="sixty"),
        pytest.param(NUM_MUTANTS, id="all", marks=[pytest.mark.slow, pytest.mark.timeout(1800)]),
    ],
)
def test_every_mutant_has_a_record_and_none_stops_the_others(
    originals: list[bytes], tmp_path: Path, num: int
) -> None:
    write_mutants(tmp_path / "mutants", originals, num)
    (tmp_path / "mutants" / "sane.mp4").write_bytes(originals[0])
    assert len(list((tmp_path / "mutants").iterdir())) == num + 1

    workspace = Workspace(tmp_path)
    config = IngestConfig(sources=(FolderSource(kind="folder", path="mutants", licence="x"),))
    ingest(config, ENGINE, workspace, workspace.runs / "a" / "b", seed=0, tracker=NullTracker())
    kept = list(read_records(workspace.raw / "index.jsonl", RawVideo))
    refused = list(read_records(workspace.raw / "rejected.jsonl", RejectedFile))
    assert len(kept) + len(refused) == num + 1
    assert not [item for item in refused if item.reason in {"timeout", "crashed", "internal-error"}]
    assert all(item.detail for item in refused)
    assert any(item.origin == "mutants/sane.mp4" for item in [*kept, *refused])
    assert len(kept) >= num // 12
    for video in kept:
        assert 64 <= min(video.probe.width, video.probe.height) <= 8192
        assert video.probe.duration_s < 43_200

    report = make_clips(
        ClipConfig(min_clip_s=0.1, max_clip_s=2.0, bank=BankConfig(short_side_px=64)),
        engine=ENGINE,
        raw=workspace.raw,
        out=workspace.clips,
        state=workspace.runs / "clip",
    )
    late = list(read_records(workspace.clips / "rejected.jsonl", RejectedFile))
    marks = {path.stem for path in (workspace.clips / "done").iterdir()}
    assert marks | {item.sha256 for item in late} == {video.video_id for video in kept}
    assert not [item for item in late if item.reason in {"timeout", "crashed", "internal-error"}]
    clips = list(read_records(workspace.clips / "index.jsonl", Clip))
    assert report.num_clips == len(clips) >= num // 12
    print(Counter(item.reason for item in refused), Counter(item.reason for item in late))


def test_a_mutant_is_the_same_in_every_run(originals: list[bytes]) -> None:
    first, again = list(mutants(originals, 40)), list(mutants(originals, 60))
    assert first == again[:40]
