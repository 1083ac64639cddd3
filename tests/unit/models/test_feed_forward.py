"""The gated feed-forward layers: the formula, its gradients, and the CPU's way by blocks."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from svd.models.networks import feed_forward
from svd.models.networks.cpu import feed_forward as blocked
from svd.models.networks.cpu.feed_forward import AddFeedForward, FeedForwardWeights
from svd.models.networks.feed_forward import FeedForward, add_feed_forward, gated_gelu

CHANNELS = 3


def layers() -> tuple[nn.LayerNorm, FeedForward]:
    torch.manual_seed(0)
    norm, layer = nn.LayerNorm(CHANNELS).double(), FeedForward(CHANNELS).double()
    with torch.no_grad():
        for parameter in norm.parameters():
            parameter.normal_()
    return norm, layer


@pytest.fixture
def blocks_of_four(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocked, "_BLOCK_NUMBERS", 1)
    monkeypatch.setattr(blocked, "_MIN_TOKENS", 4)


def test_gating_has_the_gradients_of_the_formula() -> None:
    pair = torch.randn(3, 5, 8, dtype=torch.float64, requires_grad=True)
    value, gate = pair.chunk(2, dim=-1)
    torch.testing.assert_close(gated_gelu(pair), value * F.gelu(gate))
    assert torch.autograd.gradcheck(gated_gelu, (pair,))


@pytest.mark.usefixtures("blocks_of_four")
@pytest.mark.parametrize("keep_activations", [True, False])
@pytest.mark.parametrize("num_tokens", [3, 4, 9])
def test_blocks_have_the_values_and_gradients_of_the_whole(
    num_tokens: int, keep_activations: bool
) -> None:
    norm, layer = layers()
    x = torch.randn(1, num_tokens, CHANNELS, dtype=torch.float64, requires_grad=True)
    added = add_feed_forward(x, norm, layer, keep_activations=keep_activations)
    assert added.grad_fn.name() == "AddFeedForwardBackward"
    torch.testing.assert_close(added, x + layer(norm(x)))
    weights = [y.detach().requires_grad_() for y in layer.weights_behind(norm)]

    def add(x: Tensor, *weights: Tensor) -> Tensor:
        return AddFeedForward.apply(x, norm.eps, keep_activations, *weights)

    assert torch.autograd.gradcheck(add, (x, *weights))


@pytest.mark.usefixtures("blocks_of_four")
def test_frozen_layers_hand_the_gradient_on() -> None:
    norm, layer = layers()
    layer.requires_grad_(False)
    norm.requires_grad_(False)
    x = torch.randn(2, CHANNELS, 5, dtype=torch.float64).mT.requires_grad_()
    add_feed_forward(x, norm, layer, keep_activations=True).square().sum().backward()
    found, x.grad = x.grad, None
    (x + layer(norm(x))).square().sum().backward()
    torch.testing.assert_close(found, x.grad)
    assert all(p.grad is None for p in [*norm.parameters(), *layer.parameters()])


@pytest.mark.parametrize("num_saved", [7, 9])
def test_values_and_gates_are_saved_only_where_they_are_kept(num_saved: int) -> None:
    norm, layer = layers()
    x = torch.randn(1, 5, CHANNELS, dtype=torch.float64)
    added = add_feed_forward(x, norm, layer, keep_activations=num_saved == 9)
    assert len(added.grad_fn.saved_tensors) == num_saved


@pytest.mark.parametrize("is_frozen", [True, False])
def test_where_no_gradient_is_asked_for_nothing_is_allocated_to_keep(
    monkeypatch: pytest.MonkeyPatch, is_frozen: bool
) -> None:
    norm, layer = layers()
    if is_frozen:
        norm.requires_grad_(False)
        layer.requires_grad_(False)
    places: list[int] = []
    project = FeedForwardWeights.project

    def watched(self: FeedForwardWeights, normed: Tensor, kept: list[Tensor]) -> list[Tensor]:
        places.append(len(kept))
        return project(self, normed, kept)

    monkeypatch.setattr(FeedForwardWeights, "project", watched)
    x = torch.randn(1, 5, CHANNELS, dtype=torch.float64)
    with torch.set_grad_enabled(is_frozen):
        added = add_feed_forward(x, norm, layer, keep_activations=True)
    torch.testing.assert_close(added, x + layer(norm(x)))
    assert (places, added.requires_grad) == ([0], False)


@pytest.mark.usefixtures("blocks_of_four")
def test_gradients_of_many_blocks_in_bf16_go_on_growing() -> None:
    norm, layer = layers()
    x = torch.randn(1, 2000, CHANNELS) + 1
    exact = add_feed_forward(x.double(), norm, layer, keep_activations=False)
    exact.sum().backward()
    expected = [p.grad for p in layer.parameters()]
    norm.bfloat16(), layer.bfloat16()
    layer.zero_grad()
    add_feed_forward(x.bfloat16(), norm, layer, keep_activations=False).sum().backward()
    for parameter, truth in zip(layer.parameters(), expected, strict=True):
        assert parameter.grad.dtype == torch.bfloat16
        assert (parameter.grad - truth).norm() < 0.02 * truth.norm()


@pytest.mark.parametrize("keep_activations", [True, False])
def test_elsewhere_the_plain_layers_run(
    monkeypatch: pytest.MonkeyPatch, keep_activations: bool
) -> None:
    monkeypatch.setattr(feed_forward, "takes_cpu_paths", lambda _: False)
    norm, layer = layers()
    x = torch.randn(1, 5, CHANNELS, dtype=torch.float64, requires_grad=True)
    added = add_feed_forward(x, norm, layer, keep_activations=keep_activations)
    assert added.grad_fn.name() == "AddBackward0"
    torch.testing.assert_close(added, x + layer(norm(x)))
    assert torch.autograd.gradcheck(
        lambda x: add_feed_forward(x, norm, layer, keep_activations=keep_activations), (x,)
    )
