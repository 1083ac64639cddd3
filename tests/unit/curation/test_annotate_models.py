"""The annotate stage with every network: real architectures, tiny random weights."""

import hashlib
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from filming import film, raw_folder, shot
from safetensors.torch import save_file
from tiny_models import CLIP, COCA, save_language_model, save_open_clip, save_picture_model
from torchvision.models.optical_flow import raft_small

from svd.config.annotation_models import (
    CaptionConfig,
    ClipModelConfig,
    CraftConfig,
    ImageCaptionConfig,
    MergeCaptionConfig,
    VideoCaptionConfig,
)
from svd.config.curation import (
    AnnotateConfig,
    BankConfig,
    ClipConfig,
    ModelsConfig,
    RaftConfig,
    ScoreRange,
)
from svd.config.engine import EngineConfig
from svd.curation.annotate.craft_network import Craft
from svd.curation.annotate.stage import annotate_clips
from svd.curation.clip.stage import make_clips
from svd.errors import ConfigError, MissingInputError
from svd.types.annotation import Annotation
from svd.types.base import read_records
from svd.types.curation import AnnotateReport

BANK = BankConfig(short_side_px=128, still_short_side_px=128)
ENGINE = EngineConfig(num_workers=1, timeout_s=200.0, max_attempts=1)


def config_of(**changes: object) -> AnnotateConfig:
    values = {
        "clips_per_shard": 3,
        "text": None,
        "models": ModelsConfig(
            clips_per_batch=2,
            clip=ClipModelConfig(folder="weights/clip"),
            craft=CraftConfig(file="weights/craft.safetensors", enlarge=1.0),
            captions=CaptionConfig(
                image=ImageCaptionConfig(folder="weights/coca", max_tokens=8, num_beams=2),
                video=VideoCaptionConfig(folder="weights/video", num_frames=2, max_tokens=8),
                merge=MergeCaptionConfig(
                    kind="transformers", model="weights/language", max_tokens=8
                ),
            ),
        ),
        "raft": RaftConfig(
            file="weights/raft.pth",
            size="small",
            short_side_px=128,
            num_updates=1,
            only={"motion.dis_px": ScoreRange(min=1.0)},
        ),
    }
    return AnnotateConfig(**(values | changes))


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One film of a still and two moving shots, its clips, and weights of every kind."""
    root = tmp_path_factory.mktemp("corpus")
    shots = [shot(seed, 36, dx=dx, width=228, height=128) for seed, dx in ((1, 0), (2, 1), (3, 2))]
    raw_folder(root, [film(root / "film.mp4", *shots, gop=36)])
    make_clips(
        ClipConfig(bank=BANK, min_clip_s=0.8, max_clip_s=3.0),
        engine=ENGINE,
        raw=root / "data" / "raw",
        out=root / "data" / "clips",
        state=root / ".runs" / "clip",
    )
    save_open_clip(root / "weights" / "clip", CLIP)
    save_open_clip(root / "weights" / "coca", COCA)
    save_picture_model(root / "weights" / "video")
    save_language_model(root / "weights" / "language")
    torch.manual_seed(0)
    save_file(Craft().state_dict(), root / "weights" / "craft.safetensors")
    torch.save(raft_small(weights=None).state_dict(), root / "weights" / "raft.pth")
    return root


def annotate(
    root: Path, name: str, config: AnnotateConfig, engine: EngineConfig = ENGINE
) -> AnnotateReport:
    return annotate_clips(
        config,
        BANK,
        engine=engine,
        root=root,
        clips=root / "data" / "clips",
        out=root / "data" / name,
        state=root / ".runs" / name,
    )


@pytest.fixture(scope="module")
def report(corpus: Path) -> AnnotateReport:
    return annotate(corpus, "annotations", config_of())


@pytest.fixture(scope="module")
def rows(corpus: Path, report: AnnotateReport) -> list[Annotation]:
    return list(read_records(corpus / "data" / "annotations" / "annotations.jsonl", Annotation))


def test_every_network_adds_its_scores_and_stands_beside_them(rows: list[Annotation]) -> None:
    for row in rows:
        assert {"clip.similarity", "clip.similarity_merged", "craft.area"} <= set(row.scores)
        assert {name.split(".")[0] for name in row.scores} <= set(row.scorers)
        for name in ("clip", "craft"):
            assert row.scorers[name].version.startswith("sha256:")


def test_the_page_of_annotations_names_every_score(rows: list[Annotation]) -> None:
    page = (Path(__file__).parents[3] / "docs" / "curation" / "annotations.md").read_text()
    for name in {name for row in rows for name in row.scores}:
        scorer, quantity = name.split(".")
        by_source = quantity.startswith("similarity_") and quantity != "similarity_min"
        assert f"`{scorer}." in page
        assert ("similarity_<source>" if by_source else quantity) in page, name


def test_a_missing_library_is_said_before_any_work(
    corpus: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingInputError, match=r"pip install 'svd\[captions\]'"):
        annotate(corpus, "nothing", config_of())
    assert not (corpus / ".runs" / "nothing").exists()


def test_a_clip_has_the_measured_caption_and_three_of_models(rows: list[Annotation]) -> None:
    for row in rows:
        sources = [caption.source for caption in row.captions]
        assert sources == ["measured", "image-model", "video-model", "merged"]
        assert row.captions[1].scorer.settings["num_beams"] == 2


def test_raft_runs_on_chosen_clips_only_and_says_why_not(rows: list[Annotation]) -> None:
    still, *moving = rows
    assert "raft.px" not in still.scores
    assert still.missing["raft.px"].startswith("not chosen: motion.dis_px is 0")
    assert "raft" not in still.scorers
    assert all(row.scores["raft.px"] > 0 for row in moving)


def test_a_clip_that_cannot_be_decoded_again_costs_its_own_flow_only(
    corpus: Path, tmp_path: Path, rows: list[Annotation]
) -> None:
    shutil.copytree(corpus / "data" / "clips", tmp_path / "data" / "clips")
    (tmp_path / "weights").symlink_to(corpus / "weights")
    *_, broken = rows
    (tmp_path / "data" / "clips" / "clips" / f"{broken.clip_id}.mp4").write_bytes(b"no video")
    report = annotate(tmp_path, "annotations", config_of(models=None))
    found = list(read_records(tmp_path / "data" / "annotations" / "annotations.jsonl", Annotation))
    assert report.num_failed == {}
    assert found[-1].missing["raft.px"].startswith("unreadable")
    assert found[-2].scores["raft.px"] == rows[-2].scores["raft.px"]


def test_the_row_of_an_embedding_is_the_line_of_its_clip(
    corpus: Path, rows: list[Annotation]
) -> None:
    embeddings = np.load(corpus / "data" / "annotations" / "embeddings.npy")
    assert embeddings.shape == (len(rows), 16)
    assert embeddings.dtype == np.float16
    lengths = np.linalg.norm(embeddings.astype(np.float32), axis=1)
    np.testing.assert_allclose(lengths, 1, atol=2e-3)


def test_the_report_counts_what_was_not_measured(report: AnnotateReport) -> None:
    assert report.num_failed == {}
    assert report.num_missing["raft.px"] == 1
    assert "clip.similarity" in report.mean_scores


def test_networks_change_nothing_that_was_measured_without_them(
    corpus: Path, rows: list[Annotation]
) -> None:
    annotate(corpus, "plain", config_of(models=None, raft=None))
    plain = list(read_records(corpus / "data" / "plain" / "annotations.jsonl", Annotation))
    for with_, without in zip(rows, plain, strict=True):
        assert without.scores.items() <= with_.scores.items()
        assert with_.captions[:1] == without.captions
        assert with_.hashes == without.hashes
    assert not (corpus / "data" / "plain" / "embeddings.npy").exists()


def test_a_rerun_asks_no_network_again_and_ends_in_the_same_bytes(
    corpus: Path, rows: list[Annotation]
) -> None:
    state, out = corpus / ".runs" / "annotations", corpus / "data" / "annotations"
    shards = {path: path.stat().st_mtime_ns for path in state.rglob("*.jsonl")}
    before = {path: hashlib.sha256(path.read_bytes()).hexdigest() for path in out.iterdir()}
    annotate(corpus, "annotations", config_of())
    assert {path: path.stat().st_mtime_ns for path in shards} == shards
    assert {p: hashlib.sha256(p.read_bytes()).hexdigest() for p in out.iterdir()} == before


def test_missing_weights_are_said_before_any_work(corpus: Path) -> None:
    raft = RaftConfig(file="weights/elsewhere.pth")
    with pytest.raises(MissingInputError, match=r"elsewhere\.pth is not there: get torchvision's"):
        annotate(corpus, "nothing", config_of(raft=raft))
    assert not (corpus / ".runs" / "nothing").exists()


@pytest.mark.parametrize(
    ("missing", "message"),
    [
        ("clip", r"open_clip_config.json is not there.*set annotate.models.clip to null"),
        ("coca", r"mscoco_finetuned_CoCa.*set annotate.models.captions.image to null"),
        ("video", r"config.json is not there.*set annotate.models.captions.video to null"),
        ("language", r"config.json is not there.*set annotate.models.captions.merge to null"),
        ("craft.safetensors", r"craft_mlt_25k.pth.*set annotate.models.craft to null"),
        ("raft.pth", r"raft_large or raft_small.*set annotate.raft to null"),
    ],
)
def test_a_missing_file_is_a_sentence_with_a_way_out(
    corpus: Path, tmp_path: Path, missing: str, message: str
) -> None:
    (tmp_path / "weights").mkdir()
    for path in (corpus / "weights").iterdir():
        if path.name != missing:
            (tmp_path / "weights" / path.name).symlink_to(path)
    with pytest.raises(MissingInputError, match=message) as error:
        annotate_clips(
            config_of(),
            BANK,
            engine=ENGINE,
            root=tmp_path,
            clips=corpus / "data" / "clips",
            out=tmp_path / "out",
            state=tmp_path / "state",
        )
    assert "all other annotations go on without it" in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("num_gpus", "message"),
    [(0, r"annotate\.raft\.device=cuda, but engine\.num_gpus is 0"), (1, "torch sees no GPU")],
)
def test_a_gpu_that_is_not_there_is_said_before_any_work(
    corpus: Path, num_gpus: int, message: str
) -> None:
    if torch.cuda.is_available() and num_gpus:
        pytest.skip("there is a GPU")
    raft = config_of().raft
    assert raft is not None
    config = config_of(raft=raft.model_copy(update={"device": "cuda"}))
    with pytest.raises(ConfigError, match=message):
        annotate(corpus, "gpu", config, ENGINE.model_copy(update={"num_gpus": num_gpus}))
    assert not (corpus / ".runs" / "gpu").exists()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_gives_the_scores_of_the_cpu(corpus: Path, rows: list[Annotation]) -> None:
    config = config_of()
    assert config.models is not None
    assert config.raft is not None
    on_gpu = config_of(
        models=config.models.model_copy(update={"device": "cuda"}),
        raft=config.raft.model_copy(update={"device": "cuda"}),
    )
    annotate(corpus, "gpu", on_gpu, ENGINE.model_copy(update={"num_gpus": 1}))
    found = list(read_records(corpus / "data" / "gpu" / "annotations.jsonl", Annotation))
    for gpu, cpu in zip(found, rows, strict=True):
        for name in ("clip.similarity", "craft.area", "raft.px"):
            if name in cpu.scores:
                assert gpu.scores[name] == pytest.approx(cpu.scores[name], rel=0.05, abs=1e-3)
