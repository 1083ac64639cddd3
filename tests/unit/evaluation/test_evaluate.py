import json
import logging
from collections.abc import Sequence
from pathlib import Path

import evaluation_workspace as building
import pytest
import torch
import yaml
from torch import Tensor

from svd.config.evaluation import EvaluateConfig
from svd.config.load import parse_section
from svd.errors import ConfigError, IntegrityError, MissingInputError
from svd.evaluation import evaluate as stage
from svd.evaluation.features import FeatureCache
from svd.evaluation.heldout import load_held_out, sample_seed
from svd.evaluation.samples import frames_sha256, sample_held_out
from svd.runtime.fingerprint import file_sha256
from svd.runtime.tracking import NullTracker
from svd.runtime.workspace import Workspace
from svd.types.artifact import MetricRecord
from svd.types.base import read_records
from svd.types.evaluation import EvaluationReport


def section(**changes: object) -> EvaluateConfig:
    text = yaml.safe_dump(building.evaluate_section(**changes))
    return parse_section(text, EvaluateConfig, origin="test")


def files_of(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    workspace = building.build_workspace(tmp_path_factory.mktemp("evaluated"))
    stage.evaluate(section(), workspace, workspace.runs / "x", seed=1, tracker=NullTracker())
    return workspace


def test_threads_are_the_recipes_not_the_callers(evaluated: Workspace) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(before + 1)
    try:
        run = evaluated.runs / "x"
        stage.evaluate(section(), evaluated, run, seed=1, tracker=NullTracker())
        assert torch.get_num_threads() == section().num_threads
    finally:
        torch.set_num_threads(before)


def records_of(workspace: Workspace) -> dict[str, MetricRecord]:
    path = workspace.evaluation / "records.jsonl"
    return {record.name: record for record in read_records(path, MetricRecord)}


def test_every_number_says_what_it_was_measured_on(evaluated: Workspace) -> None:
    records = records_of(evaluated)
    held_out = load_held_out(section(), evaluated, seed=1)
    for record in records.values():
        assert record.dataset_fingerprint == held_out.fingerprint
        assert record.variant.endswith(f"/N{record.num}")
        assert record.comparability == "internal"
        assert record.low is None or record.low <= record.value <= record.high


def test_a_random_network_is_never_called_fvd(evaluated: Workspace) -> None:
    names = set(records_of(evaluated))
    assert "FD[tiny-rand3d]" in names
    assert not any("FVD" in name or "KVD" in name for name in names)


def test_every_control_names_a_metric_that_was_measured(evaluated: Workspace) -> None:
    records = records_of(evaluated)
    controls = [record for record in records.values() if record.control_of is not None]
    assert {record.control_of for record in controls} <= set(records)
    distances = [record for record in controls if record.control_of == "FD[tiny-rand3d]"]
    assert len(distances) == 6
    by_label = {record.name.partition("(control: ")[2].rstrip(")"): record for record in distances}
    assert by_label["the clips themselves"].value == pytest.approx(0, abs=1e-9)
    assert by_label["noise"].value > 0


def test_chance_and_hits_stand_beside_retrieval(evaluated: Workspace) -> None:
    record = records_of(evaluated)["first-frame retrieval"]
    assert "chance 0.167" in record.note
    assert record.value in {hits / 6 for hits in range(7)}


def test_metrics_json_is_flat_and_equals_the_records(evaluated: Workspace) -> None:
    flat = json.loads((evaluated.evaluation / "metrics.json").read_text())
    records = records_of(evaluated)
    assert flat["first_frame_retrieval"] == records["first-frame retrieval"].value
    assert len(flat) == len(records)
    assert all(isinstance(value, float) for value in flat.values())


def test_each_clip_has_its_videos_and_scores(evaluated: Workspace) -> None:
    text = (evaluated.evaluation / "report.json").read_text()
    report = EvaluationReport.parse(text, origin="report.json")
    assert len(report.clips) == 6
    for scores in report.clips:
        for name in (".mp4", ".truth.mp4", ".cond.png", ".recon.png"):
            assert (evaluated.evaluation / "samples" / f"{scores.clip_id}{name}").is_file()
    mean = sum(scores.scores["PSNR of frame 0"] for scores in report.clips) / 6
    assert mean == pytest.approx(records_of(evaluated)["PSNR of frame 0"].value)


def test_a_second_run_ends_in_the_same_bytes_without_sampling(
    evaluated: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = files_of(evaluated.evaluation)

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("sampled again")

    monkeypatch.setattr(stage, "image_to_video", refuse)
    monkeypatch.setattr(FeatureCache, "_vector", _only_read)
    stage.evaluate(section(), evaluated, evaluated.runs / "x", seed=1, tracker=NullTracker())
    assert files_of(evaluated.evaluation) == before


def _only_read(self: FeatureCache, video: Tensor) -> Tensor:
    name = frames_sha256(video)
    stored = self._store.get(name, name)
    vector = None if stored is None else stored.tensors["features"]
    assert vector is not None
    return vector


def test_an_interrupted_run_goes_on_and_ends_in_the_same_samples(evaluated: Workspace) -> None:
    clips = load_held_out(section(), evaluated, seed=1).clips
    seeds = [sample_seed(item.clip.clip_id, 1) for item in clips]
    calls: list[tuple[int, ...]] = []

    def paint(frames: Tensor, batch: Sequence[int]) -> Tensor:
        if len(calls) == 2:
            calls.append(())
            raise KeyboardInterrupt
        calls.append(tuple(batch))
        noise = [torch.Generator().manual_seed(seed) for seed in batch]
        return torch.stack(
            [
                torch.randint(0, 256, (8, *frame.shape), dtype=torch.uint8, generator=generator)
                for frame, generator in zip(frames, noise, strict=True)
            ]
        )

    folder = evaluated.runs / "interrupted"
    with pytest.raises(KeyboardInterrupt):
        sample_held_out(clips, seeds, paint, folder, batch_size=2)
    resumed = sample_held_out(clips, seeds, paint, folder, batch_size=2)
    done = [batch for batch in calls if batch]
    assert done == [tuple(seeds[0:2]), tuple(seeds[2:4]), tuple(seeds[4:6])]
    calls[:] = [(0,)] * 3
    whole = sample_held_out(clips, seeds, paint, evaluated.runs / "whole", batch_size=2)
    assert all(torch.equal(a, b) for a, b in zip(resumed, whole, strict=True))


@pytest.mark.parametrize("damage", [b"", b"not safetensors"], ids=["empty", "garbage"])
def test_a_damaged_saved_sample_is_made_again(
    evaluated: Workspace, tmp_path: Path, damage: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    clips = load_held_out(section(), evaluated, seed=1).clips[:1]
    (tmp_path / f"{clips[0].clip.clip_id}.safetensors").write_bytes(damage)
    still = torch.zeros(1, 8, building.HEIGHT, building.WIDTH, 3, dtype=torch.uint8)
    with caplog.at_level(logging.WARNING):
        videos = sample_held_out(clips, [7], lambda *_: still, tmp_path, batch_size=1)
    assert videos[0].shape == (8, 3, building.HEIGHT, building.WIDTH)
    assert "damaged" in caplog.text


def test_the_chosen_clips_hang_on_the_seed_and_stay_when_data_grow(built: Workspace) -> None:
    all_ids = [
        item.clip.clip_id for item in load_held_out(section(num_clips=8), built, seed=1).clips
    ]
    four = [item.clip.clip_id for item in load_held_out(section(num_clips=4), built, seed=1).clips]
    others = [
        item.clip.clip_id for item in load_held_out(section(num_clips=4), built, seed=2).clips
    ]
    assert set(four) < set(all_ids)
    assert four != others
    assert sample_seed(four[0], 1) != sample_seed(four[1], 1) != sample_seed(four[1], 2)


def test_frames_are_those_the_encoder_would_see(built: Workspace) -> None:
    for item in load_held_out(section(), built, seed=1).clips:
        assert item.frames.shape == (8, 3, building.HEIGHT, building.WIDTH)
        assert item.frames.dtype == torch.uint8


def test_an_unreadable_clip_is_skipped_with_a_warning(fresh: Workspace) -> None:
    victim = load_held_out(section(), fresh, seed=1).clips[0].clip
    (fresh.clips / victim.uri).write_bytes(b"not a video")
    index = fresh.clips / "index.jsonl"
    digest = file_sha256(fresh.clips / victim.uri)
    index.write_text(index.read_text().replace(victim.sha256, digest))
    report = stage.evaluate(section(), fresh, fresh.runs / "x", seed=1, tracker=NullTracker())
    assert report.summary["held-out clips"] == 5
    assert any(victim.clip_id in warning for warning in report.warnings)


def test_a_clip_that_is_not_what_its_index_names_stops_the_stage(fresh: Workspace) -> None:
    victim = load_held_out(section(), fresh, seed=1).clips[0].clip
    (fresh.clips / victim.uri).write_bytes(b"swapped")
    with pytest.raises(IntegrityError, match=victim.clip_id):
        load_held_out(section(), fresh, seed=1)


def test_too_few_held_out_clips_are_said_with_what_to_change(tmp_path: Path) -> None:
    workspace = building.build_workspace(tmp_path, num_videos=1, num_frames=30, num_heldout=1)
    with pytest.raises(MissingInputError, match=r"filter\.split"):
        stage.evaluate(section(), workspace, workspace.runs, seed=1, tracker=NullTracker())


def test_clips_shorter_than_the_samples_are_said_with_what_there_is(built: Workspace) -> None:
    sampling = building.evaluate_section()["sampling"]
    config = section(sampling=sampling | {"num_frames": 11, "decode_chunk_size": 11})
    with pytest.raises(MissingInputError, match="48x32 of up to 10 frames"):
        load_held_out(config, built, seed=1)


def test_more_controls_than_clips_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"controls\.num_clips=9 exceeds num_clips=6"):
        section(controls={"num_clips": 9})
