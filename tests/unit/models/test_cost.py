"""What the full network costs, counted on meta tensors by benchmarks/unet.py."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

from svd.config.model import svd_unet_config

pytest.importorskip("diffusers")
BENCHMARK = Path(__file__).parents[3] / "benchmarks" / "unet.py"


@pytest.fixture(scope="module")
def benchmark() -> ModuleType:
    spec = importlib.util.spec_from_file_location("benchmarks_unet", BENCHMARK)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def test_kernels_and_bytes_of_a_forward_pass(benchmark: ModuleType) -> None:
    count, _ = benchmark.count_forward(
        lambda: benchmark.build_ours(svd_unet_config()), (14, 40, 72), with_grad=False
    )
    assert count.kernels.total() <= 1_400
    assert count.bytes_written <= 21.5 * 2**30


def test_saved_activations_with_ff_res(benchmark: ModuleType) -> None:
    _, alive = benchmark.count_forward(
        lambda: benchmark.build_ours(svd_unet_config(), "ff+res"), (25, 72, 128), with_grad=True
    )
    assert alive <= 31 * 2**30
