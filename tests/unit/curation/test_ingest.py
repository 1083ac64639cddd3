import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from fractions import Fraction
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from svd.config.engine import EngineConfig
from svd.config.ingest import (
    FolderSource,
    IngestConfig,
    ListSource,
    ProbeLimits,
    S3Source,
    SyntheticSource,
)
from svd.config.load import parse_section
from svd.curation.ingest.stage import IngestReport, ingest
from svd.curation.ingest.withdrawn import withdraw
from svd.errors import ConfigError, MissingInputError
from svd.runtime.tracking import NullTracker
from svd.runtime.workspace import Workspace
from svd.types.artifact import StageReport
from svd.types.base import read_records
from svd.types.truth import VideoTruth
from svd.types.video import RawVideo, RejectedFile, WithdrawnVideo

SMALL = SyntheticSource(
    kind="synthetic",
    num_videos=3,
    num_duplicates=1,
    min_seconds=2.0,
    max_seconds=2.0,
    width=96,
    height=64,
    photos=(),
    num_paintings=3,
)


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace(tmp_path)


def folder(path: str = "media") -> FolderSource:
    return FolderSource(kind="folder", path=path, licence="CC0-1.0")


ONE, TWO = EngineConfig(num_workers=1), EngineConfig(num_workers=2)


def take_in(
    workspace: Workspace, *sources: object, engine: EngineConfig = TWO, **options: object
) -> StageReport:
    config = IngestConfig(sources=sources, **options)
    state = workspace.runs / "fp" / "ingest"
    return ingest(config, engine, workspace, state, seed=3, tracker=NullTracker())


def videos(workspace: Workspace) -> dict[str, RawVideo]:
    index = read_records(workspace.raw / "index.jsonl", RawVideo)
    return {Path(video.origin).name: video for video in index}


def rejected(workspace: Workspace) -> dict[str, RejectedFile]:
    refused = read_records(workspace.raw / "rejected.jsonl", RejectedFile)
    return {Path(item.origin).name: item for item in refused}


def contents(root: Path) -> dict[str, bytes]:
    return {str(p.relative_to(root)): p.read_bytes() for p in root.rglob("*") if p.is_file()}


def test_a_folder_of_good_and_bad_files_gives_a_record_for_each(media, workspace) -> None:
    media.video("good.mp4")
    media.timed("phone.mp4", range(0, 400, 40), rotation=-90)
    media.timed("variable.mkv", [0, 33, 66, 120, 153, 300])
    media.bytes_of("text.mp4", b"hello\n")
    media.bytes_of("empty.mp4", b"")
    cut = media.timed("cut.mp4", range(0, 2000, 40))
    cut.write_bytes(cut.read_bytes()[:-900])
    media.audio_only("sound.mp4")
    media.video("still.mp4", num_frames=1)
    media.image("picture.mp4", ".webp")
    (media.folder / "again.mp4").write_bytes((media.folder / "good.mp4").read_bytes())
    (media.folder / "link.mp4").symlink_to(media.folder / "good.mp4")
    os.mkfifo(media.folder / "pipe.mp4")

    report = take_in(workspace, folder())

    kept = videos(workspace)
    assert list(kept) == ["again.mp4", "phone.mp4", "variable.mkv"]
    assert (kept["phone.mp4"].probe.rotation, kept["phone.mp4"].probe.width) == (90, 64)
    assert kept["variable.mkv"].probe.is_vfr
    assert {name: item.reason for name, item in rejected(workspace).items()} == {
        "cut.mp4": "truncated",
        "empty.mp4": "empty-file",
        "good.mp4": "exact-duplicate",
        "link.mp4": "link",
        "picture.mp4": "image",
        "pipe.mp4": "not-a-regular-file",
        "sound.mp4": "no-video-stream",
        "still.mp4": "too-few-frames",
        "text.mp4": "not-a-video",
    }
    assert report.summary["videos"] == 3
    assert report.summary["refused"] == 9
    assert "exact-duplicate 1" in report.warnings[0]


def test_a_kept_video_lies_under_the_hash_of_its_bytes(media, workspace) -> None:
    source = media.video("v.mp4")
    take_in(workspace, folder())
    (video,) = videos(workspace).values()
    copy = workspace.raw / video.uri
    assert copy.read_bytes() == source.read_bytes()
    assert copy.stem == video.video_id
    assert not copy.samefile(source)
    assert video.licence == "CC0-1.0"
    assert video.origin == "media/v.mp4"


def test_a_withdrawn_video_is_dropped_and_its_bytes_with_it(workspace) -> None:
    take_in(workspace, SMALL)
    first, *others = videos(workspace).values()
    entry = WithdrawnVideo(
        video_id=first.video_id, withdrawn_on="2026-01-02", by="Ann", reason="asked to"
    )
    assert withdraw(workspace, entry)
    take_in(workspace, SMALL)
    assert {video.video_id for video in videos(workspace).values()} == {
        video.video_id for video in others
    }
    assert not (workspace.raw / first.uri).exists()
    rejected = read_records(workspace.raw / "rejected.jsonl", RejectedFile)
    said = {item.sha256: (item.reason, item.detail) for item in rejected}
    assert said[first.video_id] == ("withdrawn", "withdrawn on 2026-01-02 by Ann: asked to")


def test_hard_links_are_made_only_when_asked_for(media, workspace) -> None:
    source = media.video("v.mp4")
    take_in(workspace, folder(), hardlink=True)
    (video,) = videos(workspace).values()
    assert (workspace.raw / video.uri).samefile(source)


def test_without_copies_the_index_points_at_the_source(media, workspace) -> None:
    source = media.video("v.mp4")
    take_in(workspace, folder(), copy_videos=False)
    (video,) = videos(workspace).values()
    assert Path(video.uri) == source
    assert not list((workspace.raw / "videos").iterdir())


@pytest.mark.parametrize(
    "name",
    [
        "..%2f..%2fetc.mp4",
        "a b\n.mp4",
        "\u65e5\u672c\u8a9e.mp4",
        "\u202e4pm.mp4",
        "-rf.mp4",
        "'; x.mp4",
    ],
)
def test_any_name_is_taken_as_it_is(media, workspace, name: str) -> None:
    media.video("v.mp4").rename(media.folder / name)
    take_in(workspace, folder())
    (video,) = videos(workspace).values()
    assert video.origin == f"media/{name}"
    assert Path(video.uri).parent == Path("videos")


def test_a_name_that_is_no_utf8_is_escaped(media, workspace) -> None:
    strange = os.fsdecode(os.fsencode(media.folder) + b"/\xff.mp4")
    media.video("v.mp4").rename(strange)
    take_in(workspace, folder())
    assert list(videos(workspace)) == ["\\xff.mp4"]


def test_links_never_lead_out_of_the_folder(media, workspace, tmp_path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    media.video("inside.mp4")
    media.video("v.mp4").rename(outside / "secret.mp4")
    (media.folder / "door").symlink_to(outside, target_is_directory=True)
    (media.folder / "window.mp4").symlink_to(outside / "secret.mp4")
    (media.folder / "loop").symlink_to(media.folder, target_is_directory=True)
    take_in(workspace, folder())
    assert list(videos(workspace)) == ["inside.mp4"]
    assert {name: item.reason for name, item in rejected(workspace).items()} == dict.fromkeys(
        ("door", "loop", "window.mp4"), "link"
    )


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read_is_a_record(media, workspace) -> None:
    media.video("good.mp4")
    media.video("v.mp4").chmod(0)
    take_in(workspace, folder())
    assert rejected(workspace)["v.mp4"].reason == "unreadable"


def test_a_list_names_paths_and_uris(media, workspace) -> None:
    media.video("a.mp4")
    media.video("b b.mp4", num_frames=13)
    listing = media.bytes_of(
        "list.txt",
        f"# films\n\na.mp4\nfile://{media.folder}/b%20b.mp4\nabsent.mp4\nhttps://x/y.mp4\n.\n".encode(),
    )
    take_in(workspace, ListSource(kind="list", path=str(listing), licence="CC-BY-4.0"))
    assert {Path(v.origin).name for v in videos(workspace).values()} == {"a.mp4", "b%20b.mp4"}
    reasons = {item.origin: item.reason for item in rejected(workspace).values()}
    assert reasons == {
        "absent.mp4": "unreadable",
        "https://x/y.mp4": "unknown-scheme",
        ".": "not-a-regular-file",
    }


@pytest.fixture
def refusing_store() -> Iterator[str]:
    """The address of a store that lets nobody in."""

    class Refuse(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_error(403)

        do_HEAD = do_GET

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Refuse) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_objects_that_a_store_does_not_give_are_recorded(
    media, workspace, monkeypatch, refusing_store
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", refusing_store)
    media.video("v.mp4")
    media.bytes_of("list.txt", b"s3://bucket/films/a.mp4\nv.mp4\n")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "x")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "x")
    take_in(workspace, ListSource(kind="list", path="media/list.txt", licence="x"))
    assert rejected(workspace)["a.mp4"].reason == "not-fetched"
    assert list(videos(workspace)) == ["v.mp4"]


def test_synthetic_videos_come_with_their_truth(workspace) -> None:
    take_in(workspace, SMALL)
    index = videos(workspace)
    assert len(index) == 4
    truths = {}
    for video in index.values():
        text = (workspace.raw / "truth" / f"{video.video_id}.json").read_text()
        truth = truths[video.video_id] = VideoTruth.parse(text, origin="truth")
        assert truth.num_frames == video.probe.num_frames
        assert (truth.width, truth.height) == (video.probe.width, video.probe.height)
        assert video.probe.fps == truth.fps == Fraction(24)
        assert video.licence == "CC0-1.0"
    copies = [truth for truth in truths.values() if truth.duplicate_of]
    assert len(copies) == 1
    assert truths[copies[0].duplicate_of].cuts == copies[0].cuts


def test_the_result_depends_on_neither_workers_nor_history(media, workspace, tmp_path) -> None:
    media.video("a.mp4")
    media.bytes_of("b.mp4", b"text")
    take_in(workspace, SMALL, folder())
    first = contents(workspace.raw)
    take_in(workspace, SMALL, folder())
    assert contents(workspace.raw) == first
    config = IngestConfig(sources=(SMALL, folder(str(media.folder))))
    other = Workspace(tmp_path / "other")
    ingest(config, ONE, other, other.runs / "x", seed=3, tracker=NullTracker())
    assert {Path(n).name for n in contents(other.raw)} == {Path(n).name for n in first}


def test_the_report_adds_up(media, workspace) -> None:
    media.video("a.mp4", num_frames=48)
    media.video("b.webm", num_frames=24)
    media.bytes_of("c.mp4", b"text")
    take_in(workspace, folder(), SMALL)
    text = (workspace.raw / "report.json").read_text()
    report = IngestReport.parse(text, origin="report")
    assert [(s.num_found, s.num_kept) for s in report.sources] == [(3, 2), (4, 4)]
    assert report.num_found == report.num_videos + report.num_rejected == 7
    assert report.by_reason == {"not-a-video": 1}
    assert report.by_codec == {"h264": 5, "vp8": 1}
    probes = [video.probe for video in videos(workspace).values()]
    assert report.hours == pytest.approx(sum(probe.duration_s for probe in probes) / 3600)


def test_a_file_that_takes_too_long_is_a_record(media, workspace) -> None:
    media.video("a.mp4")
    with pytest.raises(MissingInputError, match=r"no usable video among 1 files \(timeout 1\)"):
        take_in(workspace, folder(), engine=EngineConfig(num_workers=2, timeout_s=0.001))
    item = rejected(workspace)["a.mp4"]
    assert item.detail == "not finished within 0.001 s"
    assert item.sha256 is not None


def test_no_usable_video_ends_the_stage_with_the_reasons(media, workspace) -> None:
    media.bytes_of("a.mp4", b"text")
    with pytest.raises(MissingInputError, match="not-a-video 1"):
        take_in(workspace, folder())
    assert rejected(workspace)["a.mp4"].reason == "not-a-video"


def test_a_source_that_is_not_there_is_one_sentence(workspace) -> None:
    with pytest.raises(MissingInputError, match=r"the folder .*/absent is not there"):
        take_in(workspace, folder("absent"))


def test_limits_of_the_recipe_apply(media, workspace) -> None:
    media.video("a.mp4", num_frames=48)
    media.video("b.mp4", num_frames=12)
    take_in(workspace, folder(), limits=ProbeLimits(min_frames=20))
    assert list(videos(workspace)) == ["a.mp4"]
    assert rejected(workspace)["b.mp4"].reason == "too-few-frames"


DRIVER = """
import sys
from pathlib import Path
from svd.config.engine import EngineConfig
from svd.config.ingest import IngestConfig
from svd.curation.ingest.stage import ingest
from svd.runtime.tracking import NullTracker
from svd.runtime.workspace import Workspace
if __name__ == "__main__":
    root = Path(sys.argv[1])
    config = IngestConfig.model_validate_json(Path(sys.argv[2]).read_text())
    engine = EngineConfig(num_workers=1)
    state = root / ".runs/fp/ingest"
    ingest(config, engine, Workspace(root), state, seed=3, tracker=NullTracker())
"""


@pytest.mark.faults
def test_a_killed_ingest_goes_on_and_ends_in_the_same_bytes(tmp_path) -> None:
    source = SMALL.model_copy(update={"num_videos": 12, "max_seconds": 4.0})
    config = IngestConfig(sources=(source,))
    (tmp_path / "config.json").write_text(config.model_dump_json())
    (tmp_path / "driver.py").write_text(DRIVER)
    root, whole = tmp_path / "killed", tmp_path / "whole"
    command = [sys.executable, tmp_path / "driver.py", root, tmp_path / "config.json"]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[3])}
    done = root / ".runs/fp/ingest/done"

    process = subprocess.Popen(command, env=environment)
    deadline = time.monotonic() + 60
    while len(list(done.glob("*.json"))) < 4 and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    finished = {path: path.stat().st_mtime_ns for path in done.glob("*.json")}
    assert 4 <= len(finished) < 13
    kept = {p.name: p.stat().st_ino for p in (root / ".runs/fp/ingest/raw/videos").iterdir()}
    assert not (root / "data/raw").exists()

    ingest(config, ONE, Workspace(root), root / ".runs/fp/ingest", seed=3, tracker=NullTracker())
    ingest(config, ONE, Workspace(whole), whole / ".runs/fp/ingest", seed=3, tracker=NullTracker())
    assert contents(root / "data") == contents(whole / "data")
    now = {p.name: p.stat().st_ino for p in (root / "data/raw/videos").iterdir()}
    assert kept.items() <= now.items()  # what was done was not done again
    assert not (root / ".runs/fp/ingest").exists()


def test_the_yaml_of_a_source_is_explained_when_wrong() -> None:
    with pytest.raises(ConfigError, match="stop_s"):
        parse_section(
            "sources: [{kind: package, name: big-buck-bunny, start_s: 9, stop_s: 3}]",
            IngestConfig,
            origin="params.yaml",
        )
    text = json.dumps({"sources": [json.loads(SMALL.model_dump_json())]})
    assert parse_section(text, IngestConfig, origin="x").sources == (SMALL,)
    assert S3Source(kind="s3", uri="s3://bucket/films", licence="x").uri == "s3://bucket/films"
