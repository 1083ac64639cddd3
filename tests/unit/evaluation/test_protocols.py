import math
from pathlib import Path
from typing import Any

import pytest
import torch
from protocol_runs import SIZE, NoisySource, make_run, run_whole

from svd.config.sampling import PlacementConfig, SamplingConfig
from svd.errors import ConfigError, MissingInputError
from svd.evaluation.protocols import engine
from svd.evaluation.protocols.base import PlanOptions, Shard
from svd.evaluation.protocols.catalogue import PROTOCOLS, find_protocol
from svd.evaluation.protocols.page import compare, write_pages
from svd.evaluation.protocols.sources import (
    FileSource,
    TruthSource,
    open_autoencoder,
    open_model,
)
from svd.evaluation.tables.physics_iq import score_physics_iq_table
from svd.runtime.workspace import Workspace
from svd.types.protocol import ProtocolReport

SMALL = {"k600-recon": 2, "motionhd-local": 2, "webvid-recon": 2, "webvid-recon-mp4v": 2}
WITH_TRUTH = [name for name, one in PROTOCOLS.items() if "truth" in one.card.sources]


def synthesised(name: str, folder: Path, num: int = 4) -> Path:
    PROTOCOLS[name].card.dataset.write_small(folder, num)
    return folder


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Thirty held-out clips: more than the tiny network's 24 dimensions."""
    return synthesised("heldout", tmp_path_factory.mktemp("heldout"), 30)


def value_of(report: ProtocolReport, name: str) -> float:
    return next(one.value for one in report.records if one.name == name)


@pytest.mark.parametrize("name", [name for name in WITH_TRUTH if not name.startswith("physics")])
def test_the_truth_is_perfect_under_every_protocol(name: str, tmp_path: Path) -> None:
    data = synthesised(name, tmp_path / "data", SMALL.get(name, 4))
    report = run_whole(name, data, tmp_path / "out", TruthSource(SIZE), num_frames=6)
    mains = {one.name: one for one in report.records if one.control_of is None}
    assert mains
    for record in mains.values():
        assert record.num == report.num_measured
        assert record.comparability == "internal"
        if record.name.startswith("PSNR"):
            assert record.value == 100
        if record.name in {"SSIM", "cosine[tiny-rand2d-embedder]"}:
            assert record.value == pytest.approx(1)
        if record.name.startswith(("FD[", "perceptual distance[")):
            assert record.value == pytest.approx(0, abs=1e-9)


def test_another_take_is_worth_100_in_physics_iq_and_the_table_says_the_same(
    tmp_path: Path,
) -> None:
    data = synthesised("physics-iq-8fps", tmp_path / "data", 2)
    out = tmp_path / "out"
    report = run_whole("physics-iq-8fps", data, out, TruthSource(), num_frames=None)
    assert value_of(report, "Physics-IQ score") == 100
    assert report.num_measured == 6
    assert score_physics_iq_table(out / "physics_iq.csv").score == 100


def test_noise_lowers_the_physics_iq_score(tmp_path: Path) -> None:
    data = synthesised("physics-iq-5fps", tmp_path / "data", 1)
    report = run_whole("physics-iq-5fps", data, tmp_path / "out", Still(), num_frames=None)
    assert value_of(report, "Physics-IQ score") < 60


class Still(NoisySource):
    """Repeats its condition."""

    def __init__(self) -> None:
        super().__init__(0.0, None)

    def video(self, clip, real):
        return real[:1].expand(clip.num_frames, -1, -1, -1)


def test_a_worse_source_measures_worse(clips: Path, tmp_path: Path) -> None:
    found = []
    for std in (4, 16, 64):
        report = run_whole("heldout", clips, tmp_path / f"{std}", NoisySource(std), small=8)
        found.append((value_of(report, "FD[tiny-rand3d]"), value_of(report, "PSNR")))
    assert found[0][0] < found[1][0] < found[2][0]
    assert found[0][1] > found[1][1] > found[2][1]


def test_one_two_and_three_shares_give_the_same_numbers(clips: Path, tmp_path: Path) -> None:
    reports = [
        run_whole("heldout", clips, tmp_path / f"{count}", NoisySource(20.0), shards=count)
        for count in (1, 2, 3)
    ]
    assert reports[0].num_measured == 30
    for report in reports[1:]:
        for ours, one in zip(report.records, reports[0].records, strict=True):
            assert ours.name == one.name
            assert ours.num == one.num
            assert ours.value == pytest.approx(one.value, rel=1e-9, abs=1e-9)


def test_shares_cover_every_clip_once_without_padding(clips: Path, tmp_path: Path) -> None:
    protocol = PROTOCOLS["heldout"]
    run = make_run(clips, tmp_path / "out", NoisySource(5.0), shards=4)
    plan, identity, ready = engine.prepare(protocol, run, PlanOptions(0, 7, 6))
    for index in (2, 0, 3):
        engine.measure_shard(protocol, ready, plan, Shard(index, 4))
    with pytest.raises(MissingInputError, match="2 of 7 clips are not measured"):
        engine.finish(protocol, ready, plan, identity)
    engine.measure_shard(protocol, ready, plan, Shard(1, 4))
    assert engine.finish(protocol, ready, plan, identity).num_measured == 7


def test_the_real_side_is_seen_once_by_all_runs(
    clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from svd.evaluation.extractors.tiny import TinyVideoExtractor

    seen = []
    extract = TinyVideoExtractor.extract

    def counted(self: TinyVideoExtractor, frames: torch.Tensor) -> torch.Tensor:
        seen.append(len(frames))
        return extract(self, frames)

    monkeypatch.setattr(TinyVideoExtractor, "extract", counted)
    run_whole("heldout", clips, tmp_path / "a", NoisySource(5.0), small=4)
    first = sum(seen)
    seen.clear()
    run_whole("heldout", clips, tmp_path / "b", NoisySource(9.0), small=4)
    assert first == 4 * (1 + 1 + 3)  # generated, real, three controls of each
    assert sum(seen) == 4  # the generated ones only


def test_controls_stand_under_every_distance(clips: Path, tmp_path: Path) -> None:
    report = run_whole("heldout", clips, tmp_path / "out", NoisySource(5.0), small=8)
    controls = {one.name for one in report.records if one.control_of == "FD[tiny-rand3d]"}
    for label in ("the clips themselves", "noise", "frozen frame 0", "shuffled frames"):
        assert f"FD[tiny-rand3d] (control: {label})" in controls
    assert value_of(report, "FD[tiny-rand3d] (control: the clips themselves)") == pytest.approx(0)


def test_frames_are_held_against_frames_beside_the_videos_where_asked(
    clips: Path, tmp_path: Path
) -> None:
    name = "FD[tiny-rand2d-embedder]"
    alone = run_whole("heldout", clips, tmp_path / "a", NoisySource(20.0))
    shared = [
        run_whole(
            "heldout", clips, tmp_path / f"{count}", NoisySource(20.0), shards=count, frame="tiny"
        )
        for count in (1, 3)
    ]
    assert name not in {one.name for one in alone.records}
    assert value_of(shared[0], name) == pytest.approx(value_of(shared[1], name), rel=1e-9)
    assert value_of(shared[0], name) > value_of(
        shared[0], f"{name} (control: the clips themselves)"
    )
    assert value_of(shared[0], "FD[tiny-rand3d]") == pytest.approx(
        value_of(alone, "FD[tiny-rand3d]")
    )
    assert set(shared[0].size_curves) == {"FD[tiny-rand3d]", name}
    found = next(one for one in shared[0].records if one.name == name)
    assert "middle-frame" in found.variant


def test_a_second_run_measures_nothing_again(clips: Path, tmp_path: Path) -> None:
    first = run_whole("heldout", clips, tmp_path / "out", NoisySource(5.0), small=4)

    class Refusing(NoisySource):
        def video(self, clip, real):
            raise AssertionError("measured again")

    assert run_whole("heldout", clips, tmp_path / "out", Refusing(5.0), small=4) == first


def test_an_out_folder_of_another_run_is_refused(clips: Path, tmp_path: Path) -> None:
    run_whole("heldout", clips, tmp_path / "out", NoisySource(5.0), small=4)
    with pytest.raises(ConfigError, match="choose another --out"):
        run_whole("heldout", clips, tmp_path / "out", NoisySource(6.0), small=4)


def test_a_broken_clip_is_left_out_with_its_reason(tmp_path: Path) -> None:
    data = synthesised("heldout", tmp_path / "data", 5)
    broken = sorted((data / "data/clips/clips").glob("*.mp4"))[1]
    broken.write_bytes(b"not a video")
    out = tmp_path / "out"
    report = run_whole("heldout", data, out, NoisySource(5.0))
    assert report.num_measured == 4
    assert report.unusable.keys() == {broken.stem}
    assert all(one.num == 4 for one in report.records if one.control_of is None)
    _, markdown = write_pages(out, report)
    assert broken.stem in markdown.read_text()


def test_a_source_a_protocol_cannot_measure_is_refused(clips: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="measures image-to-video or files"):
        run_whole("vbench-i2v", clips, tmp_path / "out", TruthSource())
    with pytest.raises(ConfigError, match="known: heldout"):
        find_protocol("fvd")


@pytest.mark.parametrize(
    ("name", "given", "option"),
    [
        ("heldout", {"classifier": Path("c3d.json")}, "--classifier"),
        ("physics-iq-5fps", {"frame": "tiny"}, "--frame-network"),
    ],
)
def test_a_network_that_a_protocol_does_not_use_is_refused_before_anything_is_written(
    name: str, given: dict[str, Any], option: str, tmp_path: Path
) -> None:
    data = synthesised(name, tmp_path / "data")
    with pytest.raises(ConfigError, match=f"{name} does not measure with {option}"):
        run_whole(name, data, tmp_path / "out", TruthSource(SIZE), **given)
    assert not (tmp_path / "out").exists()


def test_a_stand_in_is_never_printed_as_or_joined_to_the_official_metric(
    tmp_path: Path,
) -> None:
    data = synthesised("ucf101-t2v", tmp_path / "data")
    out = tmp_path / "out"
    report = run_whole("ucf101-t2v", data, out, TruthSource())
    names = {one.name for one in report.records}
    assert not any(name.split(" ")[0] in {"FVD", "KVD", "LPIPS", "CLIP-S"} for name in names)
    rows = compare(report)
    assert len(rows) > 10
    assert all(row.reasons and row.ours == "" for row in rows)
    html, markdown = (path.read_text() for path in write_pages(out, report))
    assert "FD[tiny-rand3d]" in html
    assert "no: FVD was not measured" in markdown


def test_a_small_or_changed_run_of_a_published_protocol_is_internal(tmp_path: Path) -> None:
    data = synthesised("physics-iq-30fps", tmp_path / "data", 1)
    report = run_whole("physics-iq-30fps", data, tmp_path / "out", TruthSource(), num_frames=None)
    assert {one.comparability for one in report.records} == {"internal"}
    assert all(row.reasons for row in compare(report))


def test_files_are_measured_under_the_names_their_benchmark_gives(tmp_path: Path) -> None:
    from svd.evaluation.datasets.synthetic import write_pan

    data = synthesised("vbench-i2v", tmp_path / "data", 2)
    videos = tmp_path / "videos"
    for picture in range(2):
        for index in range(5):
            path = videos / f"a painting, number {picture}-{index}.mp4"
            write_pan(path, 600 + picture, num_frames=6, height=32, width=56)
    report = run_whole("vbench-i2v", data, tmp_path / "out", FileSource(videos), num_frames=None)
    assert report.num_measured == 10
    assert value_of(report, "subject consistency[tiny-rand2d-embedder]") > 0.5
    assert value_of(report, "i2v subject[tiny-rand2d-embedder]") > 0.5
    assert next(one.num for one in report.records if one.name.startswith("i2v subject")) == 5
    assert "camera_motion" in str(report.facts)
    assert len(report.dimensions) >= 5


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    from svd.evaluation.datasets.synthetic import write_pan

    data = synthesised("vbench-i2v", tmp_path / "data", 1)
    write_pan(tmp_path / "videos" / "other.mp4", 1, num_frames=6, height=32, width=56)
    with pytest.raises(MissingInputError, match=r"expected a painting, number 0-0\.mp4"):
        run_whole("vbench-i2v", data, tmp_path / "out", FileSource(tmp_path / "videos"))


def test_a_model_is_sampled_and_measured_on_held_out_clips(
    built: Workspace, tmp_path: Path
) -> None:
    sampling = SamplingConfig.model_validate(
        {"height": 32, "width": 48, "num_frames": 6, "schedule": {"num_steps": 2}}
    )
    source = open_model(
        built.model("finetune-i2v"),
        built.model("autoencoder"),
        sampling=sampling,
        placement=PlacementConfig(device="cpu"),
    )
    out = tmp_path / "out"
    report = run_whole("heldout", built.root, out, source, num_frames=6, small=3)
    assert report.num_measured == 3
    assert report.identity.source_kind == "image-to-video"
    assert all(math.isfinite(one.value) for one in report.records)
    again = run_whole("heldout", built.root, tmp_path / "again", source, num_frames=6, small=3)
    assert again.records == report.records


def test_an_autoencoder_is_measured_by_what_it_loses(built: Workspace, tmp_path: Path) -> None:
    source = open_autoencoder(built.model("autoencoder"), placement=PlacementConfig(device="cpu"))
    report = run_whole("heldout-recon", built.root, tmp_path / "out", source, num_frames=4, small=2)
    assert 0 < value_of(report, "PSNR") < 40
    assert value_of(report, "PSNR") >= value_of(report, "PSNR, per clip")


def test_mp4v_changes_a_score_and_says_so_in_the_variant(tmp_path: Path) -> None:
    data = synthesised("webvid-recon", tmp_path / "data", 2)
    raw = run_whole("webvid-recon", data, tmp_path / "raw", NoisySource(8.0, None), num_frames=4)
    through = run_whole(
        "webvid-recon-mp4v", data, tmp_path / "mp4v", NoisySource(8.0, None), num_frames=4
    )
    assert value_of(through, "PSNR") != pytest.approx(value_of(raw, "PSNR"), abs=0.3)
    variants = {one.variant for one in through.records if one.name == "PSNR"}
    assert all("-mp4v" in variant for variant in variants)


def test_motion_bins_get_their_own_rows(tmp_path: Path) -> None:
    data = synthesised("motionhd-local", tmp_path / "data", 3)
    out = tmp_path / "out"
    report = run_whole("motionhd-local", data, out, NoisySource(8.0, None), num_frames=2)
    groups = {one.group for one in report.groups}
    assert groups == {"motion bin 0", "motion bin 1", "motion bin 2"}
    html, _ = write_pages(out, report)
    assert "PSNR by group" in html.read_text()
