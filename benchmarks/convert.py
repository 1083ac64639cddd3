"""How much memory converting the full model takes: the released layout of 9.6 GB to another.

    python benchmarks/convert.py [--to ours|diffusers|released] [--folder DIR]

A sparse file of the real layout, with every tensor of the full image-to-video model in fp32 (all
zeros, which take no disk), is converted by `svd convert` in a process of its own. The output is
written in full, checked for its size and removed. The last line is JSON; the aim is a peak below
3 GB of resident memory.
"""

import argparse
import json
import resource
import struct
import subprocess
import sys
import tempfile
import time
from math import prod
from pathlib import Path

import torch

from svd.config.model import (
    DenoiserConfig,
    ImageEncoderConfig,
    svd_autoencoder_config,
    svd_unet_config,
)
from svd.models.checkpoints.checkpoint import Checkpoint, Part, Tensors
from svd.models.checkpoints.single_file import video_file
from svd.models.checkpoints.tensor_file import LazyTensor, from_tensor
from svd.models.networks.autoencoder import Autoencoder
from svd.models.networks.image_encoder import ImageEncoder
from svd.models.networks.temporal_decoder import TemporalDecoder
from svd.models.networks.unet import SpatioTemporalUNet

ITEM_BYTES = 4  # fp32


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--to", choices=("ours", "diffusers", "released"), default="ours")
    parser.add_argument("--folder", type=Path, default=None, help="default: the temporary folder")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        source = Path(folder) / "svd.safetensors"
        num_tensors = write_sparse(source)
        target = Path(folder) / ("out.safetensors" if options.to == "released" else "out")
        started = time.perf_counter()
        command = [sys.executable, "-m", "svd.cli", "convert", str(source), str(target)]
        subprocess.run([*command, "--to", options.to], check=True)
        seconds = time.perf_counter() - started
        files = [target] if target.is_file() else [p for p in target.rglob("*") if p.is_file()]
        figures = {
            "to": options.to,
            "source_gb": source.stat().st_size / 1e9,
            "written_gb": sum(path.stat().st_size for path in files) / 1e9,
            "tensors": num_tensors,
            "peak_rss_gb": resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024 / 1e9,
            "seconds": seconds,
        }
    for name, value in figures.items():
        print(f"{name:<14} {value}")
    print(json.dumps(figures))


def write_sparse(path: Path) -> int:
    """Write the released layout's header, and a hole where the values would be."""
    tensors, metadata = video_file(full_model())
    header: dict[str, object] = {"__metadata__": metadata}
    start = 0
    for name, tensor in tensors.items():
        stop = start + prod(tensor.shape) * ITEM_BYTES
        shape = list(tensor.shape)
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [start, stop]}
        start = stop
    text = json.dumps(header).encode()
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        file.truncate(8 + len(text) + start)
    return len(tensors)


def full_model() -> Checkpoint:
    """Return the full image-to-video model, whose tensors have shapes and no values."""
    autoencoder = svd_autoencoder_config()
    image = ImageEncoderConfig(kind="open-clip")
    with torch.device("meta"):
        networks = (
            SpatioTemporalUNet(svd_unet_config()),
            Autoencoder(autoencoder),
            TemporalDecoder(autoencoder),
            ImageEncoder(image).visual,
        )
    unet, encoder, decoder, vision = (lazy(network) for network in networks)
    return Checkpoint(
        unet=Part(DenoiserConfig(unet=svd_unet_config()), unet),
        autoencoder=Part(autoencoder, encoder),
        temporal_decoder=Part(autoencoder, decoder),
        image_encoder=Part(image, vision),
    )


def lazy(network: torch.nn.Module) -> Tensors:
    found: dict[str, LazyTensor] = {
        name: from_tensor(tensor) for name, tensor in network.state_dict().items()
    }
    return found


if __name__ == "__main__":
    main()
