"""A bad recipe ends in one sentence that names the key, its value and what is allowed."""

from typing import Annotated, Literal

import pytest
from pydantic import Field, model_validator

from svd.config.base import Section, StageTree
from svd.config.load import parse_section
from svd.errors import ConfigError


class Folder(Section):
    kind: Literal["folder"]
    path: str


class Listing(Section):
    kind: Literal["list"]
    file: str


class Training(Section):
    batch_size: int = Field(gt=0)
    micro_batch_size: int = Field(gt=0)
    lr: float = Field(gt=0)

    @model_validator(mode="after")
    def batches_divide(self) -> "Training":
        if self.batch_size % self.micro_batch_size:
            raise ValueError(
                f"training.batch_size={self.batch_size} is not a multiple of "
                f"training.micro_batch_size={self.micro_batch_size}"
            )
        return self


class Tree(StageTree):
    training: Training
    finetune_i2v: Training | None = None
    stages: tuple[Training, ...] = ()
    sources: tuple[Annotated[Folder | Listing, Field(discriminator="kind")], ...] = ()


GOOD = "training: {batch_size: 8, micro_batch_size: 4, lr: 1.0e-3}\n"


def test_a_good_recipe_is_read_with_hyphenated_stage_names():
    tree = parse_section(
        GOOD + "finetune-i2v: {batch_size: 2, micro_batch_size: 1, lr: 0.1}", Tree, origin="p"
    )
    assert tree.training.lr == 1e-3
    assert tree.finetune_i2v is not None


BATCHES = "batch_size: 8, micro_batch_size: 4"
BAD = {
    "unknown": (
        f"training: {{batch: 8, {BATCHES}, lr: 0.1}}",
        "training.batch is not a known key; did you mean batch_size?",
    ),
    "in-a-list": (
        GOOD + "stages: [{batch_size: 8, micro_batch_size: 4, lr: 0.1, lrr: 1}]",
        "stages[0].lrr is not a known key; did you mean lr?",
    ),
    "missing": (f"training: {{{BATCHES}}}", "training.lr is missing"),
    "bound": (
        "training: {batch_size: 0, micro_batch_size: 4, lr: 0.1}",
        "training.batch_size=0 is not allowed: input should be greater than 0",
    ),
    "conflict": (
        "training: {batch_size: 8, micro_batch_size: 3, lr: 0.1}",
        "training.batch_size=8 is not a multiple of training.micro_batch_size=3",
    ),
    "yaml-float": (
        f"training: {{{BATCHES}, lr: 1e-3}}",
        (
            'training.lr="1e-3" is not allowed: input should be a valid number '
            "(YAML reads 1e-3 as text: write 1.0e-4, with a point)"
        ),
    ),
    "text-number": (
        "training: {batch_size: '8', micro_batch_size: 4, lr: 0.1}",
        'training.batch_size="8" is not allowed: input should be a valid integer',
    ),
    "union": (
        GOOD + "sources: [{kind: folder, path: 3}]",
        "sources[0].path=3 is not allowed: input should be a valid string",
    ),
    "section": (GOOD + "trainin: {}", "trainin is not a known key; did you mean training?"),
    "list": ("- 1", "p must hold a mapping of sections, not list"),
    "syntax": ("training: [", "p is not YAML"),
}


@pytest.mark.parametrize(("text", "sentence"), BAD.values(), ids=BAD)
def test_a_bad_recipe_is_one_sentence(text, sentence):
    with pytest.raises(ConfigError) as caught:
        parse_section(text, Tree, origin="p")
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)
