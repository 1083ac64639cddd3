"""The hook on finished videos, with the release's heads as its example."""

import numpy as np
import pytest
import torch

from svd.config.model import ImageEncoderConfig
from svd.errors import CheckpointError, MissingInputError
from svd.models.networks.image_encoder import ImageEncoder
from svd.sampling.safety import BlurFilter, LinearHead, SafetyFilter

TOWER = ImageEncoderConfig(kind="tiny", width=32, heads=2, image_size=28, patch_size=7)


def frames() -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (4, 120, 160, 3), generator=generator, dtype=torch.uint8)


def head(bias: float) -> LinearHead:
    return LinearHead("unsafe", torch.zeros(32), bias)


def test_flagged_frames_are_blurred_and_unflagged_ones_are_not() -> None:
    tower = ImageEncoder(TOWER)
    always, never = BlurFilter(tower, (head(9.0),)), BlurFilter(tower, (head(-9.0),))
    assert isinstance(always, SafetyFilter)
    assert torch.equal(never(frames()), frames())
    blurred = always(frames())
    assert float(blurred.float().std()) < 0.1 * float(frames().float().std())


def test_only_frames_on_which_a_head_fires_change() -> None:
    tower = ImageEncoder(TOWER)
    pictures = frames()
    pictures[2] = 255
    direction = BlurFilter(tower, (head(0.0),))
    embeds = direction.embed(pictures)
    away = embeds[2] - embeds[[0, 1, 3]].mean(0)
    middle = (embeds[2] + embeds[[0, 1, 3]].mean(0)) @ away / 2
    judge = BlurFilter(tower, (LinearHead("white", 50 * away, -50 * float(middle)),))
    assert judge.flag(pictures).tolist() == [False, False, True, False]
    shown = judge(pictures)
    assert torch.equal(shown[[0, 1, 3]], pictures[[0, 1, 3]])


def test_a_head_is_read_from_npz_without_unpickling(tmp_path) -> None:
    path = tmp_path / "p_head_v1.npz"
    np.savez(path, weights=np.arange(32, dtype=np.float32), biases=np.float32(0.5))
    loaded = LinearHead.load(path, name="unsafe")
    assert loaded.weights.tolist() == list(range(32))
    assert float(loaded.probability(torch.zeros(1, 32))) == pytest.approx(0.62246, abs=1e-4)


def test_heads_that_cannot_be_used_are_one_clear_error(tmp_path) -> None:
    with pytest.raises(MissingInputError, match="no such file"):
        LinearHead.load(tmp_path / "none.npz", name="unsafe")
    (tmp_path / "bad.npz").write_bytes(b"no zip")
    with pytest.raises(CheckpointError, match=r"not an \.npz of weights and biases"):
        LinearHead.load(tmp_path / "bad.npz", name="unsafe")
    np.savez(tmp_path / "pickle.npz", weights=np.array([{}], dtype=object), biases=0.0)
    with pytest.raises(CheckpointError, match=r"not an \.npz of weights and biases"):
        LinearHead.load(tmp_path / "pickle.npz", name="unsafe")
    with pytest.raises(CheckpointError, match="takes embeddings of 5, the tower gives 32"):
        BlurFilter(ImageEncoder(TOWER), (LinearHead("unsafe", torch.zeros(5), 0.0),))
