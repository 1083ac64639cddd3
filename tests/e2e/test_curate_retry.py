"""`svd curate retry` in a real project: only what failed is done again, and DVC agrees."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml

from svd.types.base import read_records
from svd.types.video import Clip, RawVideo
from tests.e2e.micro import ROOT, micro_project
from tests.unit.curation.filming import film, shot

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project that curates a folder of three films, one of which is no film yet."""
    root = micro_project(tmp_path / "project")
    (root / "films").mkdir()
    for seed in (1, 2):
        film(root / "films" / f"{seed}.mp4", shot(seed, 40, dx=2), shot(seed + 5, 40), gop=20)
    (root / "films" / "3.mp4").write_text("not fetched yet")
    recipe = yaml.safe_load((root / "params.yaml").read_text())
    recipe["ingest"]["sources"] = [{"kind": "folder", "path": "films", "licence": "CC0-1.0"}]
    recipe["annotate"]["clips_per_shard"] = 100
    (root / "params.yaml").write_text(yaml.safe_dump(recipe, sort_keys=False))
    return root


def call(root: Path, *words: str) -> str:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    ours = {"PYTHONPATH": str(ROOT), "PATH": path, "COLUMNS": "200", "WANDB_MODE": "disabled"}
    environment = os.environ | ours
    command = [sys.executable, "-m", *words]
    done = subprocess.run(
        command, cwd=root, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def inodes(folder: Path) -> dict[str, int]:
    return {path.name: path.stat().st_ino for path in folder.rglob("*") if path.is_file()}


def videos(root: Path) -> dict[str, RawVideo]:
    index = root / "data" / "raw" / "index.jsonl"
    return {Path(video.origin).name: video for video in read_records(index, RawVideo)}


def a_file_that_has_come_is_taken_in_without_the_others(project: Path) -> None:
    call(project, "dvc", "repro", "ingest")
    assert "not-a-video" in call(project, "svd.cli", "curate", "failures")
    before = inodes(project / "data" / "raw" / "videos")
    film(project / "films" / "3.mp4", shot(3, 40), gop=20)
    said = call(project, "svd.cli", "curate", "retry", "ingest")
    assert "ingest: 1 of 1 failures mended, 0 left" in said
    assert len(videos(project)) == 3
    assert before.items() <= inodes(project / "data" / "raw" / "videos").items()
    assert "changed" not in call(project, "dvc", "status", "ingest")


def a_video_that_can_be_read_again_is_cut_without_the_others(project: Path) -> None:
    path = project / "data" / "raw" / videos(project)["2.mp4"].uri
    data = path.read_bytes()
    path.chmod(0o644)
    path.write_bytes(np.random.default_rng(0).bytes(len(data)))
    call(project, "svd.cli", "clip")
    assert "unreadable" in call(project, "svd.cli", "curate", "failures")
    before = inodes(project / "data" / "clips" / "clips")
    path.write_bytes(data)
    said = call(project, "svd.cli", "curate", "retry", "clip")
    assert "clip: 1 of 1 failures mended, 0 left" in said
    clips = list(read_records(project / "data" / "clips" / "index.jsonl", Clip))
    assert len({clip.span.video_id for clip in clips}) == 3
    assert before.items() <= inodes(project / "data" / "clips" / "clips").items()
    assert "nothing failed" in call(project, "svd.cli", "curate", "retry", "clip")


def a_shard_that_failed_is_annotated_without_the_others(project: Path) -> None:
    track = project / "data" / "clips" / "bank" / videos(project)["1.mp4"].video_id / "track.npz"
    data = track.read_bytes()
    track.write_bytes(bytes(len(data)))
    call(project, "svd.cli", "annotate")
    assert "internal-error" in call(project, "svd.cli", "curate", "failures")
    shards = {path: path.stat().st_ino for path in (project / ".runs").rglob("shards/*/*.jsonl")}
    assert len(shards) == 2
    track.write_bytes(data)
    said = call(project, "svd.cli", "curate", "retry", "annotate")
    assert "annotate: 1 of 1 failures mended, 0 left" in said
    assert all(path.stat().st_ino == inode for path, inode in shards.items())


def results_of_another_recipe_are_not_built_upon(project: Path) -> None:
    recipe = (project / "params.yaml").read_text()
    rejected = project / "data" / "clips" / "rejected.jsonl"
    rejected.write_text(
        '{"origin":"x","sha256":null,"size_bytes":null,"reason":"r","detail":"d"}\n'
    )
    (project / "params.yaml").write_text(recipe.replace("min_clip_s: 1.0", "min_clip_s: 0.9"))
    with pytest.raises(AssertionError, match=r"is not of the present recipe.*run `svd clip`"):
        call(project, "svd.cli", "curate", "retry", "clip")


def test_what_failed_is_done_again_and_nothing_else(project: Path) -> None:
    a_file_that_has_come_is_taken_in_without_the_others(project)
    a_video_that_can_be_read_again_is_cut_without_the_others(project)
    a_shard_that_failed_is_annotated_without_the_others(project)
    results_of_another_recipe_are_not_built_upon(project)
