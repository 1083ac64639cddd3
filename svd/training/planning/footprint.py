"""What one training step computes and keeps, counted on the real network without computing it.

The network's own code runs forwards and backwards on tensors that have shapes and no values
(PyTorch's fake tensors, on the CPU's kernels, whose attention is fused as a GPU's is). So a change
of the network, or of what it recomputes, changes these counts by itself.
"""

import weakref
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from svd.config.compute import Precision
from svd.config.lora import LoraConfig
from svd.config.model import CheckpointPolicy, DenoiserConfig
from svd.models.networks.denoiser import Denoiser
from svd.training.loop.optim import ParameterSet, freeze_others
from svd.training.objective.adapter import attach_adapter
from svd.training.objective.loss import denoising_loss
from svd.training.objective.network import RawNetwork
from svd.training.objective.traits import Traits
from svd.types.batch import Conditioning

DTYPES: Final[dict[Precision, torch.dtype]] = {"fp32": torch.float32, "bf16": torch.bfloat16}
# Captions have the 77 tokens of CLIP's text encoders.
_NUM_TOKENS: Final = {"captions": 77, "first-frame": 1, "both-ends": 2}


@dataclass(frozen=True, slots=True)
class ClipShape:
    """What one example of a phase is to the network."""

    num_frames: int
    height: int  # of the latents
    width: int
    latent_channels: int

    @property
    def num_latents(self) -> int:
        """Positions in space and time."""
        return self.num_frames * self.height * self.width


@dataclass(frozen=True, slots=True)
class ParameterCount:
    """Numbers in the network."""

    total: int
    trained: int


@dataclass(frozen=True, slots=True)
class Footprint:
    """One clip's share of a step; all of it grows in proportion to the clips of a micro-batch.

    Attributes:
        forward_flops: Operations of the network, two per multiplication and addition.
        step_flops: Those of forward and backward, with what backward computes again.
        saved_bytes: What autograd keeps from forward to backward; parameters left out.
        peak_bytes: The most that is alive at a time; parameters and their gradients left out.
    """

    forward_flops: int
    step_flops: int
    saved_bytes: int
    peak_bytes: int

    @property
    def model_flops(self) -> int:
        """What the step is worth: backward twice a forward, nothing recomputed (PaLM's MFU)."""
        return 3 * self.forward_flops


def count_parameters(
    denoiser: DenoiserConfig,
    trainable: ParameterSet,
    traits: Traits,
    *,
    adapter: LoraConfig | None = None,
) -> ParameterCount:
    """Count the network's parameters, and those that a phase trains."""
    network = _meta_network(denoiser, adapter)
    trained = freeze_others(network, trainable, one_token=traits.is_one_token)
    return ParameterCount(sum(p.numel() for p in network.parameters()), trained)


def measure_step(
    denoiser: DenoiserConfig,
    traits: Traits,
    shape: ClipShape,
    *,
    trainable: ParameterSet,
    precision: Precision,
    policy: CheckpointPolicy,
    adapter: LoraConfig | None = None,
) -> Footprint:
    """Run one step of one clip on tensors without values and count.

    Args:
        denoiser: The network, with the input channels of the objective.
        traits: Of the objective.
        shape: Of a clip's latents.
        trainable: What the phase trains: frozen parts keep less.
        precision: Of weights and activations.
        policy: What backward computes again.
        adapter: That is trained instead of the network.
    """
    network = _meta_network(denoiser, adapter)
    network.denoiser.unet.set_checkpointing(policy)
    freeze_others(network, trainable, one_token=traits.is_one_token)
    with FakeTensorMode():
        _forget_values(network, DTYPES[precision])
        for parameter in network.parameters():
            if parameter.requires_grad:
                # Gradients are counted by kind; the engine takes them away as they come.
                parameter.register_post_accumulate_grad_hook(  # type: ignore[no-untyped-call]
                    _drop_gradient
                )
        saved, counter = SavedBytes(network), StepCounter(network)
        with counter:
            with saved:
                loss = _loss(network, traits, shape, denoiser)
            forward = counter.flops
            torch.autograd.backward(loss)
        return Footprint(
            forward_flops=forward,
            step_flops=counter.flops,
            saved_bytes=saved.total,
            peak_bytes=counter.peak_bytes,
        )


class SavedBytes:
    """Adds up the distinct storages that autograd saves within a block."""

    def __init__(self, module: nn.Module) -> None:
        self.total = 0
        self._seen = {p.untyped_storage()._cdata for p in module.parameters()}
        self._kept: list[Tensor] = []  # so that no address is given twice
        self._hooks = torch.autograd.graph.saved_tensors_hooks(self._note, lambda tensor: tensor)

    def _note(self, tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in self._seen:
            self._seen.add(storage._cdata)
            self._kept.append(tensor)
            self.total += storage.nbytes()
        return tensor

    def __enter__(self) -> None:
        self._hooks.__enter__()

    def __exit__(self, *exc: object) -> None:
        self._hooks.__exit__(*exc)


class StepCounter(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the operations of a block, and follows the storages they make from birth to death.

    PyTorch's FlopCounterMode has the same formulas, but holds on to what backward recomputes.
    """

    def __init__(self, module: nn.Module) -> None:
        """Start to count; the module's parameters are not."""
        super().__init__()  # type: ignore[no-untyped-call]
        self.flops = self.live_bytes = self.peak_bytes = 0
        self._parameters = {p.untyped_storage()._cdata for p in module.parameters()}
        self._alive: dict[int, weakref.ref[Any]] = {}

    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Run an operation and count it."""
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        formula = flop_registry.get(func._overloadpacket)
        if formula is not None:
            self.flops += formula(*args, **kwargs, out_val=result)
        for leaf in result if isinstance(result, list | tuple) else (result,):
            if isinstance(leaf, Tensor):
                self._note(leaf.untyped_storage())
        return result

    def _note(self, storage: torch.UntypedStorage) -> None:
        key, size = storage._cdata, storage.nbytes()
        if key in self._alive or key in self._parameters:
            return

        def forget(_: object) -> None:
            self.live_bytes -= size
            self._alive.pop(key, None)

        self._alive[key] = weakref.ref(storage, forget)
        self.live_bytes += size
        self.peak_bytes = max(self.peak_bytes, self.live_bytes)


def _drop_gradient(parameter: Tensor) -> None:
    parameter.grad = None


def _meta_network(denoiser: DenoiserConfig, adapter: LoraConfig | None) -> RawNetwork:
    with torch.device("meta"):
        network = RawNetwork(Denoiser(denoiser))
    if adapter is not None:
        attach_adapter(network.denoiser.unet, adapter, seed=0, before=None)
    return network


def _forget_values(network: nn.Module, dtype: torch.dtype) -> None:
    """Put fake tensors in the place of all others; call it under a FakeTensorMode."""
    for module in network.modules():
        for name, parameter in list(module.named_parameters(recurse=False)):
            fake = torch.empty(parameter.shape, dtype=dtype, device="cpu")
            module.register_parameter(
                name, nn.Parameter(fake, requires_grad=parameter.requires_grad)
            )
        for name, buffer in list(module.named_buffers(recurse=False)):
            module.register_buffer(name, torch.empty(buffer.shape, dtype=dtype, device="cpu"))


def _loss(
    network: RawNetwork, traits: Traits, shape: ClipShape, denoiser: DenoiserConfig
) -> Tensor:
    latents = torch.empty(
        1, shape.num_frames, shape.latent_channels, shape.height, shape.width, device="cpu"
    )
    unet = denoiser.unet
    conditioning = Conditioning(
        context=torch.empty(1, _NUM_TOKENS[traits.context], unet.context_dim, device="cpu"),
        vector=torch.empty(1, unet.added_cond_dim, device="cpu"),
        cond_latents=(
            torch.empty(
                *(1, shape.num_frames, unet.in_channels - shape.latent_channels),
                *(shape.height, shape.width),
                device="cpu",
            )
            if traits.cond_latents
            else None
        ),
    )
    return denoising_loss(
        network,
        latents=latents,
        noise=torch.empty_like(latents),
        sigma=torch.ones(1, device="cpu"),
        conditioning=conditioning,
    ).loss
