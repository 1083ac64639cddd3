"""What changes a stage's fingerprint, and what does not."""

from pathlib import Path

import pytest

from svd.errors import ConfigError, MissingInputError
from svd.runtime.fingerprint import path_identity, stage_fingerprint, stage_identity
from svd.runtime.workspace import Workspace

DVC_YAML = """
stages:
  clip:
    cmd: svd clip
    deps: [svd/curation, data/raw, weights.bin]
    params: [clip, train.lr, {other.yaml: [a.b]}, {whole.yaml: null}]
    outs: [data/clips]
"""


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    files = {
        "dvc.yaml": DVC_YAML,
        "params.yaml": "clip: {min_s: 2, mode: [x, y]}\ntrain: {lr: 1.0e-4, steps: 3}\n",
        "other.yaml": "a: {b: 1, c: 2}\n",
        "whole.yaml": "z: 1\n",
        "svd/curation/clip/stage.py": "x = 1\n",
        "data/raw/index.jsonl": '{"video_id":"abc"}\n',
        "data/raw/report.json": "{}",
        "data/raw/videos/abc.mp4": "0123456789",
        "weights.bin": "w",
    }
    for name, text in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return Workspace(tmp_path)


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("params.yaml", "clip: {min_s: 3, mode: [x, y]}\ntrain: {lr: 1.0e-4, steps: 3}\n"),
        ("params.yaml", "clip: {min_s: 2, mode: [x, y]}\ntrain: {lr: 2.0e-4, steps: 3}\n"),
        ("other.yaml", "a: {b: 2, c: 2}\n"),
        ("whole.yaml", "z: 2\n"),
        ("svd/curation/clip/stage.py", "x = 2\n"),
        ("svd/curation/new.py", "y = 1\n"),
        ("data/raw/index.jsonl", '{"video_id":"abd"}\n'),
        ("data/raw/videos/abc.mp4", "01234567890"),
        ("data/raw/videos/abd.mp4", ""),
        ("weights.bin", "v"),
    ],
    ids=lambda value: value.split("\n")[0][:24],
)
def test_a_change_of_params_inputs_or_code_changes_the_fingerprint(
    workspace: Workspace, file: str, text: str
) -> None:
    before = stage_fingerprint(workspace, "clip")
    (workspace.root / file).write_text(text)
    assert stage_fingerprint(workspace, "clip") != before


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("params.yaml", "# note\ntrain: {steps: 9, lr: 0.0001}\nclip: {mode: [x, y], min_s: 2}\n"),
        ("other.yaml", "a: {c: 3, b: 1}\n"),
        ("svd/curation/__pycache__/clip.cpython-311.pyc", "compiled"),
        ("svd/curation/.mypy_cache/x.json", "{}"),
        ("data/raw/index.jsonl.partial", "half"),
        ("data/clips/index.jsonl", "an out"),
        ("svd/models/networks/unet.py", "not a dep"),
    ],
    ids=lambda value: value.split("\n")[0][:24],
)
def test_what_the_stage_does_not_read_leaves_the_fingerprint(
    workspace: Workspace, file: str, text: str
) -> None:
    before = stage_fingerprint(workspace, "clip")
    path = workspace.root / file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    assert stage_fingerprint(workspace, "clip") == before


def test_how_a_run_is_computed_leaves_its_name(workspace: Workspace) -> None:
    names = set()
    for threads, micro in ((2, 1), (8, 4)):
        (workspace.root / "params.yaml").write_text(
            f"clip: {{compute: {{num_processes: {micro}}}, phases: [{{micro_batch_size: {micro}, "
            f"lr: 1, data: {{read_threads: {threads}, max_quarantined: {micro}}}}}]}}\n"
            "train: {lr: 0.1}\n"
        )
        names.add(stage_fingerprint(workspace, "clip"))
    assert len(names) == 1
    text = (workspace.root / "params.yaml").read_text()
    (workspace.root / "params.yaml").write_text(text.replace("lr: 1,", "lr: 2,"))
    assert stage_fingerprint(workspace, "clip") not in names


def test_a_fingerprint_is_the_same_in_another_place_and_is_a_short_hex_name(
    workspace: Workspace, tmp_path_factory: pytest.TempPathFactory
) -> None:
    import shutil

    other = tmp_path_factory.mktemp("moved") / "checkout"
    shutil.copytree(workspace.root, other)
    name = stage_fingerprint(workspace, "clip")
    assert name == stage_fingerprint(Workspace(other), "clip")
    assert len(name) == 20
    assert int(name, 16) >= 0


def test_the_identity_names_each_part(workspace: Workspace) -> None:
    assert set(stage_identity(workspace, "clip")) == {
        "params:params.yaml:clip",
        "params:params.yaml:train.lr",
        "params:other.yaml:a.b",
        "params:whole.yaml:",
        "dep:svd/curation",
        "dep:data/raw",
        "dep:weights.bin",
    }


def test_a_folder_without_a_content_file_is_known_by_every_byte(tmp_path: Path) -> None:
    (tmp_path / "a.bin").write_bytes(b"01")
    before = path_identity(tmp_path)
    (tmp_path / "a.bin").write_bytes(b"10")
    assert path_identity(tmp_path) != before


def test_an_unknown_stage_names_the_known_ones(workspace: Workspace) -> None:
    with pytest.raises(ConfigError, match="no stage 'annotate'; it has: clip"):
        stage_fingerprint(workspace, "annotate")


def test_a_missing_key_or_input_is_named(workspace: Workspace) -> None:
    (workspace.root / "weights.bin").unlink()
    with pytest.raises(MissingInputError, match=r"weights\.bin"):
        stage_fingerprint(workspace, "clip")
    (workspace.root / "params.yaml").write_text("clip: {}\n")
    with pytest.raises(ConfigError, match=r"no key train\.lr"):
        stage_fingerprint(workspace, "clip")
