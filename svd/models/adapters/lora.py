"""Low-rank adapters beside the UNet's attention projections: added, mixed, merged, taken out.

A projection W with adapters computes W x + sum of strength * alpha / rank * B A x; B starts at
zero, so that a new adapter changes nothing. Source: Hu 2021 (LoRA), section 4.1.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, cast

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from svd.config.lora import LoraConfig, LoraTarget
from svd.errors import CheckpointError, ConfigError
from svd.models.networks.attention import Projection
from svd.models.networks.layers import zero
from svd.models.networks.unet import SpatioTemporalUNet

_EVERY_FRAME = (1.0,)
_ADAPTERS = ".adapters."  # in the names of an adapter's parameters


class Factors(NamedTuple):
    """The low-rank update of one projection, without strength, alpha and rank: up @ down."""

    down: Float[Tensor, "r i"]
    up: Float[Tensor, "o r"]


@dataclass(frozen=True, slots=True)
class Adapter:
    """An adapter outside a network.

    Attributes:
        alpha: It counts alpha / rank times.
        factors: By the name of the projection in the UNet.
    """

    alpha: float
    factors: Mapping[str, Factors]


class LowRank(nn.Module):
    """One adapter of one projection; its parameters are called as in peft.

    Attributes:
        strengths: One number for all frames, or one per frame.
    """

    def __init__(self, in_features: int, out_features: int, *, rank: int, alpha: float) -> None:
        super().__init__()
        self.lora_A = nn.Linear(in_features, rank, bias=False)
        self.lora_B = zero(nn.Linear(rank, out_features, bias=False))
        self.alpha = alpha
        self.strengths: tuple[float, ...] = _EVERY_FRAME

    @property
    def is_on(self) -> bool:
        """Whether the adapter counts in any frame."""
        return any(self.strengths)

    @property
    def gain(self) -> float:
        """What the product of the factors counts at strength 1."""
        return self.alpha / self.lora_A.out_features

    def forward(self, x: Float[Tensor, "*n i"]) -> Float[Tensor, "*n o"]:
        """Return what the adapter adds to its projection's output."""
        strengths: float | Tensor = self.strengths[0]
        if len(self.strengths) > 1:
            strengths = self._per_frame(x)
        result: Tensor = self.lora_B(self.gain * strengths * self.lora_A(x))
        return result

    def _per_frame(self, x: Tensor) -> Float[Tensor, "t 1 1"]:
        if x.ndim != 4 or x.shape[1] != len(self.strengths):
            raise ConfigError(
                f"an adapter has a strength for each of {len(self.strengths)} frames, but its "
                f"projection sees a tensor of shape {tuple(x.shape)}: frame ranges need as many "
                "frames, and adapters of the attention over time (attn1) only"
            )
        return rearrange(x.new_tensor(self.strengths), "t -> t 1 1")

    def update(self) -> Float[Tensor, "o i"]:
        """Return what merging adds to the projection's weight."""
        if len(self.strengths) != 1:
            raise ConfigError(
                "an adapter whose strength differs between frames cannot be merged into weights"
            )
        update: Tensor = self.lora_B.weight @ self.lora_A.weight
        return self.strengths[0] * self.gain * update


class AdaptedProjection(Projection):
    """A projection with adapters; weight and bias are those of the one it replaces."""

    def __init__(self, base: Projection) -> None:
        super().__init__(
            base.in_features, base.out_features, bias=base.bias is not None, device="meta"
        )
        self.weight, self.bias = base.weight, base.bias
        self.adapters = nn.ModuleDict()
        self._unmerged: Tensor | None = None  # the weight, while adapters are merged into it

    def forward(
        self, x: Float[Tensor, "*n i"], shift: Float[Tensor, " o"] | None = None
    ) -> Float[Tensor, "*n o"]:
        """Project and add what each adapter says."""
        out = super().forward(x, shift)
        if self._unmerged is not None:
            return out
        for adapter in self._low_ranks():
            if adapter.is_on:
                out = out + adapter(x)
        return out

    def low_rank(self, name: str) -> LowRank:
        """Return one adapter's part here."""
        return cast("LowRank", self.adapters[name])

    def merge(self) -> None:
        """Add the adapters to the weight."""
        if self._unmerged is None:
            update = torch.stack([adapter.update() for adapter in self._low_ranks()]).sum(dim=0)
            self._unmerged = self.weight.data
            self.weight.data = self._unmerged + update

    def unmerge(self) -> None:
        """Put the very weight back that was there before."""
        if self._unmerged is not None:
            self.weight.data, self._unmerged = self._unmerged, None

    def plain(self) -> Projection:
        """Return a projection with this one's parameters and no adapters."""
        base = Projection(
            self.in_features, self.out_features, bias=self.bias is not None, device="meta"
        )
        base.weight, base.bias = self.weight, self.bias
        return base

    def _low_ranks(self) -> Iterator[LowRank]:
        return (cast("LowRank", module) for module in self.adapters.values())


def projections(unet: SpatioTemporalUNet) -> dict[str, Projection]:
    """Return every attention projection by its name: spatial, temporal, adapted or not."""
    return {name: part for name, part in unet.named_modules() if isinstance(part, Projection)}


def target_names(unet: SpatioTemporalUNet, targets: Sequence[LoraTarget]) -> list[str]:
    """Return the names of the projections that a config's targets stand for."""
    ends = tuple(
        f".time_stack.0.{target}{'.0' if target.endswith('to_out') else ''}" for target in targets
    )
    return [name for name in projections(unet) if name.endswith(ends)]


def new_adapter(
    unet: SpatioTemporalUNet, config: LoraConfig, generator: torch.Generator
) -> Adapter:
    """Return an adapter that changes nothing yet: A drawn, B zero.

    A is drawn as nn.Linear draws its weight, which is what peft does.
    """
    parts = projections(unet)
    factors = {}
    for name in target_names(unet, config.targets):
        base = parts[name]
        bound = 1 / math.sqrt(base.in_features)
        down = torch.empty(config.rank, base.in_features)
        factors[name] = Factors(
            down=down.uniform_(-bound, bound, generator=generator),
            up=torch.zeros(base.out_features, config.rank),
        )
    return Adapter(alpha=config.alpha, factors=factors)


def add_adapter(unet: SpatioTemporalUNet, name: str, adapter: Adapter, *, origin: str) -> None:
    """Put an adapter beside the projections it names, at strength 1 in every frame.

    Args:
        unet: Whose projections; adapters that are there already stay.
        name: Of the adapter, for `set_strengths`.
        adapter: Its factors are copied, in the dtype and on the device of the weights.
        origin: Where it comes from, for the error.

    Raises:
        CheckpointError: It is of another network: a projection is not there or of another width.
        ConfigError: An adapter of this name is there already.
    """
    parts = projections(unet)
    if any(isinstance(p, AdaptedProjection) and name in p.adapters for p in parts.values()):
        raise ConfigError(f"an adapter called {name} is there already")
    check_widths(parts, adapter, origin)
    for place, factors in adapter.factors.items():
        part = parts[place]
        if not isinstance(part, AdaptedProjection):
            part = AdaptedProjection(part)
            _replace(unet, place, part)
        low_rank = LowRank(
            part.in_features, part.out_features, rank=len(factors.down), alpha=adapter.alpha
        )
        with torch.no_grad():
            low_rank.lora_A.weight.copy_(factors.down)
            low_rank.lora_B.weight.copy_(factors.up)
        part.adapters[name] = low_rank.to(part.weight)


def check_widths(parts: Mapping[str, Projection], adapter: Adapter, origin: str) -> None:
    """Raise a CheckpointError if a projection of the adapter is not there or of another width."""
    for place, (down, up) in adapter.factors.items():
        part = parts.get(place)
        if part is None:
            raise CheckpointError(
                f"{origin}: the adapter is for {place}, which this model has not: it was trained "
                "on a model of another depth"
            )
        found, needed = (down.shape[1], up.shape[0]), (part.in_features, part.out_features)
        if found != needed or down.shape[0] != up.shape[1]:
            raise CheckpointError(
                f"{origin}: the adapter of {place} maps {found[0]} to {found[1]} numbers, the "
                f"model's projection {needed[0]} to {needed[1]}: it was trained on a model of "
                "another width"
            )


def take_adapter(unet: SpatioTemporalUNet, name: str) -> Adapter:
    """Return copies of an adapter's factors.

    Raises:
        ConfigError: There is none of this name.
    """
    found = _find(unet, name)
    return Adapter(
        alpha=next(iter(found.values())).alpha,
        factors={
            place: Factors(
                low_rank.lora_A.weight.detach().clone(), low_rank.lora_B.weight.detach().clone()
            )
            for place, low_rank in found.items()
        },
    )


def set_strengths(unet: SpatioTemporalUNet, name: str, strengths: Sequence[float]) -> None:
    """Set how much an adapter counts.

    Args:
        unet: That holds it.
        name: Of the adapter.
        strengths: One number for all frames, or one per frame; 0 is the model without it.

    Raises:
        ConfigError: There is none of this name.
    """
    for low_rank in _find(unet, name).values():
        low_rank.strengths = tuple(strengths)


def remove_adapter(unet: SpatioTemporalUNet, name: str) -> None:
    """Take an adapter out; a projection without any is what it was before.

    Raises:
        ConfigError: There is none of this name.
    """
    for place in _find(unet, name):
        part = cast("AdaptedProjection", unet.get_submodule(place))
        part.unmerge()
        del part.adapters[name]
        if not part.adapters:
            _replace(unet, place, part.plain())


def merge_adapters(unet: SpatioTemporalUNet) -> None:
    """Add all adapters to the weights at their present strengths; the network is as fast as before.

    Raises:
        ConfigError: A strength differs between frames.
    """
    for part in _adapted(unet).values():
        part.merge()


def unmerge_adapters(unet: SpatioTemporalUNet) -> None:
    """Put the weights back as they were, bit for bit."""
    for part in _adapted(unet).values():
        part.unmerge()


def is_adapter_parameter(name: str) -> bool:
    """Tell whether a parameter, by its name, belongs to an adapter."""
    return _ADAPTERS in name


def _adapted(unet: SpatioTemporalUNet) -> dict[str, AdaptedProjection]:
    parts = projections(unet)
    return {name: part for name, part in parts.items() if isinstance(part, AdaptedProjection)}


def _find(unet: SpatioTemporalUNet, name: str) -> dict[str, LowRank]:
    adapted = _adapted(unet)
    found = {place: p.low_rank(name) for place, p in adapted.items() if name in p.adapters}
    if not found:
        known = sorted({key for part in adapted.values() for key in part.adapters})
        raise ConfigError(f"no adapter is called {name}; there are: {', '.join(known) or 'none'}")
    return found


def _replace(unet: SpatioTemporalUNet, place: str, part: Projection) -> None:
    parent, _, leaf = place.rpartition(".")
    setattr(unet.get_submodule(parent), leaf, part)
