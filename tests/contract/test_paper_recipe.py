"""recipes/paper.yaml is the paper's table of runs: every number that it discloses, row by row."""

from pathlib import Path
from typing import NamedTuple

import pytest

from svd.config.load import load_params

PARAMS = load_params(Path(__file__).parents[2] / "recipes" / "paper.yaml")


class Row(NamedTuple):
    """A run of the paper; None where it does not say."""

    stage: str
    phase: str
    starts_from: str
    size: tuple[int, int]  # height, width
    num_frames: int
    num_steps: int
    batch_size: int | None
    lr: float | None
    p_mean: float
    p_std: float
    ema_decay: float | None
    trainable: str = "all"


# Source: appendices D.2, D.3, D.5, D.6 and section 4.5 of arXiv 2311.15127; frames of the
# text-to-video and the first image-to-video run follow from the base model's.
TABLE = [
    Row("pretrain-image", "time-embedding", "weights/v2-1_512-ema-pruned.safetensors", (512, 512),
        1, 1_000, None, None, -1.2, 1.0, None, "time-embedding"),
    Row("pretrain-image", "all-layers", "time-embedding", (256, 384),
        1, 30_000, None, None, -1.2, 1.0, None, "spatial"),
    Row("pretrain-video", "256x384", "pretrain-image", (256, 384),
        14, 150_000, 1536, 1e-4, -1.2, 1.0, None),
    Row("pretrain-video", "320x576", "256x384", (320, 576),
        14, 100_000, 768, 1e-4, 0.0, 1.0, None),
    Row("finetune-t2v", "576x1024", "pretrain-video", (576, 1024),
        14, 50_000, 768, 3e-5, 0.5, 1.4, 0.9999),
    Row("finetune-i2v", "320x576", "pretrain-video", (320, 576),
        14, 50_000, 768, 3e-5, 0.7, 1.6, None),
    Row("finetune-i2v", "576x1024", "320x576", (576, 1024),
        14, 50_000, 768, 3e-5, 1.0, 1.6, 0.9999),
    Row("finetune-i2v", "576x1024-25", "320x576", (576, 1024),
        25, 50_000, 768, 3e-5, 1.0, 1.6, 0.9999),
    Row("finetune-interpolation", "576x1024", "finetune-t2v", (576, 1024),
        5, 10_000, 256, 1e-4, 1.0, 1.2, 0.9999),
    Row("finetune-multiview@video-prior", "576x576", "finetune-i2v", (576, 576),
        21, 12_000, 16, 1e-5, 1.0, 1.6, None),  # its noise is ours: the 25-frame model's
]  # fmt: skip


@pytest.mark.parametrize("row", TABLE, ids=lambda row: f"{row.stage}:{row.phase}")
def test_a_phase_is_its_row_of_the_papers_table(row: Row):
    section = PARAMS.training(row.stage)
    names = [phase.name for phase in section.phases]
    index = names.index(row.phase)
    phase, before = section.phases[index], section.phase_before(index)
    assert row.starts_from == (section.init if before is None else names[before])
    assert (phase.data.height, phase.data.width) == row.size
    assert (phase.data.num_frames, phase.num_steps) == (row.num_frames, row.num_steps)
    assert (phase.noise.p_mean, phase.noise.p_std) == (row.p_mean, row.p_std)
    assert phase.trainable == row.trainable
    for said, ours in (
        (row.batch_size, phase.data.batch_size),
        (row.lr, phase.lr),
        (row.ema_decay, phase.ema_decay),
    ):
        assert said is None or said == ours


def test_the_recipe_has_no_phase_that_the_table_lacks():
    stages = {row.stage for row in TABLE}
    found = {(stage, phase.name) for stage in stages for phase in PARAMS.training(stage).phases}
    assert found == {(row.stage, row.phase) for row in TABLE}


def test_adapters_have_the_papers_rank_and_steps():
    """Section 4.3.1."""
    assert PARAMS.lora.adapter is not None
    assert PARAMS.lora.adapter.rank == 16
    assert sum(phase.num_steps for phase in PARAMS.lora.phases) == 5000


def test_orbits_are_seen_as_in_section_4_5():
    camera = PARAMS.orbits.camera
    assert (camera.min_elevation_deg, camera.max_elevation_deg, camera.num_views) == (-5, 30, 21)
    assert PARAMS.training("finetune-multiview@image-prior").init == "pretrain-image"
    assert PARAMS.training("finetune-multiview@scratch").init == "scratch"
    assert PARAMS.finetune_multiview.pose == ("elevation",)


def test_captions_are_drawn_and_dropped_with_the_papers_shares():
    """Section 3.1 and appendix C.3: 0.5, 0.25, 0.25; D.2: text is dropped for 15 %."""
    for phase in PARAMS.training("pretrain-video").phases:
        assert phase.data.caption_weights == {
            "image-model": 0.5,
            "video-model": 0.25,
            "merged": 0.25,
        }
        assert phase.dropout.context == 0.15


def test_the_conditioning_frame_is_noised_as_in_section_4_3():
    for phase in PARAMS.training("finetune-i2v").phases:
        assert (phase.cond_aug.p_mean, phase.cond_aug.p_std) == (-3.0, 0.5)
