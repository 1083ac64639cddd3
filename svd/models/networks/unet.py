"""The spatio-temporal UNet: Stable Diffusion 2.1's with temporal layers after spatial ones.

Source: Blattmann 2023 (Stable Video Diffusion), Appendix D; layer order and names as released.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple, TypeVar, cast

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Bool, Float
from torch import Tensor, nn

from svd.config.model import CheckpointPolicy, UNetConfig
from svd.errors import ConfigError
from svd.models.networks.attention import SpatioTemporalTransformer, TransformerBlock
from svd.models.networks.layers import (
    Downsample,
    Upsample,
    call_or_recompute,
    embedding_mlp,
    sinusoid,
    use_channels_last,
    zero,
)
from svd.models.networks.resblock import ResBlock, Shifts, VideoResBlock

M = TypeVar("M", bound=nn.Module)
MASK_EMBEDDING = "mask_embedding"  # the parameter's name; interpolation models have it
_TEMPORAL_MARKS = ("time_stack.", "time_pos_embed.", "time_mixer.")


class _Inputs(NamedTuple):
    """What every layer of one forward pass is given beside the frames."""

    context: Tensor
    frame_features: dict[int, Tensor]  # per width; empty: temporal layers are skipped
    num_frames: int
    image_only: Tensor | None


class SpatioTemporalUNet(nn.Module):
    """Predicts the network output F for the frames of clips.

    Attributes:
        spatial_only: True skips every temporal layer: the image model that pretraining starts
            with. A Python switch, unlike `image_only`, so that nothing is computed in vain.
    """

    def __init__(self, config: UNetConfig) -> None:
        super().__init__()
        self.config = config
        self.spatial_only = False
        self.keep_activations = True
        widths = config.level_channels
        embed_dim = 4 * config.model_channels
        self.time_embed = embedding_mlp(config.model_channels, embed_dim)
        self.mask_embedding = (
            None
            if config.mask_embedding is None
            else nn.Parameter(torch.zeros(config.mask_embedding))
        )
        self.label_emb = nn.Sequential(embedding_mlp(config.added_cond_dim, embed_dim))
        self.input_blocks = nn.ModuleList(
            [nn.ModuleList([nn.Conv2d(config.in_channels, widths[0], 3, padding=1)])]
        )
        skips = [widths[0]]
        channels = widths[0]
        for level, width in enumerate(widths):
            for _ in range(config.num_res_blocks):
                self.input_blocks.append(self._layer(channels, width, level))
                channels = width
                skips.append(channels)
            if level < len(widths) - 1:
                self.input_blocks.append(nn.ModuleList([Downsample(channels)]))
                skips.append(channels)
        self.middle_block = nn.ModuleList(
            [
                self._res(channels, channels),
                self._transformer(channels),
                self._res(channels, channels),
            ]
        )
        self.output_blocks = nn.ModuleList()
        for level, width in reversed(list(enumerate(widths))):
            for index in range(config.num_res_blocks + 1):
                layer = self._layer(channels + skips.pop(), width, level)
                channels = width
                if level and index == config.num_res_blocks:
                    layer.append(Upsample(channels))
                self.output_blocks.append(layer)
        self.out = nn.Sequential(
            nn.GroupNorm(config.norm_groups, channels),
            nn.SiLU(),
            zero(nn.Conv2d(channels, config.out_channels, 3, padding=1)),
        )
        if config.temporal_init == "identity":
            for transformer in self._all(SpatioTemporalTransformer):
                transformer.start_as_identity()
        use_channels_last(self)

    def forward(
        self,
        latents: Float[Tensor, "b t c h w"],
        c_noise: Float[Tensor, " b"],
        context: Float[Tensor, "b s d"],
        vector: Float[Tensor, "b *t a"],
        image_only: Bool[Tensor, " b"] | None = None,
    ) -> Float[Tensor, "b t o h w"]:
        """Return F for preconditioned latents.

        Args:
            latents: Noisy latents times c_in, with cond_latents concatenated; where there is a
                mask embedding their last channel is the mask, 1 for known frames.
            c_noise: The noise level as the network sees it.
            context: Text tokens or the one image token of each clip.
            vector: Embedded added ids of each clip, or of each frame.
            image_only: Clips whose frames are unrelated pictures.

        Computes in the dtype of the weights; returns the dtype of the latents.

        Raises:
            ConfigError: A tensor does not fit the configuration.
        """
        self._check(latents, c_noise, context, vector)
        dtype, num_frames = self.dtype, latents.shape[1]
        shifts = iter(self._shifts(c_noise, vector))
        inputs = _Inputs(context.to(dtype), self._frame_features(latents), num_frames, image_only)
        if self.mask_embedding is not None:
            latents = fill_unknown(latents, self.mask_embedding)
        x = rearrange(latents.to(dtype), "b t c h w -> (b t) c h w")
        x = x.contiguous(memory_format=torch.channels_last)
        skips = []
        for layer in self.input_blocks:
            x = self._run(layer, x, shifts, inputs)
            skips.append(x)
        x = self._run(self.middle_block, x, shifts, inputs)
        for layer in self.output_blocks:
            x = self._run(layer, torch.cat([x, skips.pop()], dim=1), shifts, inputs)
        out: Tensor = rearrange(self.out(x), "(b t) c h w -> b t c h w", t=num_frames)
        return out.to(latents.dtype)

    @property
    def dtype(self) -> torch.dtype:
        """What the UNet computes in: the dtype of its weights."""
        return cast("nn.Linear", self.time_embed[0]).weight.dtype

    def set_checkpointing(self, policy: CheckpointPolicy) -> None:
        """Choose what backward recomputes.

        Args:
            policy: "none" keeps every activation; "ff+res" recomputes norms, activations and
                the first linear of feed-forward layers (9 % more work, a third of the memory);
                "outer" does so on the first level only, whose activations are the largest (3 %
                more work, 60 % of the memory);
                "block" keeps only the blocks' inputs (a third more work).
        """
        self.keep_activations = policy != "block"
        per_level = self.config.num_res_blocks
        first_level = [*self.input_blocks[: 1 + per_level], *self.output_blocks[-1 - per_level :]]
        recomputed = {"outer": first_level, "ff+res": [self]}.get(policy, [])
        inside = {module for part in recomputed for module in part.modules()}
        for module in self.modules():
            if isinstance(module, ResBlock | TransformerBlock | SpatioTemporalTransformer):
                module.keep_activations = module not in inside

    def compile_blocks(self, *, backend: str = "inductor") -> None:
        """Compile each residual block and transformer, one graph per input size.

        Args:
            backend: Of torch.compile; "eager" traces without making code.
        """
        blocks = [*self._all(VideoResBlock), *self._all(SpatioTemporalTransformer)]
        # Blocks share code, and dynamo counts graphs per code: allow one per block.
        torch._dynamo.config.recompile_limit = max(
            torch._dynamo.config.recompile_limit, 8 * len(blocks)
        )
        for block in blocks:
            block.compile(fullgraph=True, dynamic=False, backend=backend)

    def _res(self, in_channels: int, out_channels: int) -> VideoResBlock:
        config = self.config
        return VideoResBlock(
            in_channels,
            out_channels,
            4 * config.model_channels,
            config.norm_groups,
            config.merge_logit,
        )

    def _transformer(self, channels: int) -> SpatioTemporalTransformer:
        config = self.config
        return SpatioTemporalTransformer(
            channels, config.head_dim, config.context_dim, config.norm_groups, config.merge_logit
        )

    def _layer(self, in_channels: int, out_channels: int, level: int) -> nn.ModuleList:
        layer = nn.ModuleList([self._res(in_channels, out_channels)])
        if 2**level in self.config.attention_factors:
            layer.append(self._transformer(out_channels))
        return layer

    def _all(self, kind: type[M]) -> list[M]:
        return [module for module in self.modules() if isinstance(module, kind)]

    def _run(
        self, layer: nn.Module, x: Tensor, shifts: Iterator[Shifts], inputs: _Inputs
    ) -> Tensor:
        for module in layer.children():
            if isinstance(module, VideoResBlock):
                x = self._call(module, x, next(shifts), inputs.num_frames, inputs.image_only)
            elif isinstance(module, SpatioTemporalTransformer):
                features = inputs.frame_features.get(module.channels)
                x = self._call(
                    module, x, inputs.context, features, inputs.num_frames, inputs.image_only
                )
            else:
                x = module(x)
        return x

    def _call(self, module: nn.Module, *inputs: object) -> Tensor:
        return call_or_recompute(module, *inputs, keep_activations=self.keep_activations)

    def _shifts(self, c_noise: Tensor, vector: Tensor) -> list[Shifts]:
        """Project the embedding for all blocks at once: two products instead of 44 thin ones."""
        noise = self.time_embed(sinusoid(c_noise, self.config.model_channels).to(self.dtype))
        added = self.label_emb(vector.to(self.dtype))
        embedding = F.silu(noise[:, None] + (added[:, None] if added.ndim == 2 else added))
        blocks = self._all(VideoResBlock)
        spatial = _project(embedding, [block.embedding for block in blocks])
        if self.spatial_only:
            return [Shifts(shift, None) for shift in spatial]
        temporal = _project(embedding, [block.time_stack.embedding for block in blocks])
        return [Shifts(*pair) for pair in zip(spatial, temporal, strict=True)]

    def _frame_features(self, latents: Tensor) -> dict[int, Tensor]:
        if self.spatial_only:
            return {}
        dtype = self.dtype
        index = torch.arange(latents.shape[1], device=latents.device, dtype=latents.dtype)
        return {
            width: sinusoid(index, width).to(dtype) for width in set(self.config.level_channels)
        }

    def _check(self, latents: Tensor, c_noise: Tensor, context: Tensor, vector: Tensor) -> None:
        config = self.config
        num_clips, num_frames = latents.shape[:2]
        for name, tensor in (("c_noise", c_noise), ("context", context), ("vector", vector)):
            if len(tensor) != num_clips:
                raise ConfigError(f"latents of {num_clips} clips, but {name} of {len(tensor)}")
        if vector.ndim == 3 and vector.shape[1] not in {1, num_frames}:
            raise ConfigError(
                f"latents of {num_frames} frames per clip, but vector of {vector.shape[1]}"
            )
        for name, tensor, axis, expected in (
            ("in_channels", latents, 2, config.in_channels),
            ("context_dim", context, -1, config.context_dim),
            ("added_cond_dim", vector, -1, config.added_cond_dim),
        ):
            if tensor.shape[axis] != expected:
                raise ConfigError(
                    f"the UNet has {name}={expected} but was given {tensor.shape[axis]} "
                    f"(tensor of shape {tuple(tensor.shape)})"
                )
        own = config.mask_embedding
        if own is not None and own[1:] not in {(1, 1), tuple(latents.shape[-2:])}:
            raise ConfigError(
                f"the mask embedding has the size {own[1:]} but the latents {latents.shape[-2:]}: "
                "sample at the size it was trained at, or train with mask_embedding: per-channel"
            )
        for side in latents.shape[-2:]:
            if side % config.downsampling:
                raise ConfigError(
                    f"latent size {tuple(latents.shape[-2:])} is not a multiple of "
                    f"{config.downsampling}, the factor between the UNet's outer and inner levels"
                )


def fill_unknown(
    latents: Float[Tensor, "b t i h w"], embedding: Float[Tensor, "c #h #w"]
) -> Float[Tensor, "b t i h w"]:
    """Put the mask embedding where the mask, the last channel, is 0.

    Source: SVD paper, appendix D.5: z = (z_s, z_m, z_m, z_m, z_e) and a binary mask.
    """
    width = embedding.shape[0] + 1
    noisy, known, mask = torch.split(latents, [latents.shape[2] - width, width - 1, 1], dim=2)
    filled = mask * known + (1 - mask) * embedding.to(latents.dtype)
    return torch.cat([noisy, filled, mask], dim=2)


def _project(embedding: Tensor, layers: Sequence[nn.Linear]) -> tuple[Tensor, ...]:
    weight = torch.cat([layer.weight for layer in layers])
    bias = torch.cat([layer.bias for layer in layers])
    sizes = [layer.out_features for layer in layers]
    return torch.split_with_sizes(F.linear(embedding, weight, bias), sizes, dim=-1)


def is_temporal(name: str) -> bool:
    """Tell whether a parameter of the UNet, by its name, belongs to a temporal layer."""
    return any(mark in name for mark in _TEMPORAL_MARKS)


def is_unused_with_one_token(name: str) -> bool:
    """Tell whether a parameter has no gradient when the context is one image token.

    The softmax over one key is 1, so queries, keys and the norm before them play no part.
    """
    return ".attn2.to_q." in name or ".attn2.to_k." in name or ".norm2." in name
