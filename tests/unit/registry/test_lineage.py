"""From a version to its sources and back."""

from pathlib import Path

import pytest

from svd.data.lineage import (
    ClipRow,
    clip_rows,
    find_rows,
    keep_table,
    lineage_of,
    lock_sha256,
    source_videos,
    table_path,
)
from svd.errors import GateError, IntegrityError
from svd.registry.trace import uses_of_video, version_table
from svd.runtime.storage import open_store
from svd.runtime.store import Store
from svd.runtime.workspace import Workspace
from svd.types.stage import CHAIN
from tests.unit.registry.registry_project import Project, sha256, write, write_model

FILM = sha256("video 0")


def store_of(project: Project) -> Store:
    return open_store(str(project.workspace.state / "store"))


def test_a_finished_checkout_leads_back_to_every_source(project: Project) -> None:
    lineage = lineage_of(project.workspace)
    assert lineage.missing == ()
    assert (lineage.num_videos, lineage.num_clips, lineage.num_shards) == (2, 4, 2)
    assert lineage.licences == {"CC-BY-3.0": 1, "CC0-1.0": 1}
    assert [stage.stage for stage in lineage.stages][:2] == ["ingest", "clip"]
    assert "register" not in {stage.stage for stage in lineage.stages}
    outs = {path: md5 for stage in lineage.stages for path, md5 in stage.outs.items()}
    made = [dep for stage in lineage.stages for dep in stage.deps.items() if dep[0] in outs]
    assert made
    assert all(outs[path] == md5 for path, md5 in made)


def test_videos_are_counted_by_split(project: Project) -> None:
    rows = clip_rows(project.workspace)
    path = table_path(project.workspace, keep_table(project.workspace, rows))
    first, second = source_videos(path)
    assert {first.video_id, second.video_id} == {FILM, sha256("video 1")}
    by_id = {video.video_id: video for video in (first, second)}
    assert by_id[FILM].num_clips == {"train": 2}
    assert by_id[sha256("video 1")].num_clips == {"heldout": 1, "train": 1}


def test_an_empty_checkout_says_what_is_missing(tmp_path: Path) -> None:
    lineage = lineage_of(Workspace(tmp_path))
    assert lineage.missing[0] == "dvc.lock is not there: run `dvc repro`"
    assert "data/latents/manifest.json is not there" in lineage.missing
    assert lineage.num_videos == 0


def test_a_clip_that_leads_nowhere_is_named(project: Project) -> None:
    write(project.workspace.clips / "index.jsonl", "")
    with pytest.raises(IntegrityError, match="leads to no source video"):
        clip_rows(project.workspace)
    assert "leads to no source video" in lineage_of(project.workspace).missing[0]


def test_a_branch_beside_the_model_is_no_part_of_its_lineage(project: Project) -> None:
    made_by = [stage.stage for stage in lineage_of(project.workspace).stages]
    assert made_by == list(CHAIN[:-1])
    before = lock_sha256(project.root)
    write_model(project.workspace, "finetune-t2v", "trained again")
    project.commit_outs("finetune-t2v")
    assert lock_sha256(project.root) == before
    project.train("good")
    first = project.register().version
    write_model(project.workspace, "finetune-t2v", "and again, not committed")
    assert project.register().version.version == first.version


def test_the_hash_of_the_lock_is_that_of_its_meaning(project: Project) -> None:
    lock = project.root / "dvc.lock"
    before, text = lock_sha256(project.root), lock.read_text()
    lock.write_text(text.replace("echo register", "echo Register"))
    assert lock_sha256(project.root) == before
    lock.write_text(text.replace("echo filter", "echo Filter"))
    assert lock_sha256(project.root) != before


def test_the_way_back_names_every_version_and_its_use(released: Project) -> None:
    from svd.registry.publish import promote

    promote(released.catalog, "v0.1.1", "production", approver="Ann")
    uses = uses_of_video(released.workspace, store_of(released), FILM[:10])
    assert [(use.version, use.stages) for use in uses] == [
        ("v0.1.0", ()),
        ("v0.1.1", ("production",)),
        ("v0.1.2", ("candidate",)),
    ]
    assert uses[0].clips == {"train": ("clip-0-0", "clip-0-24")}
    assert uses[0].shards == (sha256("train"),)
    assert (uses[0].origin, uses[0].licence) == ("film-0.mp4", "CC-BY-3.0")
    assert uses_of_video(released.workspace, store_of(released), "0" * 64) == []


@pytest.mark.parametrize("video", ["", "abc", "xyzxyzxyz", "../../.."])
def test_a_video_is_asked_for_by_its_digits(released: Project, video: str) -> None:
    with pytest.raises(GateError, match="six or more"):
        uses_of_video(released.workspace, store_of(released), video)


def test_the_table_comes_from_the_store_where_it_is_not_kept(released: Project) -> None:
    record = released.catalog.record("v0.1.0")
    kept = table_path(released.workspace, str(record.lineage_table_sha256))
    kept.unlink()
    path = version_table(record, released.workspace, store_of(released))
    assert find_rows(path) == clip_rows(released.workspace)
    assert kept.is_file()


def test_equal_rows_make_equal_bytes_in_any_order(tmp_path: Path) -> None:
    rows = [ClipRow(f"{i:064x}", f"c{i}", "train", "s", "o", "l") for i in range(100)]
    workspace = Workspace(tmp_path)
    assert keep_table(workspace, rows) == keep_table(workspace, rows[::-1])
    assert find_rows(table_path(workspace, keep_table(workspace, []))) == []
